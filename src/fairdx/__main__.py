"""`python -m fairdx`, and the command `fairdx`: Ctrl-C shows no traceback, not even during the imports."""

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from fairdx.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
