"""What one reading may use up before its file is refused: memory and time."""

from fitplug.errors import UnreadableError
from fitplug.units import MIB

MAX_HEADER = 64 * MIB
"""Bytes of one GGUF header: four times the largest that is known (Gemma 4's vocabulary)."""
MAX_MEMORY = 36 * MIB
"""For what is built and kept, so that a reading with all its working space stays below 64 MiB. Real headers take some 3."""
MAX_STRINGS = 4 << 20
"""Stepped over: four times the most that is known."""
PAIR, NUMBER, TENSOR = 120, 40, 260
"""What CPython takes at most for a metadata pair, a number in a tuple, and a tensor without its name."""
_LONG_TENSOR, _MOST_TENSORS = 400, 1 << 20


class Budget:
    """What is left for one model, over all its files.

    A model of a trillion parameters may have half a million tensors, and whoever has the disk for it has the memory for its
    names: every MiB of weights pays for one tensor more.
    """

    __slots__ = ("memory", "strings")

    def __init__(self, n_bytes: int) -> None:
        self.strings = MAX_STRINGS
        self.memory = MAX_MEMORY + min(n_bytes // MIB, _MOST_TENSORS) * _LONG_TENSOR

    def spend(self, n_bytes: int, name: str) -> None:
        """Take memory out of the budget on behalf of the file `name`."""
        self.memory -= n_bytes
        if self.memory < 0:
            raise UnreadableError(f"{name}: has more keys, text or tensors than a model of its size can have: it is damaged")

    def spend_strings(self, count: int, name: str) -> None:
        """Take strings that are only stepped over out of the budget."""
        self.strings -= count
        if self.strings < 0:
            raise UnreadableError(f"{name}: has more than {MAX_STRINGS} strings in its header: the file is damaged")
