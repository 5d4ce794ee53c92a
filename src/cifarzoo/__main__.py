"""``python -m cifarzoo`` is the command ``cifarzoo``."""

from cifarzoo.cli import main

if __name__ == "__main__":
    main()
