"""Which layer goes to which device, and which parts of layers stay on the CPU."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, zip_longest
from typing import Any, Literal, NamedTuple, TypeAlias

from fitplug.planner.costs import LayerCost
from fitplug.settings import Settings, TensorOverride

Parts = frozenset[str]
Order: TypeAlias = Literal["front", "back", "light", "last"]
"""Which layers of a device lose parts to the CPU first. For long prompts llama.cpp copies weights from the CPU to a GPU,
and how much room that takes there depends on their sizes and on where in the graph they stand; -ncmoe knows only the
first order. "last": only the last layer does. It is run for the tokens alone whose outputs are wanted, so few that its
weights are not copied."""
NOTHING: Parts = frozenset()
SINGLE_COPY = TensorOverride("^$", "CPU")
"""Finds no tensor, but with any override llama.cpp gives up pipeline parallelism (src/llama-context.cpp, constructor):
one copy of what crosses between GPUs instead of four."""
_BORDER = 3
"""Layers at the border of a device among whose parts the best choice is looked for: eight subsets for each."""
_NEARLY = 8 << 20
"""What is not worth cutting another layer."""


class Item(NamedTuple):
    """A layer to be placed: its weights and its cache at the context in question."""

    base: int
    parts: tuple[tuple[str, int], ...]

    @property
    def whole(self) -> int:
        """All of it."""
        return self.base + self.movable

    @property
    def movable(self) -> int:
        """What may stay on the CPU without the layer."""
        return sum(n for _, n in self.parts)

    @property
    def names(self) -> Parts:
        """The names of its parts."""
        return frozenset(name for name, _ in self.parts)

    def without(self, away: Parts) -> int:
        """What is left where these parts stay on the CPU."""
        return self.whole - sum(n for name, n in self.parts if name in away)


class Layout(NamedTuple):
    """Layers `start` and up are on GPUs, `counts` of them on each device; the last one is the output layer."""

    start: int
    counts: tuple[int, ...]
    on_cpu: tuple[tuple[int, Parts], ...] = ()
    """Layers that are on a GPU without these parts."""
    beside: tuple[tuple[int, Parts, int], ...] = ()
    """Layers whose parts are on another GPU than the layer itself, and its number."""

    @property
    def is_full(self) -> bool:
        """Nothing that could be on a GPU is on the CPU."""
        return self.start == 0 and not self.on_cpu

    def as_prefix(self, layers: Sequence[LayerCost]) -> "Layout":
        """The same with all parts of the first layers on the CPU, as -ncmoe says it: never more on a GPU."""
        last = max((i for i, _ in self.on_cpu), default=-1)
        away = ((i, frozenset(layers[i].parts)) for i in range(self.start, last + 1) if layers[i].parts)
        return self._replace(on_cpu=tuple(away))

    def host_bytes(self, layers: Sequence[LayerCost]) -> int:
        """Weights that stay on the CPU."""
        away = sum(layers[i].parts[name] for i, names in self.on_cpu for name in names)
        return away + sum(layer.whole for layer in layers[: self.start])


def device_bytes(layout: Layout, items: Sequence[Item]) -> list[int]:
    """What the ledger says that each device holds."""
    away = dict(layout.on_cpu) | {i: names for i, names, _ in layout.beside}
    sizes, i = [], layout.start
    for n in layout.counts:
        sizes.append(sum(item.without(away.get(i + k, NOTHING)) for k, item in enumerate(items[i : i + n])))
        i += n
    for i, names, d in layout.beside:
        sizes[d] += items[i].whole - items[i].without(names)
    return sizes


def make_items(layers: Sequence[LayerCost], cache: Sequence[int]) -> list[Item]:
    """Join weights and cache."""
    return [Item(c.base + n, tuple(c.parts.items())) for c, n in zip(layers, cache, strict=True)]


def lay_whole(items: Sequence[Item], rooms: Sequence[int], wanted: Sequence[float]) -> Layout | None:
    """Everything on the GPUs, in order, each device near to its `wanted` bytes; None where it does not fit."""
    sizes = [item.whole for item in items]
    first_fit = _earliest_starts(sizes, rooms)
    if first_fit[0] > 0:
        return None
    counts, begin, n_used, n_wanted = [], 0, 0, 0.0
    for d, room in enumerate(rooms):
        n_wanted += wanted[d]
        end, taken = begin, 0
        while end < len(sizes) and taken + sizes[end] <= room:
            must = end < first_fit[d + 1]
            if not must and n_used + taken + sizes[end] / 2 > n_wanted:
                break
            taken += sizes[end]
            end += 1
        counts.append(end - begin)
        begin, n_used = end, n_used + taken
    return Layout(0, tuple(counts)) if begin == len(sizes) else None


def lay_divided(items: Sequence[Item], rooms: Sequence[int]) -> Layout | None:
    """Everything on the GPUs, each filled to the brim: a layer at the border leaves parts of its weights to the next GPU."""
    used = [d for d, room in enumerate(rooms) if room > 0]
    counts, beside, i, carried = [0] * len(rooms), [], 0, 0
    for d, follower in zip_longest(used, used[1:]):
        left, begin, carried = rooms[d] - carried, i, 0
        while i < len(items) and items[i].whole <= left:
            left -= items[i].whole
            i += 1
        if follower is not None and i < len(items) and items[i].base <= left:
            away = _smallest_cover([(i, *part) for part in items[i].parts], items[i].whole - left).get(i, NOTHING)
            moved = items[i].whole - items[i].without(away)
            if moved and moved <= rooms[follower]:
                beside.append((i, away, follower))
                carried = moved
                i += 1
        counts[d] = i - begin
    return Layout(0, tuple(counts), beside=tuple(beside)) if i == len(items) else None


def lay_all_but_last(items: Sequence[Item], rooms: Sequence[int], wanted: Sequence[float]) -> Layout | None:
    """Everything on the GPUs as `lay_whole` does it, but the least that helps of what the last layer can leave on the CPU."""
    last = max((i for i, item in enumerate(items) if item.parts), default=None)
    if last is None:
        return None
    sizes = dict(items[last].parts)
    choices = [frozenset(names) for n in range(1, len(sizes) + 1) for names in combinations(sizes, n)]
    for away in sorted(choices, key=lambda names: sum(sizes[name] for name in names)):
        lighter = [*items[:last], Item(items[last].without(away), ()), *items[last + 1 :]]
        layout = lay_whole(lighter, rooms, wanted)
        if layout is not None:
            return layout._replace(on_cpu=((last, away),))
    return None


def _earliest_starts(sizes: Sequence[int], rooms: Sequence[int]) -> list[int]:
    """For each device: the first layer from which on all fit on it and on those after it."""
    starts, i = [len(sizes)], len(sizes)
    for room in reversed(rooms):
        left = room
        while i > 0 and sizes[i - 1] <= left:
            left -= sizes[i - 1]
            i -= 1
        starts.append(i)
    return starts[::-1]


def _furthest_ends(sizes: Sequence[int], rooms: Sequence[int], start: int) -> list[int]:
    """For each device: the first layer that the devices before it have no room for, beginning with `start`."""
    ends, i = [], start
    for room in rooms:
        ends.append(i)
        left = room
        while i < len(sizes) and sizes[i] <= left:
            left -= sizes[i]
            i += 1
    return ends


def lay_partly(items: Sequence[Item], rooms: Sequence[int], *, experts: bool, order: Order = "front") -> Layout | None:
    """As much as possible on the GPUs, from the back.

    Models with experts keep every layer on a GPU while its other weights and its cache fit, and send experts to the
    CPU; others send whole layers. At the border of each device a layer may leave parts of its feed-forward weights on
    the CPU.
    """
    start = _earliest_starts([item.base for item in items], rooms)[0] if experts else 0
    filler = _Filler(items, rooms, start, experts=experts)
    if not filler.run():
        return None
    away: dict[int, Parts] = {}
    begin = filler.begin
    for n, room in zip(filler.counts, rooms, strict=True):
        layers = list(range(begin, begin + n))
        if order == "back":
            layers.reverse()
        elif order == "light":
            layers.sort(key=lambda i: max((size for _, size in items[i].parts), default=0))
        away.update(_send_away(items, layers, room))
        begin += n
    return Layout(filler.begin, tuple(filler.counts), tuple(sorted(away.items())))


def _send_away(items: Sequence[Item], layers: Sequence[int], room: int) -> dict[int, Parts]:
    """Which parts of one device's layers go to the CPU, the first layers first, so that the rest just fits."""
    over = sum(items[i].whole for i in layers) - room
    cuttable = [i for i in layers if items[i].parts]
    n_whole = 0
    while over > 0 and n_whole < len(cuttable):
        over -= items[cuttable[n_whole]].movable
        n_whole += 1
    if not n_whole:
        return {}
    away = {i: items[i].names for i in cuttable[: n_whole - 1]}
    border = cuttable[n_whole - 1 : n_whole + _BORDER - 1]
    need = over + items[border[0]].movable
    return away | _smallest_cover([(i, *part) for i in border for part in items[i].parts], need)


