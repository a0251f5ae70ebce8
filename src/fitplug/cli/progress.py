"""What takes longer than half a second says so on a terminal, and how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fitplug.sources.progress import Words, heard

if TYPE_CHECKING:
    from threading import Event

PATIENCE = 0.5
_SPINNER = 3
"""Columns that the turning sign takes, and the last one, which would wrap."""
Say = Callable[[Words], None]


@contextmanager
def progressing(what: str) -> Iterator[Say]:
    """Yield what changes the line that is shown while this goes on; away from a terminal nothing is.

    What is fetched meanwhile changes it, too.
    """
    import sys

    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    import threading

    words: list[Words] = [what]
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(words, done), daemon=True)
    thread.start()

    def say(text: Words) -> None:
        words[0] = text

    try:
        with heard(say):
            yield say
    finally:
        done.set()
        thread.join()


def _show(words: list[Words], done: "Event") -> None:
    if done.wait(PATIENCE):
        return
    from rich.console import Console
    from rich.text import Text

    from fitplug.render.text import one_line

    console = Console(stderr=True)

    def line() -> Text:
        now = words[0]
        text = Text(one_line(now if isinstance(now, str) else now()))
        text.truncate(console.width - _SPINNER, overflow="ellipsis")
        return text

    with console.status(line()) as status:
        while not done.wait(0.1):
            status.update(line())
