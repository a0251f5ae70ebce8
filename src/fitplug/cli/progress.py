"""What takes longer than half a second says so on a terminal, and how far it is."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 0.5
Say = Callable[[str], None]


@contextmanager
def progressing(what: str) -> Iterator[Say]:
    """Yield what changes the line that is shown while this goes on; away from a terminal nothing is."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    words, done = [what], threading.Event()
    thread = threading.Thread(target=_show, args=(words, done), daemon=True)
    thread.start()

    def say(text: str) -> None:
        words[0] = text

    try:
        yield say
    finally:
        done.set()
        thread.join()


def _show(words: list[str], done: threading.Event) -> None:
    if done.wait(PATIENCE):
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(escape(words[0])) as status:
        while not done.wait(0.1):
            status.update(escape(words[0]))
