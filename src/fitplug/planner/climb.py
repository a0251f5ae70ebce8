"""The longest context: a search on a grid that needs few trials and ends with a neighbour that was seen failing."""

from collections.abc import Callable
from typing import NamedTuple

from fitplug.planner.trials import Trial

_GUESSES = 8
"""Proposals by the ledger before the search halves; with exact estimates two or three are usual."""
_QUICK = 3


class Grid(NamedTuple):
    """The contexts that may be chosen: `low`, then multiples of `step`, and `high` itself."""

    step: int
    low: int
    high: int

    def at(self, index: int) -> int:
        """Context number `index`; number 0 is the shortest."""
        return self.low if index == 0 else min((self.low // self.step + index) * self.step, self.high)

    @property
    def last(self) -> int:
        """The number of the longest."""
        return -(-self.high // self.step) - self.low // self.step

    def number(self, n_ctx: float) -> int:
        """The number of the longest context that is not above `n_ctx`; -1 for none."""
        if n_ctx >= self.high:
            return self.last
        return -1 if n_ctx < self.low else int(n_ctx // self.step) - self.low // self.step


def climb(
    grid: Grid, attempt: Callable[[int], Trial | None], guess: Callable[[int], int], *, quick: bool = False
) -> Trial | None:
    """The trial of the longest context that fits.

    Args:
        grid: Where to look.
        attempt: The trial of one context, None where it does not fit.
        guess: By what was learnt so far, the number of the longest context below this number that should fit.
        quick: Be content with the first context that fits, and give up after a few.

    Returns:
        None where even the shortest context does not fit.
    """
    best = attempt(grid.high)
    if best is not None:
        return best
    low, high, n = -1, grid.last, 0
    while high - low > 1 and not (quick and (best is not None or n >= _QUICK)):
        n += 1
        wished = guess(high) if n <= _GUESSES else (low + high) // 2
        index = max(low + 1, min(high - 1, wished))
        trial = attempt(grid.at(index))
        if trial is None:
            high = index
        else:
            low, best = index, trial
    return best
