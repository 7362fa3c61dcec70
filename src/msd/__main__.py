"""The command ``msd``, also as ``python -m msd``: runs the command line. An interrupt ends it without a traceback.

Imports nothing that takes time before it can catch an interrupt.
"""

import os


def main() -> None:
    """Runs the command line and ends the process."""
    try:
        from msd.cli import main as run

        run()
    except KeyboardInterrupt:
        # During an import, or before or after the command itself. Python would print a traceback.
        os._exit(130)


if __name__ == "__main__":
    main()
