"""Trying settings: each is estimated once, and what was learnt from it steers the next proposal."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from fitplug.errors import RefusedError
from fitplug.extension import Runner
from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Estimate
from fitplug.memory.records import Kind as PartKind
from fitplug.model.records import Model
from fitplug.planner.budget import Spare, counted_bytes, spare
from fitplug.planner.layout import Order
from fitplug.settings import Settings

PROJECTOR, DRAFT = "projector", "draft's "
"""What the sources of a projector's and a draft's parts hold (memory/clip.py, memory/companions.py)."""
Estimating: TypeAlias = Callable[[Settings], Estimate]


EstimatorFactory: TypeAlias = Callable[[Model, Machine, Runner], Estimating]
"""`fitplug.memory.estimate.Estimators`, or what a test puts in its place: binds what stays the same in a search."""


class Trial(NamedTuple):
    """Settings that were estimated, and what they leave free."""

    settings: Settings
    estimate: Estimate
    spare: Spare
    counted: tuple[int, ...]
    """What llama.cpp counts on each device, the larger of a real run's and of its own measuring."""

    @property
    def on_host(self) -> int:
        """Weights, caches and states in the host's memory that every token waits for."""
        kinds = (PartKind.MODEL, PartKind.CONTEXT)
        return sum(
            part.n_bytes
            for part in self.estimate.parts
            if part.device == HOST and part.kind in kinds and not (PROJECTOR in part.source or DRAFT in part.source)
        )

    @property
    def fits(self) -> bool:
        """Everywhere, the host included."""
        return self.spare.fits

    @property
    def fits_devices(self) -> bool:
        """On the GPUs."""
        return self.spare.fits_devices


class Trials:
    """Estimates settings, remembers them, and counts."""

    def __init__(self, model: Model, machine: Machine, runner: Runner, reserve_bytes: int, factory: EstimatorFactory) -> None:
        self.machine, self.runner, self.reserve_bytes = machine, runner, reserve_bytes
        self.factory = factory
        self._real = factory(model, machine, runner)
        self._measured = self._real
        if len(machine.devices) > 1 and not runner.measuring:
            self._measured = factory(model, machine, replace(runner, measuring=True))
        self.keep_auto = False
        """The user said "auto"."""
        self._done: dict[Settings, Trial | None] = {}
        self._auto_is_on = False
        """llama.cpp's own trial of flash attention was seen to end well; drawing it for each estimate costs a third of it."""
        self.n_estimates = 0
        self.budgets = [max(0, device.free_bytes - reserve_bytes) for device in machine.devices]
        """What llama.cpp may take of each device, overhead left aside."""

    def __call__(self, settings: Settings) -> Trial | None:
        """The trial of these settings; None where llama.cpp refuses them."""
        if self._auto_is_on and settings.flash_attn == "auto" and not self.keep_auto:
            settings = replace(settings, flash_attn="on")
        if settings not in self._done:
            try:
                self._done[settings] = self._try(settings)
            except RefusedError:
                self._done[settings] = None
        return self._done[settings]

    def estimate(self, settings: Settings) -> Estimate:
        """One estimate, without a comparison; raises where llama.cpp refuses the settings."""
        return self._real(settings)

    def _try(self, settings: Settings) -> Trial:
        """With everything on several GPUs a plan must also look right to llama.cpp's own measuring.

        That counts more than a real run takes there (common/fit.cpp measures without allocation, and
        ggml_backend_sched_reserve_size forgets which norm belongs to which GPU); a plan that keeps its reserve by both
        counts stays as it is even where a launcher leaves `--fit` on.
        """
        estimate = self._real(settings)
        self.n_estimates += 1
        self._auto_is_on = self._auto_is_on or (settings.flash_attn == "auto" and estimate.resolved.flash_attn)
        trial = self._trial(settings, estimate)
        n_used = sum(1 for n in trial.counted if n)
        if not trial.fits_devices or n_used < 2 or self._measured is self._real or not _may_be_pipelined(settings):
            return trial
        measured = self._trial(settings, self._measured(settings))
        self.n_estimates += 1
        worst = tuple(map(min, trial.spare.devices, measured.spare.devices))
        return trial._replace(spare=Spare(worst, trial.spare.host), counted=tuple(map(max, trial.counted, measured.counted)))

    def _trial(self, settings: Settings, estimate: Estimate) -> Trial:
        counted = tuple(counted_bytes(estimate, name) for name in self.machine.device_names())
        return Trial(settings, estimate, spare(estimate, self.machine, self.reserve_bytes), counted)


def _may_be_pipelined(settings: Settings) -> bool:
    """llama.cpp keeps copies of what crosses between GPUs; where it does not, measuring and a run agree."""
    return not settings.moves and settings.split_mode == "layer" and settings.offload_kqv


class Kind(NamedTuple):
    """What decides the shape of the graph, and with it what a device takes beyond its layers."""

    several: bool
    """More than one GPU may be used."""
    whole: bool
    """Nothing is on the CPU; on several GPUs llama.cpp then keeps four copies of what crosses between them
    (ggml/src/ggml-backend.cpp, GGML_SCHED_MAX_COPIES)."""
    single_copy: bool = False
    """Unless that was given up (`layout.SINGLE_COPY`)."""
    order: Order = "front"
    """Which layers lose parts to the CPU first."""


class Surcharge:
    """What a device takes beyond its layers (compute buffers, padding, rounding), learnt from trials.

    It is kept apart for plans of different kind; between two contexts of one kind it is nearly linear.
    """

    def __init__(self, slope: float, like: "Surcharge | None" = None) -> None:
        self._slope = slope
        """Bytes for each token of context before anything was learnt: the attention mask of one micro-batch."""
        self.points: dict[Kind, dict[int, list[tuple[int, int]]]] = {}
        for kind, devices in like.points.items() if like is not None else ():
            self.points[kind] = {device: list(points) for device, points in devices.items()}

    def learn(self, kind: Kind, device: int, n_ctx: int, n_bytes: int) -> None:
        """A trial of this kind was off by `n_bytes` on this device."""
        devices = self.points.setdefault(kind, {})
        others = [p for p in devices.get(device, []) if p[0] != n_ctx]
        devices[device] = [*others[-1:], (n_ctx, n_bytes)]

    def at(self, kind: Kind, device: int, n_ctx: int) -> int:
        """The best guess."""
        slope = self._slope * (4 if kind.several and kind.whole and not kind.single_copy else 1)
        near, whole = kind._replace(order="front"), kind._replace(order="front", whole=True)
        alike = (kind, whole) if kind.order == "last" else (kind, near, whole)
        devices = next((self.points[k] for k in alike if k in self.points), {})
        points = devices.get(device) or max((p[-1:] for p in devices.values()), key=lambda p: p[0][1], default=[(0, 0)])
        if len(points) > 1:
            slope = (points[1][1] - points[0][1]) / (points[1][0] - points[0][0])
        n, n_bytes = points[-1]
        return n_bytes + round(slope * (n_ctx - n))
