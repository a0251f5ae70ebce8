"""Which file of a repository to take: what each one's quality, place and speed are, and the one that is best for a goal."""

from collections.abc import Sequence
from typing import NamedTuple

from fitplug.conversion.stored import bits_per_parameter
from fitplug.formats.header import Header
from fitplug.memory.records import HOST, Kind
from fitplug.planner.records import Goal, Plan
from fitplug.repository.grouping import Candidate
from fitplug.units import format_tokens

QUALITY = ((15.5, "as trained"), (8.2, "no loss to see"), (6.3, "next to no loss"), (5.3, "very small loss"),
           (4.6, "small loss"), (4.1, "some loss"), (3.7, "clear loss"), (3.2, "large loss"),
           (0.0, "very large loss"))  # fmt: skip
"""Bits per weight from which on, and what that costs.

After the perplexities that llama.cpp has measured on Llama-3-8B (tools/quantize/quantize.cpp, QUANT_OPTIONS): +0.0026 for Q8_0,
+0.02 Q6_K, +0.06 Q5_K_M, +0.18 Q4_K_M, +0.27 Q4_K_S, +0.56 Q3_K_L, +0.66 Q3_K_M, +1.6 Q3_K_S, +3.5 Q2_K.
"""
USABLE = 4.1
"""Below this many bits a smaller model is the better choice, where there is one."""
GOOD = 4.6
"""From here on more context is worth more than more bits."""
ENOUGH = 6.5
"""Above this many bits (Q6_K has a little more) more memory buys nothing that shows."""
COMFORTABLE_CTX = 16384
AS_IT_IS = "as it is, for other programs"
"""What is said of safetensors, which llama.cpp does not run."""


class Row(NamedTuple):
    """One model of a repository: a file as it is, or what safetensors would be as GGUF; its plan, or why there is none."""

    reference: str
    """How `auto` and `download` are told to take it."""
    label: str
    candidate: Candidate
    n_bytes: int
    header: Header | None
    plan: Plan | None
    problem: str = ""
    quant: str = ""
    """The file type that it would be converted to."""
    on_the_way: int = 0
    """Bytes of what it would be made from: the checkpoint, and the file that is quantised."""

    @property
    def fits(self) -> bool:
        """Whether there is a plan with which it runs."""
        return self.plan is not None and self.plan.fits

    @property
    def disk_bytes(self) -> int:
        """What a disk must hold for it to get there."""
        return self.n_bytes + self.on_the_way

    @property
    def bits(self) -> float:
        """Per weight, over all tensors; 0 where that is not known."""
        return bits_per_parameter(self.header) if self.header is not None else 0.0

    @property
    def quality(self) -> str:
        """What is lost, in words."""
        bits = self.bits
        return next(words for limit, words in QUALITY if bits >= limit) if bits else ""

    @property
    def place(self) -> str:
        """Where it runs: "gpu", "experts" or "layers" on the host, "host", or "none"."""
        return place(self.plan) if self.plan is not None and self.plan.fits else "none"

    @property
    def n_ctx(self) -> int:
        """The context of its plan."""
        return self.plan.estimate.resolved.n_ctx if self.plan is not None and self.plan.fits else 0

    @property
    def tokens_per_s(self) -> float:
        """Written, in the worst case; 0 where nobody knows."""
        speed = self.plan.speed if self.plan is not None else None
        return speed.generation.low if speed is not None and speed.generation is not None else 0.0


class Advice(NamedTuple):
    """The row to take, and why."""

    row: Row
    reason: str
    storable: bool = True
    """Whether the disk has room for it."""


def place(plan: Plan) -> str:
    """Where the layers of a plan that fits are."""
    devices = plan.estimate.layer_devices
    if not any(plan.estimate.n_bytes(name, Kind.MODEL) for name in plan.machine.device_names()):
        return "host"
    if HOST in devices:
        return "layers"
    settings = plan.estimate.settings
    return "experts" if settings.n_cpu_moe or settings.overrides else "gpu"


def advise(rows: Sequence[Row], goal: Goal, free_bytes: int | None = None) -> Advice | None:
    """The row that suits the goal best; None where none fits.

    Args:
        rows: of one model.
        goal: what comes first.
        free_bytes: of the disk that it would be downloaded to; None: not looked at.
    """
    fitting = [row for row in rows if row.fits]
    storable = [row for row in fitting if free_bytes is None or row.disk_bytes <= free_bytes]
    if not fitting:
        return None
    choice = _by_goal(storable or fitting, goal)
    if not storable:
        return choice._replace(reason=f"{choice.reason}; there is not enough disk space for it", storable=False)
    return choice


def _by_goal(rows: Sequence[Row], goal: Goal) -> Advice:
    if goal == "quality":
        best = max(rows, key=lambda row: (min(row.bits, 17), row.place == "gpu", row.n_ctx, -row.n_bytes))
        return Advice(best, f"the most bits per weight that fit ({_facts(best)})")
    usable = [row for row in rows if row.bits >= USABLE] or list(rows)
    if goal == "context":
        best = max(usable, key=lambda row: (row.n_ctx, _counted(row), -row.n_bytes))
        return Advice(best, f"the longest context ({_facts(best)})")
    if goal == "speed":
        best = max(usable, key=lambda row: (_rank(row), row.tokens_per_s, -row.n_bytes))
        return Advice(best, f"the fastest one with no more than some loss ({_facts(best)})")
    return _balanced(rows, usable)


def _balanced(rows: Sequence[Row], usable: Sequence[Row]) -> Advice:
    whole = [row for row in usable if row.place == "gpu"] or [row for row in rows if row.place == "gpu" and row.bits >= 3.2]
    if whole:
        best = max(whole, key=lambda row: (row.bits >= GOOD, row.n_ctx >= _wanted(row), _counted(row), row.n_ctx, -row.n_bytes))
        words = _why(best, whole)
        return Advice(best, f"{words} ({_facts(best)})")
    # from the host's memory every byte costs time: the smallest that is still good
    best = min(usable, key=lambda row: (-row.tokens_per_s, row.n_bytes))
    return Advice(best, f"not wholly on a GPU, so the fastest one without large loss ({_facts(best)})")


def _why(best: Row, whole: Sequence[Row]) -> str:
    if not any(row.bits > best.bits for row in whole):
        return "the best quality that is wholly on the GPU"
    return "more bits would hardly show" if best.bits >= ENOUGH - 0.5 else "more bits would leave little context"


def _counted(row: Row) -> float:
    return min(row.bits, ENOUGH)


def _wanted(row: Row) -> int:
    """A context that is enough for most: 16k, or the trained one, or what the user asked for."""
    if row.plan is None:
        return 0
    trained = row.plan.model.n_ctx_train or COMFORTABLE_CTX
    return max(min(COMFORTABLE_CTX, trained), row.plan.request.min_ctx or 0) if "n_ctx" not in row.plan.request.given else 0


def _rank(row: Row) -> int:
    return {"gpu": 3, "experts": 2, "layers": 1, "host": 0}.get(row.place, 0)


def _facts(row: Row) -> str:
    return f"{row.bits:.2f} bits per weight with {format_tokens(row.n_ctx)} tokens of context"


def best_of(advice: Sequence[Advice]) -> Advice | None:
    """Of the choices of several repositories: what the disk takes, on the GPU before not, the most parameters, the fastest."""

    def key(one: Advice) -> tuple[bool, int, int, float]:
        plan = one.row.plan
        return (one.storable, _rank(one.row) // 2, plan.model.n_params if plan is not None else 0, one.row.tokens_per_s)

    return max(advice, key=key, default=None)
