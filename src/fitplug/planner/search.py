"""The searches: everything on the GPUs with the longest context, or the least on the CPU at one context."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

from fitplug.machine.backends import find_devices
from fitplug.machine.records import Machine
from fitplug.model.records import Model
from fitplug.planner.climb import Grid, climb
from fitplug.planner.costs import Costs, layer_caches, share_of_experts, weigh
from fitplug.planner.layout import (
    SINGLE_COPY,
    Item,
    Layout,
    Order,
    apply_layout,
    device_bytes,
    lay_all_but_last,
    lay_divided,
    lay_partly,
    lay_whole,
    make_items,
)
from fitplug.planner.speed_host import host_bandwidth
from fitplug.planner.speed_table import HOP, KINDS
from fitplug.planner.trials import Kind, Surcharge, Trial, Trials
from fitplug.settings import Settings

_MAX_ROUNDS = 16
_WORTH = 0.01
"""Share of the weights on the CPU that must be saved for the longer flags of another order."""
_TOLERANCE = 4 << 20
"""How far the ledger may be off: what it refuses by less than this is tried all the same."""


class Search:
    """All that one set of fixed settings leaves to be chosen: placement and context.

    The ledger of weights and caches proposes, an estimate decides; what the estimate says beyond the ledger is learnt
    as the device's surcharge and corrects the next proposal.
    """

    def __init__(
        self, model: Model, trials: Trials, settings: Settings, given: frozenset[str], like: "Search | None" = None
    ) -> None:
        self.machine, self.trials, self.settings = trials.machine, trials, settings
        lacks = frozenset(trials.runner.cannot_express)
        self.model, self._users, names = model, given, self.machine.device_names()
        self.given = given | lacks
        """What the runner has no place for is left alone like what the user has given."""
        self.whole_experts = "overrides" in lacks and "overrides" not in given
        """Only -ncmoe can be said: all experts of the first layers, and no parts of others."""
        same = like is not None and _weighed_by(like.settings) == _weighed_by(settings)
        self.costs: Costs = like.costs if like is not None and same else self._weigh(names, lacks)
        self.devices = tuple(range(len(names)) if settings.devices is None else find_devices(names, settings.devices))
        """The devices that llama.cpp will see, as numbers in the machine; -ts counts these."""
        self.readings: Sequence[float] = like.readings if like is not None else _readings(self.machine)
        self.ways: Sequence[float] = like.ways if like is not None else _ways(self.machine, self.model)
        """Seconds that a token is on its way to a device of another machine and back."""
        """How fast each of the machine's devices reads weights; all the same where one of them is a stranger."""
        self.host_reading: float | None = like.host_reading if like is not None else _host_reading(self.machine)
        """The same of the host's memory; None where there is nothing to compare it with."""
        self._known_caches: dict[int, list[int]] = {}
        mask = 0 if model.memory in ("none", "recurrent") else 2 * settings.n_ubatch
        self.surcharge: Surcharge = Surcharge(mask, like.surcharge if like is not None else None)
        self.quick = False
        """Be content with a good plan, without a proof that the next step up fails."""

    def _weigh(self, names: Sequence[str], lacks: frozenset[str]) -> Costs:
        movable = not self._users & {"n_cpu_moe", "n_cpu_ffn", "overrides"} and "n_cpu_moe" not in lacks
        costs = weigh(self.model, self.settings, names, movable=movable)
        return weigh(self.model, self.settings, names, movable=False) if self.whole_experts and not costs.experts else costs

    def variant(self, *, quick: bool | None = None, fresh: bool = False, **changes: Any) -> "Search":
        """The same with other fixed settings.

        Args:
            quick: Whether a good plan is enough; None: as here.
            fresh: What was learnt says nothing about these settings; else it is taken along as a first guess.
            changes: Fields of `Settings`.
        """
        other = Search(self.model, self.trials, replace(self.settings, **changes), self._users, self)
        other.quick = self.quick if quick is None else quick
        if fresh:
            other.surcharge.points.clear()
        return other

    def only(self, devices: Sequence[int]) -> "Search":
        """The same on these devices alone, in this order (-dev), where that may be said."""
        if tuple(devices) == self.devices or "devices" in self.given:
            return self
        names = self.machine.device_names()
        return self.variant(devices=tuple(names[d] for d in devices))

    def computing(self, device: int) -> float:
        """How many operations per second a device reaches with long prompts; 0: not known."""
        from fitplug.planner.hardware import hardware_of

        return hardware_of(self.machine.devices[device]).computing

    def seconds(self, layout: Layout) -> float:
        """Time in which the devices of a layout read what one token uses, and hand it on; by the ledger."""
        share, start, found = share_of_experts(self.model) if self.costs.experts else 1.0, layout.start, 0.0
        for d, n in zip(self.devices, layout.counts, strict=True):
            layers = self.costs.layers[start : start + n]
            found += sum(layer.base + share * (layer.whole - layer.base) for layer in layers) / self.readings[d]
            found += HOP + self.ways[d] if n else 0.0
            start += n
        return found

    def shortage(self, n_ctx: int, use: Sequence[int]) -> int:
        """Bytes that everything at this context is too much for the devices `use`, by what was learnt."""
        rooms = self._rooms(n_ctx, use, whole=True)
        return sum(item.whole for item in self._items(n_ctx)) - sum(room for room in rooms if room > 0)

    def beyond_layers(self, n_ctx: int, use: Sequence[int]) -> int:
        """Bytes that the devices `use` hold besides layers: what smaller buffers could save at most."""
        return sum(self.trials.budgets[d] for d in use) - sum(r for r in self._rooms(n_ctx, use, whole=True) if r > 0)

    def longest_on_gpus(self, grid: Grid, use: Sequence[int]) -> Trial | None:
        """The longest context with everything on the devices `use`; None where even the shortest does not fit."""
        return climb(
            grid,
            lambda n_ctx: self.on_gpus(n_ctx, use),
            lambda below: self._guess_longest(grid, use, below),
            quick=self.quick,
        )

    def on_gpus(self, n_ctx: int, use: Sequence[int]) -> Trial | None:
        """Everything on the devices `use` at this context, if it fits in some split of the layers."""
        seen: set[Layout] = set()
        for tolerance in (0, _TOLERANCE):
            while (layout := self.propose_whole(n_ctx, use, tolerance)) is not None and layout not in seen:
                seen.add(layout)
                trial = self._attempt(layout, n_ctx, use)
                if trial is None or trial.fits:
                    return trial
        return None

    def least_on_cpu(self, n_ctx: int, use: Sequence[int]) -> Trial | None:
        """The plan at `n_ctx` that leaves the fewest weights on the CPU; None where not even one layer fits.

        Of equal ones that which leaves them in the last layer alone: long prompts do not wait for them.
        """
        best = self._least_on_cpu(n_ctx, use, "front")
        for order in self._other_orders() if best is not None and not self.quick else ():
            worth = 0 if order == "last" else _WORTH
            if best is not None and self._promised(n_ctx, use, order) <= best[0] * (1 - worth):
                other = self._least_on_cpu(n_ctx, use, order)
                best = other if other is not None and other[0] <= best[0] * (1 - worth) else best
        return best and best[1]

    def _other_orders(self) -> tuple[Order, ...]:
        last: tuple[Order, ...] = () if self.whole_experts else ("last",)
        if not self.costs.experts:
            return last
        largest = {max(layer.parts.values()) for layer in self.costs.layers if layer.parts}
        return (*last, "back", "light") if len(largest) > 1 else (*last, "back")

    def _promised(self, n_ctx: int, use: Sequence[int], order: Order) -> float:
        """Weights on the CPU in this order, by the ledger, after it was tried once."""
        layout = self._propose_partly(n_ctx, use, 0, order)
        if layout is None or self._attempt(layout, n_ctx, use, order) is None:
            return inf
        layout = self._propose_partly(n_ctx, use, 0, order)
        return inf if layout is None else layout.host_bytes(self.costs.layers)

    def _least_on_cpu(self, n_ctx: int, use: Sequence[int], order: Order) -> tuple[int, Trial] | None:
        best: tuple[int, Trial] | None = None
        seen: set[Layout] = set()
        bonus = 0
        while len(seen) < _MAX_ROUNDS:
            layout = self._propose_partly(n_ctx, use, bonus, order)
            if layout is None or layout in seen:
                if bonus or best is None or self.quick:
                    break
                bonus = self._smallest_part()  # the next step up, to be seen failing
                continue
            seen.add(layout)
            trial = self._attempt(layout, n_ctx, use, order)
            host_bytes = layout.host_bytes(self.costs.layers)
            if trial is not None and trial.fits_devices and (best is None or host_bytes < best[0]):
                best, bonus = (host_bytes, trial), 0
            elif bonus:
                break
        return best

    def stretch(self, settings: Settings, grid: Grid, *, host_bytes: int = 0) -> Trial | None:
        """The longest context with all other settings as they are; None where the shortest does not fit.

        Args:
            settings: All but the context.
            grid: The contexts.
            host_bytes: What a context that is longer than the shortest must leave of the host's memory.
        """
        points: list[tuple[int, Trial]] = []

        def attempt(n_ctx: int) -> Trial | None:
            trial = self.trials(replace(settings, n_ctx=n_ctx))
            points.extend([] if trial is None or n_ctx in dict(points) else [(n_ctx, trial)])
            modest = trial is not None and (n_ctx == grid.low or trial.spare.host >= host_bytes)
            return trial if trial is not None and trial.fits and modest else None

        def guess(below: int) -> int:
            return 0 if len(points) < 2 else min(below - 1, grid.number(_crossing(points, host_bytes)))

        shortest = attempt(grid.low)
        if shortest is None:
            return None
        near = grid._replace(high=grid.at(min(grid.last, grid.number(self._reach(shortest, grid)) + 1)))
        best = climb(near, attempt, guess, quick=self.quick)
        is_sure = near.high == grid.high or (best is not None and best.settings.n_ctx < near.high)
        return best if is_sure else climb(grid, attempt, guess, quick=self.quick)

    def _reach(self, trial: Trial, grid: Grid) -> float:
        """By the ledger, a context that is surely too long: every device filled with cache, and a tenth more."""
        growth = sum(self._caches(grid.high)) - sum(self._caches(trial.settings.n_ctx))
        if growth <= 0:
            return grid.high
        room = sum(trial.spare.devices) or trial.spare.host
        return trial.settings.n_ctx + 1.1 * room / growth * (grid.high - trial.settings.n_ctx)

    def most_layers(self, n_ctx: int) -> Trial | None:
        """The highest -ngl with all other settings as they are."""
        settings = replace(self.settings, n_ctx=n_ctx)
        grid = Grid(1, 0, self.n_layers)

        def attempt(n: int) -> Trial | None:
            trial = self.trials(replace(settings, n_gpu_layers=n))
            return trial if trial is not None and trial.fits else None

        return climb(grid, attempt, lambda below: below // 2)

    @property
    def n_layers(self) -> int:
        """Layers that -ngl counts, the output layer among them."""
        return len(self.costs.layers)

    def propose_whole(self, n_ctx: int, use: Sequence[int], tolerance: int = 0) -> Layout | None:
        """By the ledger, everything on the devices `use`."""
        items, rooms = self._items(n_ctx), self._rooms(n_ctx, use, whole=True)
        rooms = [room + tolerance if room >= 0 else room for room in rooms]
        whole = lay_whole(items, rooms, self._wanted(items, rooms))
        return whole if whole is not None or not self._single_copy else lay_divided(items, rooms)

    def _propose_partly(self, n_ctx: int, use: Sequence[int], bonus: int, order: Order) -> Layout | None:
        rooms = [room + bonus if room >= 0 else room for room in self._rooms(n_ctx, use, whole=False, order=order)]
        items = self._items(n_ctx)
        if order == "last":
            return lay_all_but_last(items, rooms, self._wanted(items, rooms))
        layout = lay_partly(items, rooms, experts=self.costs.experts, order=order)
        return layout.as_prefix(self.costs.layers) if layout is not None and self.whole_experts else layout

    def _guess_longest(self, grid: Grid, use: Sequence[int], below: int) -> int:
        low, high = -1, below
        while high - low > 1:
            middle = (low + high) // 2
            if self.propose_whole(grid.at(middle), use) is None:
                high = middle
            else:
                low = middle
        return low

    def _attempt(self, layout: Layout, n_ctx: int, use: Sequence[int], order: Order = "front") -> Trial | None:
        """Estimate a layout and compare the ledger with it, device by device."""
        settings = self._written(layout, n_ctx)
        trial = self.trials(settings)
        if trial is not None:
            ledger = device_bytes(layout, self._items(n_ctx))
            kind = self._kind(len(use), order, whole=layout.is_full)
            for d, n_layers, n_bytes in zip(self.devices, layout.counts, ledger, strict=True):
                if n_layers:
                    taken = self.trials.budgets[d] - trial.spare.devices[d]  # overhead above the reserve included
                    self.surcharge.learn(kind, d, n_ctx, taken - n_bytes)
        return trial

    def _written(self, layout: Layout, n_ctx: int) -> Settings:
        start = replace(self.settings, n_ctx=n_ctx)
        names = self.machine.device_names()
        seen = [names[d] for d in self.devices]
        settings = apply_layout(start, layout, self.costs.layers, seen, experts=self.costs.experts)
        if "n_gpu_layers" in self.given and layout.start == 0:  # -ngl 99 says the same
            return replace(settings, n_gpu_layers=start.n_gpu_layers)
        return settings

    def _items(self, n_ctx: int) -> list[Item]:
        return make_items(self.costs.layers, self._caches(n_ctx))

    def _caches(self, n_ctx: int) -> list[int]:
        if n_ctx not in self._known_caches:
            settings = replace(self.settings, n_ctx=n_ctx)
            self._known_caches[n_ctx] = layer_caches(self.model, settings, self.trials.runner)
        return self._known_caches[n_ctx]

    def _rooms(self, n_ctx: int, use: Sequence[int], *, whole: bool, order: Order = "front") -> list[int]:
        """Bytes for layers on each device that llama.cpp sees; -1 for those that are not to be used."""
        kind = self._kind(len(use), order, whole=whole)
        return [max(0, self.trials.budgets[d] - self.surcharge.at(kind, d, n_ctx)) if d in use else -1 for d in self.devices]

    def _kind(self, n_devices: int, order: Order, *, whole: bool) -> Kind:
        return Kind(several=n_devices > 1, whole=whole, single_copy=self._single_copy, order=order)

    @property
    def _single_copy(self) -> bool:
        """No pipeline of GPUs: then it costs nothing more to divide a layer between two of them."""
        return SINGLE_COPY in self.settings.overrides

    def _wanted(self, items: Sequence[Item], rooms: Sequence[int]) -> list[float]:
        """Bytes that each device should take: the fastest first, equally fast ones in proportion to their room."""
        left = float(sum(item.whole for item in items))
        wanted = [0.0] * len(rooms)
        speeds = [self.readings[d] for d in self.devices]
        for speed in sorted(set(speeds), reverse=True):
            group = [i for i, s in enumerate(speeds) if s == speed and rooms[i] > 0]
            room = sum(rooms[i] for i in group)
            for i in group:
                wanted[i] = rooms[i] * min(1.0, left / room)
            left = max(0.0, left - room)
        return wanted

    def _smallest_part(self) -> int:
        sizes = [n for layer in self.costs.layers for n in layer.parts.values()]
        return min(sizes, default=min((layer.whole for layer in self.costs.layers if layer.whole), default=0))


def _weighed_by(settings: Settings) -> tuple[object, ...]:
    """What the ledger of weights depends on."""
    return settings.moving, settings.loading, settings.drafts_by_mtp


def _readings(machine: Machine) -> Sequence[float]:
    if len(machine.devices) < 2:
        return [1.0] * len(machine.devices)
    from fitplug.planner.hardware import hardware_of

    found = [hardware_of(device).reading for device in machine.devices]
    return found if all(found) else [1.0] * len(found)


def _ways(machine: Machine, model: Model) -> Sequence[float]:
    """0 for a device of this machine; else the middle of what is known or supposed of its network."""
    if not any(device.backend == "rpc" for device in machine.devices):
        return [0.0] * len(machine.devices)
    from fitplug.planner.speed_links import link_of

    links = map(link_of, machine.devices)
    return [0.0 if link is None else sum(link.seconds(8 * model.n_embd)) / 2 for link in links]


def _host_reading(machine: Machine) -> float | None:
    bandwidth, told = host_bandwidth(machine)
    return bandwidth * KINDS["cpu"].bandwidth if told and len(machine.devices) > 1 else None


def _crossing(points: Sequence[tuple[int, Trial]], host_bytes: int) -> float:
    """Where the straight line through the two last trials says that the first device, or the host, is full."""
    (n1, one), (n2, two) = points[-2:]
    room = [*one.spare.devices, one.spare.host - host_bytes]
    then = [*two.spare.devices, two.spare.host - host_bytes]
    lines = [(a, (b - a) / (n2 - n1)) for a, b in zip(room, then, strict=True)]
    return min((n1 - a / slope for a, slope in lines if slope < 0), default=float(max(n1, n2)))
