"""``python -m msd``: runs the command line."""

from msd.cli import main

if __name__ == "__main__":
    main()
