"""`python -m fairdx`, and the command `fairdx`: Ctrl-C shows no traceback, not even during the imports."""

import os
import sys


def main() -> None:
    """Runs the command line."""
    # Read once, when torch is loaded. By default OpenMP's threads spin while they wait for each other: beside
    # another program each then waits for one that is not running. Results are the same.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from fairdx.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
