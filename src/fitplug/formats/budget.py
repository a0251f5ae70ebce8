"""What one reading may use up before its file is refused: counts, text, and so memory and time."""

from fitplug.errors import UnreadableError
from fitplug.units import MIB

MAX_HEADER = 64 * MIB
"""Bytes of one GGUF header: four times the largest that is known (Gemma 4's vocabulary)."""
MAX_TEXT = 12 * MIB
MAX_STRINGS = 4 << 20
"""Stepped over: four times the most that is known."""
MAX_TENSORS = 100_000
_MOST_TENSORS = 1 << 20


class Budget:
    """What is left for one model, over all its files.

    A model of a trillion parameters may have half a million tensors, and whoever has the disk for it has the memory for its
    names: every MiB of weights pays for one tensor more.
    """

    __slots__ = ("strings", "tensors", "text")

    def __init__(self, n_bytes: int) -> None:
        self.strings = MAX_STRINGS
        self.tensors = min(MAX_TENSORS + n_bytes // MIB, _MOST_TENSORS)
        self.text = MAX_TEXT + (self.tensors - MAX_TENSORS) * 100

    def spend_text(self, n_bytes: int, name: str) -> None:
        """Take text out of the budget on behalf of the file `name`."""
        self.text -= n_bytes
        if self.text < 0:
            raise UnreadableError(f"{name}: holds more than {MAX_TEXT // MIB} MiB of text in its header: the file is damaged")

    def spend_tensors(self, count: int, name: str) -> None:
        """Take tensors out of the budget."""
        self.tensors -= count
        if self.tensors < 0:
            raise UnreadableError(f"{name}: has more tensors than a model of its size can have: the file is damaged")

    def spend_strings(self, count: int, name: str) -> None:
        """Take strings that are only stepped over out of the budget."""
        self.strings -= count
        if self.strings < 0:
            raise UnreadableError(f"{name}: has more than {MAX_STRINGS} strings in its header: the file is damaged")
