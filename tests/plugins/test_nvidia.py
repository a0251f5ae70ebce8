"""NVIDIA's detector against a real shared library with NVML's interface, which is built here over virtual cards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fitplug.errors import NotFoundError
from fitplug_nvidia import library as nvml_library
from fitplug_nvidia import notes, parse
from fitplug_nvidia.parsing import host_memory
from fitplug_nvidia.visible import cuda_order, visible_cards

SOURCE = Path(__file__).parent / "nvml/nvml.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_library = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="the virtual NVML is built with a C compiler, for Linux"
)
GIB = 1 << 30

RTX_3060 = """card
name=NVIDIA GeForce RTX 3060
uuid=GPU-11111111-aaaa-4444-8888-000000000001
pci=00000000:01:00.0
pci_device=0x250310DE
total=12884901888
free=12000000000
reserved=200000000
bus_width=192
memory_clock=7501
core_clock=2100
cores=3584
compute_capability=8.6
pcie_generation=4
pcie_width=16
virtualization=0
mig_error=3
"""
RTX_4090 = """card
name=NVIDIA GeForce RTX 4090
uuid=GPU-22222222-bbbb-4444-8888-000000000002
pci=00000000:02:00.0
total=25757220864
free=25165824000
reserved=400000000
bus_width=384
memory_clock=10501
core_clock=3105
cores=16384
compute_capability=8.9
"""
A100 = """card
name=NVIDIA A100-SXM4-40GB
uuid=GPU-33333333-cccc-4444-8888-000000000003
pci=00000000:41:00.0
total=42949672960
free=42000000000
reserved=600000000
bus_width=5120
memory_clock=1215
core_clock=1410
cores=6912
compute_capability=8.0
mig=1
slice
name=NVIDIA A100-SXM4-40GB MIG 3g.20gb
uuid=MIG-aaaaaaaa-1111-5555-9999-000000000001
total=20937965568
free=20900000000
reserved=0
slice
name=NVIDIA A100-SXM4-40GB MIG 3g.20gb
uuid=MIG-bbbbbbbb-2222-5555-9999-000000000002
total=20937965568
free=10000000000
reserved=0
"""
GB10 = """card
name=NVIDIA GB10
uuid=GPU-44444444-dddd-4444-8888-000000000004
pci=0000000F:01:00.0
pci_device=0x2E1210DE
compute_capability=12.1
addressing=2
"""
LOST = "card\nname=NVIDIA GeForce RTX 3090\npci=00000000:05:00.0\nmemory_error=15\n"
HYBRID = RTX_3060 + RTX_4090


def build(folder: Path, *options: str) -> Path:
    folder.mkdir(exist_ok=True)
    library = folder / "libnvidia-ml.so.1"
    name = "-Wl,-soname,libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", name, *options, "-o", library, SOURCE], check=True, timeout=120)
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


@pytest.fixture
def ask(library, tmp_path):
    """What the detector collects and makes of it, in a process of its own that sees the virtual cards."""

    def ask(cards: str, *, use=library, code=None, **env):
        (tmp_path / "cards").write_text(cards, encoding="utf-8")
        code = code or "import json, fitplug_nvidia; print(json.dumps(fitplug_nvidia.collect()))"
        quiet = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
        env = quiet | {"VIRTUAL_NVML": str(tmp_path / "cards"), "LD_LIBRARY_PATH": str(use.parent)} | env
        done = subprocess.run([sys.executable, "-c", code], env=env, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


def names(raw):
    return [device.name for device in parse(raw)]


@needs_library
def test_everything_that_the_driver_tells_is_read(ask):
    raw = ask("driver=580.95.05\n" + RTX_3060)
    assert raw["driver"] == "580.95.05"
    (device,) = parse(raw)
    assert (device.kind, device.backend, device.name) == ("gpu", "cuda", "NVIDIA GeForce RTX 3060")
    assert (device.total_bytes, device.free_bytes) == (12 * GIB, 12_000_000_000)
    assert (device.compute_capability, device.pci_id, device.unified) == ("8.6", "0000:01:00.0", False)
    assert device.memory_bandwidth == 192 * 7501 * 10**6 * 2 // 8  # 360 GB/s, as NVIDIA states it
    assert device.extra["reserved_bytes"] == 200_000_000
    assert (device.extra["pcie_generation"], device.extra["pcie_width"]) == (4, 16)


@needs_library
def test_a_driver_with_the_first_memory_call_only_is_enough(ask, old_library):
    (device,) = parse(ask(RTX_3060, use=old_library))
    assert (device.total_bytes, device.free_bytes) == (12 * GIB, 12_000_000_000)
    assert "reserved_bytes" not in device.extra


@needs_library
def test_unlike_cards_come_fastest_first_unless_asked_otherwise(ask):
    assert names(ask(HYBRID)) == ["NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3060"]
    assert names(ask(HYBRID, CUDA_DEVICE_ORDER="PCI_BUS_ID")) == ["NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 4090"]


@needs_library
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0", ["4090"]), ("1", ["3060"]), ("1,0", ["3060", "4090"]), (" 1 , 0 ", ["3060", "4090"]), ("", []), ("-1", []),
        ("0,-1,1", ["4090"]), ("0,7,1", ["4090"]), ("7", []), ("0,0", []), ("GPU-11111111", ["3060"]),
        ("GPU-22222222-bbbb-4444-8888-000000000002,GPU-1", ["4090", "3060"]), ("GPU-", []), ("GPU-9", []), ("x", []),
    ],
)  # fmt: skip
def test_only_visible_cards_are_devices(ask, visible, expected):
    assert [name.split()[-1] for name in names(ask(HYBRID, CUDA_VISIBLE_DEVICES=visible))] == expected


@needs_library
def test_hidden_cards_are_said(ask):
    assert any("hides every card" in line for line in notes(ask(HYBRID, CUDA_VISIBLE_DEVICES="-1")))
    assert any("'7'" in line for line in notes(ask(HYBRID, CUDA_VISIBLE_DEVICES="0,7")))
    assert any("twice" in line for line in notes(ask(HYBRID, CUDA_VISIBLE_DEVICES="0,0")))


@needs_library
def test_a_process_sees_one_slice_of_a_cut_card(ask):
    raw = ask(A100)
    (device,) = parse(raw)
    assert device.name.endswith("MIG 3g.20gb")
    assert device.total_bytes == 20937965568
    assert device.compute_capability == "8.0"
    whole = 5120 * 1215 * 10**6 * 2 // 8
    assert device.memory_bandwidth == whole * 20937965568 // 42949672960
    assert device.extra["slice_of"] == "NVIDIA A100-SXM4-40GB"
    assert any("2 MIG slices" in line for line in notes(raw))


@needs_library
@pytest.mark.parametrize("visible", ["MIG-bbbbbbbb-2222-5555-9999-000000000002", "MIG-b"])
def test_the_slice_can_be_chosen(ask, visible):
    (device,) = parse(ask(A100, CUDA_VISIBLE_DEVICES=visible))
    assert device.free_bytes == 10_000_000_000


@needs_library
def test_whole_cards_are_taken_before_slices(ask):
    assert names(ask(A100 + RTX_3060)) == ["NVIDIA GeForce RTX 3060"]


@needs_library
def test_a_chip_without_own_memory_uses_the_hosts(ask):
    raw = ask(GB10)
    meminfo = "MemTotal:       127600748 kB\nMemAvailable:   120000000 kB\nHugePages_Total:       0\n"
    (device,) = parse(raw | {"files": {"/proc/meminfo": meminfo}})
    assert (device.kind, device.unified) == ("igpu", True)
    assert (device.total_bytes, device.free_bytes) == (127600748 * 1024, 120000000 * 1024)
    assert "MemTotal" in raw["files"]["/proc/meminfo"]  # this machine's own was read


@needs_library
@pytest.mark.parametrize("code", [3, 15, 999])
def test_a_lost_card_is_never_all_of_the_memory(ask, code):
    raw = ask(RTX_3060 + LOST.replace("15", str(code)))
    assert names(raw) == ["NVIDIA GeForce RTX 3060"]
    assert any("RTX 3090 does not say how much memory" in line for line in notes(raw))


@needs_library
def test_a_card_without_handle_is_left_out(ask):
    raw = ask(RTX_3060 + "card\nhandle_error=15\n")
    assert names(raw) == ["NVIDIA GeForce RTX 3060"]
    assert any("card 1" in line for line in notes(raw))


@needs_library
def test_a_virtual_gpu_is_said(ask):
    raw = ask(RTX_3060.replace("virtualization=0", "virtualization=2"))
    assert parse(raw)[0].extra["virtual"] is True
    assert any("virtual GPU" in line for line in notes(raw))


@needs_library
def test_processes_on_the_card_are_listed(ask):
    raw = ask("process_42=/usr/bin/ollama\n" + RTX_3060 + "compute=42:3000000000\ngraphics=42:1,7\n")
    assert parse(raw)[0].extra["processes"] == [
        {"pid": 42, "kind": "compute", "name": "/usr/bin/ollama", "used": 3_000_000_000},
        {"pid": 7, "kind": "graphics", "name": None, "used": None},
    ]


COLLECT_ERROR = """
import json, fitplug_nvidia
try:
    print(json.dumps(fitplug_nvidia.collect()))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@needs_library
