"""The command line: one module per command, one error boundary."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line in this process and return its exit status.

    Args:
        argv: the words after the program's name; None: this process's own.

    Returns:
        0 or 1 as the command answers, 2 for wrong usage, 3 for a `FitplugError`, which is one line on standard error.
    """
    from fitplug.cli.app import invoke

    return invoke(list(sys.argv[1:] if argv is None else argv))


def run() -> None:
    """The console script."""
    sys.exit(main())
