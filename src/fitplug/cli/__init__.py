"""The command line: one module per command, one error boundary."""

import contextlib
import gc
import io
import os
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
    """The console script.

    A process that lives for a tenth of a second needs neither of two things, which take 9 ms each: collecting garbage while
    modules are loaded, and taking every object down at the end. Leaving at once also leaves behind a detector's thread that
    hangs in a driver.
    """
    gc.set_threshold(100_000)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a model may be called what this terminal cannot write
    status = main()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed by whoever read it; `main` has said what there was to say
                stream.flush()
    os._exit(status)
