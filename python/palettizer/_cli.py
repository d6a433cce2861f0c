"""The command `palettizer`, as the wheel installs it."""

import sys

from palettizer import _native


def main() -> int:
    """Runs the command with this process's arguments; the exit code is the result."""
    return _native.main(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