def _smallest_cover(parts: Sequence[tuple[int, str, int]], need: int) -> dict[int, Parts]:
    """The lightest choice of (layer, part, bytes) that comes to `need`; of nearly equal ones that of fewest layers."""
    sums = [0]
    """Of each choice, by its number: bit k says whether part k is in it."""
    for _, _, n in parts:
        sums += [n_bytes + n for n_bytes in sums]
    best: tuple[int, int, int] | None = None
    for chosen, n_bytes in enumerate(sums):
        if n_bytes >= need and (best is None or n_bytes // _NEARLY <= best[0]):
            n_layers = len({i for k, (i, _, _) in enumerate(parts) if chosen >> k & 1})
            rank = (n_bytes // _NEARLY, n_layers, chosen)
            best = rank if best is None or rank < best else best
    away: dict[int, Parts] = {}
    for k, (i, name, _) in enumerate(parts):
        if best is not None and best[2] >> k & 1:
            away[i] = away.get(i, NOTHING) | {name}
    return away


class _Filler:
    """Counts the layers of each device: places them from the last one down, on devices from the last one down."""

    def __init__(self, items: Sequence[Item], rooms: Sequence[int], start: int, *, experts: bool) -> None:
        self.items, self.begin, self._start, self._experts = items, len(items), start, experts
        self.counts = [0] * len(rooms)
        self._left = list(rooms)
        self._before = _furthest_ends([item.base for item in items], rooms, start)

    def run(self) -> bool:
        """False where nothing could be placed, or not all that had to be."""
        i, d = len(self.items) - 1, len(self._left) - 1
        while i >= self._start and d >= 0:
            away = self._least_away(i, d)
            if away is None or (d > 0 and away and self._better_before(i, d, away)):
                d -= 1
                continue
            self._left[d] -= self.items[i].without(away)
            self.counts[d] += 1
            i -= 1
            if away and self._is_full(i, d):
                d -= 1
        self.begin = i + 1
        return self.begin < len(self.items) and (not self._experts or self.begin == self._start)

    def _is_full(self, i: int, d: int) -> bool:
        """After a layer that was cut: the device is done, unless what remains has no other place."""
        return not self._experts or i < self._before[d]

    def _better_before(self, i: int, d: int, away: Parts) -> bool:
        """A layer that would lose all its experts here goes to an earlier device if there is room for it."""
        return len(away) == len(self.items[i].parts) and self._experts and i < self._before[d]

    def _least_away(self, i: int, d: int) -> Parts | None:
        """The lightest set of parts that must stay on the CPU so that layer i fits on device d; None if none helps."""
        item, room = self.items[i], self._left[d]
        if self._experts:  # layers before this one for which the earlier devices have no room need a place as well
            room -= sum(each.base for each in self.items[self._before[d] : i])
        if item.whole <= room:
            return NOTHING
        if item.base > room:
            return None
        cover = _smallest_cover([(i, *part) for part in item.parts], item.whole - room)
        return cover[i]


def apply_layout(
    settings: Settings, layout: Layout, layers: Sequence[LayerCost], names: Sequence[str] = (), *, experts: bool
) -> Settings:
    """Write a layout as llama.cpp's flags: -ngl, -ts or -sm none, -ncmoe and -ot; `names` are the GPUs'."""
    prefix = _cpu_prefix(layout, layers) if experts else 0
    rest = [(i, away, "CPU") for i, away in layout.on_cpu if i >= prefix]
    written = _overrides([*rest, *((i, away, names[d]) for i, away, d in layout.beside)], experts=experts)
    kept = [each for each in settings.overrides if each != SINGLE_COPY or not written]  # any override will do
    return replace(
        settings,
        n_gpu_layers=len(layers) - layout.start,
        n_cpu_moe=prefix or settings.n_cpu_moe,
        overrides=(*kept, *written),
        **_split(layout.counts),
    )


def _split(counts: Sequence[int]) -> dict[str, Any]:
    """One device of several alone is `-sm none`: without it llama.cpp would keep four copies for a pipeline of one."""
    used = [d for d, n in enumerate(counts) if n]
    if len(counts) == 1:
        return {}
    if len(used) == 1:
        return {"split_mode": "none", "main_gpu": used[0], "tensor_split": ()}
    return {"split_mode": "layer", "tensor_split": tuple(float(n) for n in counts)}


def _cpu_prefix(layout: Layout, layers: Sequence[LayerCost]) -> int:
    """How many layers from the front have none of their experts on a GPU: what -ncmoe takes."""
    away = dict(layout.on_cpu)
    n = 0
    for i, layer in enumerate(layers[:-1]):
        if i >= layout.start and layer.parts and away.get(i, NOTHING) != layer.parts.keys():
            break
        if layer.parts and i >= layout.start:
            n = i + 1
    return n


def _overrides(rest: Sequence[tuple[int, Parts, str]], *, experts: bool) -> list[TensorOverride]:
    """One pattern for all layers that leave the same parts to the same place."""
    groups: dict[tuple[Parts, str], list[int]] = {}
    for i, names, place in rest:
        groups.setdefault((names, place), []).append(i)
    tail = "_(ch|)exps" if experts else r"\."
    return [
        TensorOverride(rf"blk\.({'|'.join(map(str, which))})\.ffn_({'|'.join(sorted(names))}){tail}", place)
        for (names, place), which in groups.items()
    ]
