"""Plan: settings that were chosen, why, and what else would have been worth having."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from fitplug.machine.records import Machine
from fitplug.memory.records import Estimate
from fitplug.model.records import Model
from fitplug.record import record
from fitplug.units import GIB

Goal: TypeAlias = Literal["balanced", "speed", "context", "quality"]


class Range(NamedTuple):
    """A figure that is only known to lie between two others."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """One figure, for comparisons."""
        return (self.low + self.high) / 2


class Speed(NamedTuple):
    """Tokens per second; None where there is no basis."""

    generation: Range | None
    prompt: Range | None
    basis: str = ""


@record
class Request:
    """What the user wants from a plan, besides the settings that are given."""

    goal: Goal = "balanced"
    reserve_bytes: int = GIB
    """Left free on every GPU."""
    min_ctx: int | None = None
    """Shortest context that may be chosen; None: 8192, or the trained length where that is shorter."""
    users: int = 1
    """How many are served at once: as many slots, each with its own context."""
    given: frozenset[str] = frozenset()
    """Names of the `Settings` fields that the user fixed."""


@record
class Alternative:
    """Another plan worth having."""

    title: str
    """What it gains, short: "longer context"."""
    cost: str
    """What it costs, in words."""
    estimate: Estimate
    speed: Speed | None = None


@record
class Plan:
    """The answer of `fitplug auto`."""

    model: Model
    machine: Machine
    runner: str
    request: Request
    estimate: Estimate
    fits: bool
    speed: Speed | None = None
    reasons: Sequence[str] = ()
    alternatives: Sequence[Alternative] = ()
    fixes: Sequence[str] = ()
    """If nothing fits: by how much, and the cheapest things that would help, each checked."""
    n_estimates: int = 0
    """How many sets of settings were estimated to find this."""