def test_a_library_without_driver_is_no_gpu(ask):
    assert ask("init_error=9\n", code=COLLECT_ERROR) is None


@needs_library
@pytest.mark.parametrize(("code", "said"), [(18, "restart the machine"), (4, "Insufficient Permissions"), (999, "Unknown")])
def test_a_driver_that_refuses_is_one_line(ask, code, said):
    kind, line = ask(f"init_error={code}\n", code=COLLECT_ERROR)
    assert kind == "NotFoundError"
    assert said in line


@needs_library
def test_a_driver_that_hangs_is_a_note(ask):
    code = """
import json
from fitplug.machine.detect import detect
from fitplug_nvidia import fitplug_detectors
machine = detect(fitplug_detectors(), timeout_s=0.5)
print(json.dumps([list(machine.notes), len(machine.devices)]), flush=True)
"""
    (first, *_), n_devices = ask("hang_seconds=20\n" + RTX_3060, code=code)
    assert first == "nvidia: no answer within 0.5 s"
    assert n_devices == 0


@needs_library
def test_no_driver_means_no_gpu_and_no_import(ask, tmp_path):
    code = """
import json, sys
import fitplug_nvidia
from fitplug_nvidia import library
library._FOLDERS = ()
print(json.dumps([fitplug_nvidia.collect(), "pynvml" in sys.modules, "ctypes" in sys.modules]))
"""
    assert ask("", code=code, LD_LIBRARY_PATH=str(tmp_path)) == [None, False, False]


