"""What was found in one repository."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.extension import Listing
from fitplug.planner.records import Goal
from fitplug.repository.advice import Advice, Row, advise
from fitplug.repository.grouping import Candidate
from fitplug.units import format_bytes


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

    def disk_words(self, row: Row) -> str:
        """What the disk lacks for a row; empty where it is enough."""
        if self.room is None or row.n_bytes <= self.room:
            return ""
        twice = f", {self.copies} times, since Ollama keeps a copy," if self.copies > 1 else ""
        free = format_bytes(self.free_bytes or 0)
        return f"{row.label} needs {format_bytes(row.n_bytes)}{twice} and {self.folder} has {free} free"
