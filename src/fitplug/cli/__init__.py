"""The command line: one module per command, one error boundary."""

import io
import sys
from collections.abc import Sequence

CLOSED_PIPE = 141
"""As a shell reports a program that a closed pipe ended."""


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a model may be called what this terminal cannot write
    status = main()
    if status == CLOSED_PIPE:  # nobody reads: say nothing when Python flushes at its end either
        sys.stdout = None  # as Python itself marks a closed one
    sys.exit(status)