@needs_library
def test_a_file_that_is_no_library_is_no_driver(ask, tmp_path):
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    code = "import fitplug_nvidia.library as l; l._FOLDERS = (); print('null' if l.collect() is None else 1)"
    assert ask("", code=code, LD_LIBRARY_PATH=str(tmp_path)) is None


CARDS = (
    {"index": 0, "name": "slow", "uuid": "GPU-a1", "n_cores": 10, "core_clock_mhz": 1000},
    {"index": 1, "name": "fast", "uuid": "GPU-a2", "n_cores": 20, "core_clock_mhz": 1000},
    {"index": 2, "name": "fast", "uuid": "GPU-b3", "n_cores": 20, "core_clock_mhz": 1000},
)


def test_equal_cards_keep_their_places():
    assert [card["index"] for card in cuda_order(CARDS, None)] == [1, 2, 0]
    assert [card["index"] for card in cuda_order(CARDS, "PCI_BUS_ID")] == [0, 1, 2]


def test_a_cut_uuid_must_be_one_cards():
    assert [card["index"] for card in visible_cards(CARDS, {"CUDA_VISIBLE_DEVICES": "GPU-b"}).cards] == [2]
    assert visible_cards(CARDS, {"CUDA_VISIBLE_DEVICES": "GPU-a"}).cards == ()


def test_huge_pages_are_what_is_free_where_they_are_set_aside():
    meminfo = "MemTotal: 100 kB\nMemAvailable: 90 kB\nHugePages_Total: 8\nHugePages_Free: 5\nHugepagesize: 2 kB\n"
    assert host_memory(meminfo) == {"total": 100 * 1024, "free": 10 * 1024}
    assert host_memory("") is None


def test_a_jetson_without_nvml_is_known_by_its_device_tree():
    files = {
        "/proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005nvidia,tegra234",
        "/proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit",
        "/proc/meminfo": "MemTotal: 64349964 kB\nMemAvailable: 60000000 kB\n",
    }
    (device,) = parse({"cards": [], "files": files})
    assert (device.kind, device.compute_capability, device.unified) == ("igpu", "8.7", True)
    assert device.total_bytes == 64349964 * 1024


def slices(**more):
    part = {"name": "MIG 3g.20gb", "uuid": "MIG-b", "gpu_instance": 2, "compute_instance": 0, **more}
    return {"index": 0, "name": "A100", "uuid": "GPU-a1", "mig": [part | {"uuid": "MIG-a", "gpu_instance": 1}, part]}


@pytest.mark.parametrize(
    ("asked", "seen"), [("MIG-GPU-a1/2/0", ["MIG-b"]), ("MIG-GPU-a1/1/0", ["MIG-a"]), ("MIG-GPU-a1/3/0", []), ("MIG-GPU-", [])]
)
def test_slices_have_an_older_name_too(asked, seen):
    """MIG-GPU-UUID/GPU instance/compute instance, of drivers before 470."""
    shown = visible_cards([slices()], {"CUDA_VISIBLE_DEVICES": asked})
    assert [card["uuid"] for card in shown.cards] == seen


def test_a_card_in_mig_mode_without_slices_is_no_device_and_counts_for_no_index():
    cards = [{**slices(), "mig": []}, {"index": 1, "name": "whole", "uuid": "GPU-a2"}]
    shown = visible_cards(cards, {"CUDA_VISIBLE_DEVICES": "0"})
    assert [card["name"] for card in shown.cards] == ["whole"]
    assert any("MIG mode without a slice" in note for note in shown.notes)


def test_a_card_with_another_driver_is_said(monkeypatch):
    event = "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:2503\nPCI_SLOT_NAME=0000:01:00.0"
    files = {"/sys/class/drm/card*/device/uevent": {"/sys/class/drm/card0/device/uevent": event}}
    monkeypatch.setattr(nvml_library, "read_tree", lambda patterns: files.get(patterns[0], {}))
    monkeypatch.setattr(nvml_library, "_candidates", lambda: ())
    with pytest.raises(NotFoundError, match="not NVIDIA's driver"):
        nvml_library.collect()
