"""Doing several things with a network at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
WORKERS = 6


def side_by_side(do: Callable[[T], R], items: Iterable[T], workers: int = WORKERS) -> Iterator[R]:
    """What `do` makes of each item, in their order.

    Whoever stops listening, of their own accord or by Ctrl-C, does not wait for what is under way: it may be a stall.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(do, items)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
