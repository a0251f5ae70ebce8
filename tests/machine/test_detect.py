import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import NotFoundError, UnreadableError
from fitplug.extension import Detector
from fitplug.machine.detect import collect, compose, detect, machine_from_file
from fitplug.machine.load import machine_to_json
from fitplug.machine.order import normal_pci_id, take_devices
from fitplug.machine.records import Device, Host


def card(**fields):
    return Device(**({"backend": "cuda", "total_bytes": 8, "free_bytes": 8} | fields))


def finds(name, found, **fields):
    return Detector(name=name, help="", collect=lambda: {"found": name}, parse=lambda raw: found, **fields)


HOST = finds("host", Host(total_bytes=16, available_bytes=8))


def test_devices_and_host_become_one_machine():
    machine = detect([finds("a", [card(name="A")]), HOST])
    assert [device.name for device in machine.devices] == ["A"]
    assert machine.host.total_bytes == 16
    assert machine.notes == ()


def test_a_detector_that_fails_is_a_note():
    def fail():
        raise NotFoundError("the driver is\nnot there")

    def crash(raw):
        raise ZeroDivisionError("oops")

    broken = [Detector(name="x", help="", collect=fail, parse=list), Detector(name="y", help="", collect=dict, parse=crash)]
    machine = detect([*broken, finds("a", [card(name="A")]), HOST])
    assert [device.name for device in machine.devices] == ["A"]
    assert machine.notes == ("x: the driver is not there", "y: failed with ZeroDivisionError: oops")


def test_a_detector_that_hangs_is_a_note():
    released = threading.Event()
    hanging = Detector(name="x", help="", collect=lambda: {"late": released.wait(30)}, parse=lambda raw: [card()])
    machine = detect([hanging, HOST], timeout_s=0.05)
    released.set()
    assert machine.devices == ()
    assert machine.notes == ("x: no answer within 0.05 s",)
    assert machine.host.total_bytes == 16


def test_one_card_seen_by_two_detectors_is_one_device():
    first = finds("b", [card(name="first", pci_id="00000000:01:00.0")], order=10)
    second = finds("a", [card(name="again", pci_id="0000:01:00.0"), card(name="other", pci_id="0000:02:00.0")], order=20)
    assert [device.name for device in detect([second, first, HOST]).devices] == ["first", "other"]


def test_where_no_address_is_known_names_are_matched_one_for_one():
    first = finds("a", [card(name="NVIDIA RTX", pci_id="0000:01:00.0")], order=10)
    second = finds("b", [card(name="NVIDIA(R) RTX"), card(name="NVIDIA RTX")], order=20)
    assert len(detect([first, second, HOST]).devices) == 2


def test_slices_of_one_card_are_devices_of_their_own():
    slices = [card(name="MIG 0", pci_id="0000:01:00.0"), card(name="MIG 1", pci_id="0000:01:00.0")]
    assert len(detect([finds("a", slices), HOST]).devices) == 2


def test_a_fallback_is_asked_only_where_nobody_found_a_device():
    fallback = finds("z", [card(name="Z")], fallback=True)
    assert [device.name for device in detect([fallback, HOST]).devices] == ["Z"]
    assert [device.name for device in detect([fallback, finds("a", [card(name="A")]), HOST]).devices] == ["A"]


def test_what_was_collected_can_be_replayed():
    detectors = [finds("a", [card(name="A")]), HOST]
    raw, notes = collect(detectors)
    assert raw == {"a": {"found": "a"}, "host": {"found": "host"}}
    assert compose(detectors, raw, notes=notes) == detect(detectors)


def test_what_a_detector_says_about_its_findings_is_a_note():
    machine = detect([finds("a", [], notes=lambda raw: ["one is hidden"]), HOST])
    assert machine.notes == ("a: one is hidden",)


def test_a_host_that_nobody_knows_is_assumed():
    machine = detect([])
    assert machine.host.total_bytes > 0
    assert "assumed" in machine.notes[0]


def test_devices_come_in_llama_cpps_order():
    found = [card(backend="vulkan", name="V"), card(backend="cuda", name="C"), card(backend="rpc", name="R")]
    assert [device.name for device in take_devices(found)[0]] == ["R", "C", "V"]


def test_integrated_gpus_count_only_where_there_is_no_dedicated_one():
    integrated = card(kind="igpu", backend="vulkan", name="I")
    far = card(backend="rpc", name="R")
    assert take_devices([integrated, card(name="C")]) == ((card(name="C"),), (integrated,))
    assert take_devices([integrated, far])[0] == (far, integrated)  # servers do not count (src/llama.cpp)


def test_integrated_gpus_of_a_second_backend_are_left_out():
    first, second = card(kind="igpu", backend="rocm"), card(kind="igpu", backend="vulkan")
    assert take_devices([second, first]) == ((first,), (second,))


def test_a_card_of_two_backends_counts_once():
    cuda, vulkan = card(pci_id="0000:01:00.0"), card(backend="vulkan", pci_id="0000:01:00.0")
    assert take_devices([vulkan, cuda]) == ((cuda,), (vulkan,))


def test_accelerators_are_no_devices():
    assert take_devices([card(kind="accel", backend="blas")])[0] == ()


devices = st.builds(
    card,
    kind=st.sampled_from(["gpu", "igpu", "accel"]),
    backend=st.sampled_from(["cuda", "vulkan", "rpc"]),
    pci_id=st.none() | st.sampled_from(["1:1:0", "2:2:0"]),
)


@given(st.lists(devices))
def test_taking_loses_nothing_and_twice_changes_nothing(found):
    taken, unused = take_devices(found)
    assert len(taken) + len(unused) == len(found)
    assert take_devices(taken)[0] == taken
    assert take_devices((*taken, *unused)) == (taken, unused)


def test_addresses_are_compared_in_one_form():
    assert normal_pci_id("00000000:0A:00.0") == normal_pci_id("0000:0a:00.0") == normal_pci_id("0a:00.0") == "0000:0a:00.0"
    assert normal_pci_id("00010000:0A:00.0") == "10000:0a:00.0"


def test_a_recording_is_replayed_where_a_machine_file_is_read():
    detectors = [finds("a", [card(name="A")]), HOST]
    raw, _ = collect(detectors)
    assert machine_from_file(json.dumps({"schema": 1, "raw": raw}), detectors) == detect(detectors)
    stated = machine_to_json(detect(detectors))
    assert machine_from_file(json.dumps(stated), []) == detect(detectors)


@pytest.mark.parametrize("raw", [{}, {"a": 1}, {"a": None}, {"host": []}, {"a": {"x": [1]}}])
def test_a_hostile_recording_is_a_machine_or_one_line(raw):
    impossible = Detector(name="a", help="", collect=dict, parse=lambda raw: [card(free_bytes=1 << 60, name=raw["x"])])
    try:
        machine = machine_from_file(json.dumps({"raw": raw}), [impossible, HOST])
    except UnreadableError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert machine.devices == ()
