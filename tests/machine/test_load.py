import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import FitplugError, UnreadableError
from fitplug.machine.load import machine_from_json, machine_from_text, machine_to_json
from fitplug.machine.records import Device, Host, Machine

CARD = {"kind": "gpu", "backend": "cuda", "total_bytes": 25757220864, "free_bytes": 25165824000}
HOST = {"total_bytes": 68719476736, "available_bytes": 51539607552}


def test_the_contracts_example_is_read():
    row = CARD | {"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_bandwidth": 1008000000000}
    machine = machine_from_json({"schema": 1, "devices": [row], "host": HOST})
    (device,) = machine.devices
    assert (device.name, device.total_bytes, device.free_bytes) == (row["name"], 25757220864, 25165824000)
    assert (device.compute_capability, device.memory_bandwidth) == ("8.9", 1008000000000)
    assert machine.host.available_bytes == 51539607552
    assert device.basis == "stated"


def test_only_four_keys_of_a_device_are_required():
    machine = machine_from_json({"devices": [CARD], "host": HOST})
    assert machine.devices == (Device(**CARD, basis="stated"),)
    for key in CARD:
        with pytest.raises(UnreadableError, match=f"devices\\[0\\] has no {key}"):
            machine_from_json({"devices": [{k: v for k, v in CARD.items() if k != key}], "host": HOST})


def test_a_machine_without_gpu_is_a_machine():
    assert machine_from_json({"schema": 1, "devices": [], "host": HOST}).devices == ()
    assert machine_from_json({"host": HOST}).devices == ()


def test_a_host_that_is_not_stated_is_assumed_and_said():
    machine = machine_from_json({"devices": [CARD]})
    assert machine.host.available_bytes == machine.host.total_bytes >= CARD["total_bytes"]
    assert any("assumed" in note for note in machine.notes)


def test_unknown_keys_are_kept():
    data = {"devices": [CARD | {"serial": [1, {"a": None}]}], "host": HOST | {"board": "X"}}
    machine = machine_from_json(data)
    assert machine.devices[0].extra == {"serial": [1, {"a": None}]}
    assert machine_to_json(machine)["devices"][0]["serial"] == [1, {"a": None}]
    assert machine_to_json(machine)["host"]["board"] == "X"


def test_an_integrated_gpu_beside_a_dedicated_one_is_kept_apart():
    integrated = CARD | {"kind": "igpu", "backend": "vulkan"}
    machine = machine_from_json({"devices": [integrated, CARD], "host": HOST})
    assert [device.kind for device in machine.devices] == ["gpu"]
    assert [device.kind for device in machine.unused] == ["igpu"]
    assert machine.unused[0].unified


sizes = st.integers(0, 1 << 53)
texts = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=20).filter(str.isprintable)


@st.composite
def devices(draw):
    total = draw(sizes)
    return Device(
        kind=draw(st.sampled_from(["gpu", "igpu", "accel"])),
        backend=draw(st.sampled_from(["cuda", "rocm", "rpc", "vulkan", "metal", "other"])),
        name=draw(texts), total_bytes=total, free_bytes=draw(st.integers(0, total)),
        compute_capability=draw(st.none() | st.just("8.9")), memory_bandwidth=draw(st.none() | st.integers(1, 1 << 50)),
        unified=draw(st.booleans()), pci_id=draw(st.none() | st.sampled_from(["0000:01:00.0", "0000:02:00.0"])),
        basis=draw(st.sampled_from(["measured", "stated", "catalogue"])),
        extra=draw(st.dictionaries(st.just("x_").flatmap(lambda x: texts.map(x.__add__)), st.integers() | st.booleans())),
    )  # fmt: skip


@given(st.lists(devices(), max_size=6), sizes, st.lists(texts, max_size=3))
def test_writing_and_reading_gives_the_same_machine(found, total, notes):
    from fitplug.machine.order import take_devices

    taken, unused = take_devices(found)
    host = Host(total_bytes=total, available_bytes=total // 2, n_threads=4, extra={"model": "x"})
    machine = Machine(devices=taken, unused=unused, host=host, notes=tuple(notes))
    text = json.dumps(machine_to_json(machine))
    assert machine_to_json(machine_from_text(text)) == json.loads(text)
    again = machine_from_text(text)
    assert (again.devices, again.unused, again.host, again.notes) == (taken, unused, host, tuple(notes))


def test_the_order_of_a_file_is_the_order_of_its_machine():
    rows = [CARD | {"name": str(i), "total_bytes": 10, "free_bytes": i} for i in (3, 1, 2)]
    assert [d.name for d in machine_from_json({"devices": rows, "host": HOST}).devices] == ["3", "1", "2"]


HOSTILE = [
    None, [], 1, "x", {"schema": 2}, {"schema": None}, {"devices": {}}, {"devices": [1]}, {"devices": [CARD] * 257},
    {"devices": [CARD | {"total_bytes": -1}]}, {"devices": [CARD | {"total_bytes": True}]},
    {"devices": [CARD | {"total_bytes": "8 GiB"}]}, {"devices": [CARD | {"total_bytes": 1e300}]},
    {"devices": [CARD | {"total_bytes": 10**4000}]}, {"devices": [CARD | {"total_bytes": float("nan")}]},
    {"devices": [CARD | {"free_bytes": 25757220865}]}, {"devices": [CARD | {"kind": "cpu"}]},
    {"devices": [CARD | {"kind": ["gpu"]}]}, {"devices": [CARD | {"backend": ""}]},
    {"devices": [CARD | {"backend": "cuda; rm"}]}, {"devices": [CARD | {"backend": None}]},
    {"devices": [CARD | {"name": "a\nb"}]}, {"devices": [CARD | {"name": "\x1b[31m"}]},
    {"devices": [CARD | {"name": "x" * 10000}]}, {"devices": [CARD | {"name": {}}]},
    {"devices": [CARD | {"unified": "yes"}]}, {"devices": [CARD | {"memory_bandwidth": -5}]},
    {"devices": [], "host": []}, {"devices": [], "host": {}}, {"devices": [], "host": {"total_bytes": 1, "available_bytes": 2}},
    {"devices": [], "notes": "x"}, {"devices": [], "notes": ["a\nb"]},
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_what_cannot_be_is_one_line(data):
    with pytest.raises(UnreadableError) as caught:
        machine_from_json(data)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1" * 5000, '{"devices": [}', b"\xff\xfe", "x" * (5 << 20), "nul"])
def test_text_that_is_no_machine_is_one_line(text):
    with pytest.raises(UnreadableError) as caught:
        machine_from_text(text)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from(
    ["kind", "backend", "total_bytes", "free_bytes", "name", "unified", "memory_bandwidth", "available_bytes", "n_threads"]
)


@given(st.lists(st.dictionaries(known_keys, json_values), max_size=3), st.dictionaries(known_keys, json_values), json_values)
def test_nothing_but_its_own_errors_comes_out(rows, host, notes):
    try:
        machine_from_json({"devices": [CARD | row for row in rows], "host": HOST | host, "notes": notes})
    except FitplugError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
