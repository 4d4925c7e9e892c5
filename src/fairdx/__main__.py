"""`python -m fairdx`, and the command `fairdx`: Ctrl-C shows no traceback, not even during the imports."""

import os
import sys


def main() -> None:
    """Runs the command line."""
    # Read once, when torch is loaded. By default OpenMP's threads spin for long while they wait for each
    # other: beside another program each then waits for one that is not running. Results are the same.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:
        from fairdx.cli import main as run

        run()
    except KeyboardInterrupt as stop:
        from fairdx.core.signals import Terminated

        ended = isinstance(stop, Terminated)
        sys.stderr.write("stopped by SIGTERM\n" if ended else "interrupted\n")
        sys.exit(143 if ended else 130)


if __name__ == "__main__":
    main()
