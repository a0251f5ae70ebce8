"""How far a fetch is: told here by whoever fetches, shown by whoever listens. Nobody needs to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Words = str | Callable[[], str]
"""What is going on; or what says so each time that it is shown."""
_listeners: list[Callable[[Words], None]] = []


@contextmanager
def heard(by: Callable[[Words], None]) -> Iterator[None]:
    """Hand what is told meanwhile to `by`."""
    _listeners.append(by)
    try:
        yield
    finally:
        _listeners.remove(by)


def tell(words: Words) -> None:
    """What is going on just now."""
    for listener in _listeners[-1:]:
        listener(words)
