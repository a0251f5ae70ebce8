"""Layouts: nothing lost, nothing over, and the flags say what the layout means."""

import re

from hypothesis import given
from hypothesis import strategies as st

from fitplug.memory.overrides import expert_overrides
from fitplug.planner.costs import LayerCost
from fitplug.planner.layout import (
    Item,
    apply_layout,
    device_bytes,
    lay_all_but_last,
    lay_divided,
    lay_partly,
    lay_whole,
    make_items,
)
from fitplug.settings import Settings

MIB = 1 << 20
PARTS = ("down", "gate", "up")


@st.composite
def ledgers(draw, max_layers=24):
    """Layers with three parts each, the output layer last; and the rooms of one to four devices."""
    n = draw(st.integers(1, max_layers))
    bases = st.sampled_from(draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)))  # windowed layers cost less
    sizes = [draw(st.sampled_from([40, 40, 40, 60])) for _ in range(n)]
    layers = [LayerCost(draw(bases) * MIB, dict.fromkeys(PARTS, size * MIB)) for size in sizes]
    layers.append(LayerCost(draw(st.integers(1, 500)) * MIB, {}))
    rooms = draw(st.lists(st.integers(0, 6000).map(lambda n: n * MIB), min_size=1, max_size=4))
    return layers, rooms, draw(st.booleans())


def items_of(layers):
    return make_items(layers, [0] * len(layers))


def laid(items, rooms, experts, order):
    """In each of the orders."""
    if order == "last":
        return lay_all_but_last(items, rooms, [float(room) for room in rooms])
    return lay_partly(items, rooms, experts=experts, order=order)


ORDERS = st.sampled_from(["front", "back", "light", "last"])


@given(ledgers())
def test_what_is_laid_whole_is_all_there_and_within_each_room(ledger):
    layers, rooms, _ = ledger
    items = items_of(layers)
    layout = lay_whole(items, rooms, [float(r) for r in rooms])
    if layout is not None:
        assert sum(layout.counts) == len(items)
        assert all(n <= room for n, room in zip(device_bytes(layout, items), rooms, strict=True))


@given(ledgers())
def test_what_fits_one_after_the_other_is_laid_whole(ledger):
    layers, rooms, _ = ledger
    items, i = items_of(layers), 0
    for room in rooms:
        left = room
        while i < len(items) and items[i].whole <= left:
            left -= items[i].whole
            i += 1
    assert (lay_whole(items, rooms, [0.0] * len(rooms)) is not None) == (i == len(items))


@given(ledgers())
def test_what_is_divided_is_all_there_and_within_each_room(ledger):
    layers, rooms, _ = ledger
    items = items_of(layers)
    layout = lay_divided(items, rooms)
    if layout is not None:
        held = device_bytes(layout, items)
        assert sum(layout.counts) == len(items)
        assert sum(held) == sum(item.whole for item in items)
        assert all(n <= room for n, room in zip(held, rooms, strict=True))


@given(ledgers())
def test_what_can_be_laid_whole_in_order_can_be_divided(ledger):
    layers, rooms, _ = ledger
    items = items_of(layers)
    if lay_whole(items, rooms, [float(r) for r in rooms]) is not None:
        assert lay_divided(items, rooms) is not None


@given(ledgers(), ORDERS)
def test_what_is_laid_partly_is_within_each_room(ledger, order):
    layers, rooms, experts = ledger
    items = items_of(layers)
    layout = laid(items, rooms, experts, order)
    if layout is not None:
        assert layout.start + sum(layout.counts) == len(items)
        assert all(n <= room for n, room in zip(device_bytes(layout, items), rooms, strict=True))


@given(ledgers())
def test_experts_leave_before_any_layer_does(ledger):
    layers, rooms, _ = ledger
    items, i = items_of(layers), len(layers)
    for room in reversed(rooms):
        left = room
        while i > 0 and items[i - 1].base <= left:
            left -= items[i - 1].base
            i -= 1
    layout = lay_partly(items, rooms, experts=True)
    assert (layout is None) == (i == len(layers))
    if layout is not None:
        assert layout.start == i


@given(ledgers())
def test_of_the_last_layer_no_part_more_than_needed_stays_on_the_cpu(ledger):
    layers, rooms, experts = ledger
    items, wanted = items_of(layers), [float(room) for room in rooms]
    layout = laid(items, rooms, experts, "last")
    if layout is None:
        return
    assert layout.start == 0
    ((last, away),) = layout.on_cpu
    assert last == len(layers) - 2
    for name in away if len(away) > 1 else ():
        kept = Item(items[last].without(away - {name}), ())
        assert lay_whole([*items[:last], kept, items[-1]], rooms, wanted) is None


@given(ledgers(), st.integers(1, 500))
def test_more_room_on_the_only_device_never_leaves_more_on_the_cpu(ledger, more):
    layers, rooms, experts = ledger
    items = items_of(layers)
    less = lay_partly(items, rooms[:1], experts=experts)
    if less is not None:
        better = lay_partly(items, [rooms[0] + more * MIB], experts=experts)
        # of choices that differ by less than 8 MiB the one that cuts fewer layers is taken
        assert better.host_bytes(layers) < less.host_bytes(layers) + 8 * MIB


@given(ledgers(), ORDERS)
def test_the_flags_send_to_the_cpu_what_the_layout_says(ledger, order):
    layers, rooms, experts = ledger
    layout = laid(items_of(layers), rooms, experts, order)
    if layout is None:
        return
    settings = apply_layout(Settings(), layout, layers, experts=experts)
    patterns = [o.pattern for o in (*expert_overrides(settings.n_cpu_moe), *settings.overrides)]
    away = dict(layout.on_cpu)
    tail = "_exps.weight" if experts else ".weight"
    for il in range(layout.start, len(layers) - 1):
        for part in PARTS:
            moved = any(re.search(pattern, f"blk.{il}.ffn_{part}{tail}") for pattern in patterns)
            assert moved == (part in away.get(il, ()))
    assert settings.n_gpu_layers == len(layers) - layout.start
    assert "," not in "".join(patterns)  # it would end the pattern on llama.cpp's command line
