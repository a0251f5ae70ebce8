"""What was found in one repository."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.extension import Listing
from fitplug.planner.records import Goal
from fitplug.repository.advice import Advice, Row, advise
from fitplug.repository.grouping import Candidate, Role
from fitplug.units import format_bytes

SIXTEEN_BITS = ("F16", "BF16", "FP16")


class Checked(NamedTuple):
    """A repository: its models, what lies beside them, and the disk that it would be downloaded to."""

    repository: str
    listing: Listing
    rows: Sequence[Row]
    others: Sequence[Candidate]
    """Projectors, drafts, importance matrices, adapters, pieces."""
    folder: str = ""
    free_bytes: int | None = None
    copies: int = 1
    """How often the runner keeps the file: `ollama create` copies it."""

    @property
    def room(self) -> int | None:
        """The largest file that the disk takes."""
        return None if self.free_bytes is None else self.free_bytes // self.copies

    def advice(self, goal: Goal) -> Advice | None:
        """The row to take."""
        return advise(self.rows, goal, self.room)

    def projector(self, row: Row) -> Candidate | None:
        """The projector that goes with a GGUF, in its own folder or one above it; None where there is none.

        Of several the one in 16 bits: they are small, and llama-server's own choice, the nearest to the model's bits
        (common/download.cpp, find_best_mmproj), is worth it only where nothing else is left.
        """
        if row.quant or row.candidate.format != "gguf":
            return None
        own = _folders(row.candidate)
        near = [c for c in self.others if c.role == Role.PROJECTOR and _folders(c) == own[: len(_folders(c))]]
        return min(near, key=lambda c: (-len(_folders(c)), c.label not in SIXTEEN_BITS, c.name), default=None)

    def disk_words(self, row: Row) -> str:
        """What the disk lacks for a row; empty where it is enough."""
        if self.room is None or row.disk_bytes <= self.room:
            return ""
        twice = f", {self.copies} times, since Ollama keeps a copy," if self.copies > 1 else ""
        making = f", {format_bytes(row.on_the_way)} for what it is made of," if row.on_the_way else ""
        free = format_bytes(self.free_bytes or 0)
        return f"{row.label} needs {format_bytes(row.n_bytes)}{twice}{making} and {self.folder} has {free} free"


def _folders(candidate: Candidate) -> list[str]:
    return candidate.name.split("/")[:-1]
