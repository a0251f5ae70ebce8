"""Recorded machines of every vendor: what was collected there becomes the machine that llama.cpp would see."""

import contextlib
import json
import runpy
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fitplug_amd
import fitplug_apple
import fitplug_host
import fitplug_intel
import fitplug_nvidia
import fitplug_vulkan
import fitplug_windows
from fitplug.errors import FitplugError
from fitplug.machine.detect import compose, machine_from_file
from fitplug.machine.load import machine_from_json, machine_to_json

FOLDER = Path(__file__).parents[2] / "fixtures/machines"
PLUGINS = (fitplug_nvidia, fitplug_amd, fitplug_intel, fitplug_apple, fitplug_windows, fitplug_vulkan, fitplug_host)
DETECTORS = tuple(detector for plugin in PLUGINS for detector in plugin.fitplug_detectors())
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
GIB, MIB = 1 << 30, 1 << 20


def raw(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["raw"]


def machine(name):
    return compose(DETECTORS, raw(name))


def shown(name):
    return [(device.kind, device.backend, device.name) for device in machine(name).devices]


# what is planned with: kind, backend, name, total, free, compute capability, whether it shares the host's memory
EXPECTED = {
    "desktop-rtx-4090": [("gpu", "cuda", "NVIDIA GeForce RTX 4090", 24564 * MIB, 23000 * MIB, "8.9", False)],
    "laptop-rtx-4070-and-780m": [("gpu", "cuda", "NVIDIA GeForce RTX 4070 Laptop GPU", 8188 * MIB, 7790 * MIB, "8.9", False)],
    "dgx-spark": [("igpu", "cuda", "NVIDIA GB10", 127_600_748 * 1024, 118_000_000 * 1024, "12.1", True)],
    "jetson-orin-nano-8gb": [
        ("igpu", "cuda", "NVIDIA Orin Nano Developer Kit", 7_620_000 * 1024, 6_100_000 * 1024, "8.7", True)
    ],
    "wsl-rtx-3060": [("gpu", "cuda", "NVIDIA GeForce RTX 3060", 12288 * MIB, 10950 * MIB, "8.6", False)],
    "desktop-rx-7900-xtx": [("gpu", "rocm", "AMD Radeon RX 7900 XTX", 25753026560, 25753026560 - 1200 * MIB, "gfx1100", False)],
    "strix-halo-128gb": [
        ("igpu", "rocm", "AMD Radeon 8060S Graphics", 118_111_600_640, 118_111_600_640 - GIB, "gfx1151", True)
    ],
    "strix-halo-96gb-carve-out": [("igpu", "rocm", "Radeon 8060S Graphics", 96 * GIB, 95 * GIB, "gfx1151", False)],
    "laptop-5900hs-without-rocm": [
        ("igpu", "vulkan", "AMD Radeon Graphics", (512 + 7695) * MIB, (212 + 7655) * MIB, None, True)
    ],
    "desktop-arc-a770": [("gpu", "vulkan", "Intel(R) Arc(TM) A770 Graphics", 16288 * MIB, 16288 * MIB, None, False)],
    "desktop-arc-b580-and-igpu": [
        ("gpu", "sycl", "Intel(R) Arc(TM) B580 Graphics", 12 * GIB, 12 * GIB * 944 // 1000, None, False)
    ],
    "laptop-lunar-lake-32gb": [
        ("igpu", "vulkan", "Intel(R) Arc(TM) 140V GPU", 32_300_000 * 768, 26_000_000 * 1024 * 9 // 10, None, True)
    ],
    "macbook-m3-max-64gb": [("gpu", "metal", "Apple M3 Max", 48 * GIB, 48 * GIB, None, True)],
    "macbook-m1-8gb-without-metal": [("gpu", "metal", "Apple M1", 8 * GIB * 2 // 3, 8 * GIB * 2 // 3, None, True)],
    "windows-rtx-3060": [("gpu", "cuda", "NVIDIA GeForce RTX 3060", 12288 * MIB, 11200 * MIB, "8.6", False)],
    "windows-radeon-890m": [("igpu", "vulkan", "AMD Radeon(TM) 890M Graphics", 18 * GIB, 3800 * MIB + 13 * GIB, None, True)],
    "windows-rx-6600": [("gpu", "vulkan", "AMD Radeon RX 6600", 8573157376, 7_400_000_000, None, False)],
    "snapdragon-x-elite": [("igpu", "vulkan", "Adreno X1-85", 24 * GIB, 20 * GIB, None, True)],
    "raspberry-pi-5-8gb": [],
    "desktop-rtx-5090": [("gpu", "cuda", "NVIDIA GeForce RTX 5090", 32607 * MIB, 30100 * MIB, "12.0", False)],
    "jetson-orin-nx-16gb": [("igpu", "cuda", "Orin (nvgpu)", 16_078_000 * 1024, 13_500_000 * 1024, "8.7", True)],
    "jetson-agx-thor-128gb": [("igpu", "cuda", "NVIDIA Thor", 128_700_000 * 1024, 18000 * 2048 * 1024, "11.0", True)],
    "server-gh200": [("gpu", "cuda", "NVIDIA GH200 480GB", 97871 * MIB, 96900 * MIB, "9.0", False)],
    "server-gb200-2-gpus": [("gpu", "cuda", "NVIDIA GB200", 189471 * MIB, 188300 * MIB, "10.0", False)] * 2,
    "vgpu-l40s-12q": [("gpu", "cuda", "NVIDIA L40S-12Q", 12288 * MIB, 11350 * MIB, "8.9", False)],
    "container-h100-mig-by-uuid": [("gpu", "cuda", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9984 * MIB, 9970 * MIB, "9.0", False)],
    "server-h100-mig-without-slices": [("gpu", "cuda", "NVIDIA H100 PCIe", 81559 * MIB, 81000 * MIB, "9.0", False)],
    "wsl-3090-and-3060": [
        ("gpu", "cuda", "NVIDIA GeForce RTX 3090", 24576 * MIB, 23300 * MIB, "8.6", False),
        ("gpu", "cuda", "NVIDIA GeForce RTX 3060", 12288 * MIB, 11000 * MIB, "8.6", False),
    ],
    "windows-laptop-4060-and-iris": [
        ("gpu", "cuda", "NVIDIA GeForce RTX 4060 Laptop GPU", 8188 * MIB, 7800 * MIB, "8.9", False)
    ],
    "laptop-iris-xe-16gb": [
        ("igpu", "vulkan", "Intel(R) Iris(R) Xe Graphics", 16_100_000 * 768, 9_000_000 * 1024 * 9 // 10, None, True)
    ],
    "server-4x-mi300a": [("igpu", "rocm", "AMD Instinct MI300A", 128 * GIB, 125 * GIB, "gfx942", True)] * 4,
    "laptop-rx-7600m-xt-and-780m": [
        ("gpu", "rocm", "AMD Radeon RX 7600M XT", 8573157376, 8573157376 - 2200 * MIB, "gfx1102", False)
    ],
    "mac-studio-m2-ultra-192gb": [("gpu", "metal", "Apple M2 Ultra", 180 * GIB, 180 * GIB, None, True)],
    "asahi-macbook-air-m2-16gb": [("igpu", "vulkan", "Apple M2 (G14G B0)", 15_900_000 * 512, 7 * GIB, None, True)],
    "orange-pi-5-16gb": [("igpu", "vulkan", "Mali-G610 MC4", 16_200_000 * 768, 16_200_000 * 768, None, True)],
    "container-cgroup-v1": [],
    "server-2x-epyc-9654": [],
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_machine_is_what_llama_cpp_would_see(name):
    found = [
        (d.kind, d.backend, d.name, d.total_bytes, d.free_bytes, d.compute_capability, d.unified) for d in machine(name).devices
    ]
    assert found == EXPECTED[name]


def test_a_slice_that_was_chosen_needs_no_advice():
    assert not any("one process sees one" in note for note in machine("container-h100-mig-by-uuid").notes)


def test_what_collecting_said_is_kept_in_a_recording():
    recorded = {"raw": raw("raspberry-pi-5-8gb"), "notes": ["nvidia: no answer within 2 s"]}
    assert "nvidia: no answer within 2 s" in machine_from_file(json.dumps(recorded), DETECTORS).notes


def test_several_cards_are_several_devices():
    assert shown("desktop-3060-and-3090") == [
        ("gpu", "cuda", "NVIDIA GeForce RTX 3090"),
        ("gpu", "cuda", "NVIDIA GeForce RTX 3060"),
    ]
    assert len(machine("server-8x-h100").devices) == 8
    assert [device.pci_id for device in machine("server-2x-mi300x").devices] == ["0000:25:00.0", "0000:35:00.0"]
    assert shown("server-a100-mig") == [("gpu", "cuda", "NVIDIA A100-SXM4-40GB MIG 3g.20gb")]


def test_integrated_gpus_beside_cards_are_left_out():
    assert [device.name for device in machine("laptop-rtx-4070-and-780m").unused] == ["AMD Radeon 780M"]
    assert [device.kind for device in machine("desktop-rx-7900-xtx").unused] == ["igpu"]
    assert [device.kind for device in machine("desktop-arc-b580-and-igpu").unused] == ["igpu"]


def test_a_card_that_nvml_and_dxgi_report_is_one():
    assert len(machine("windows-rtx-3060").devices) == 1
    assert machine("windows-rtx-3060").unused == ()


def test_a_container_leaves_its_limit():
    host = machine("container-t4-8gib").host
    assert (host.total_bytes, host.available_bytes, host.n_threads) == (8 * GIB, 7 * GIB, 2)


def test_an_older_container_leaves_its_limit_too():
    host = machine("container-cgroup-v1").host
    assert (host.total_bytes, host.available_bytes, host.n_threads) == (6 * GIB, 4 * GIB, 2)


def test_memory_of_cards_that_are_nodes_is_not_the_hosts_as_well():
    """Linux counts a GH200's HBM in MemTotal, on a node without processors."""
    assert machine("server-gh200").host.total_bytes == 502_000_000 * 1024
    assert machine("server-gb200-2-gpus").host.total_bytes == 490_000_000 * 1024
    assert "numa_nodes" not in machine("server-gh200").host.extra  # one node has processors
    assert machine("server-2x-epyc-9654").host.extra["numa_nodes"] == 8


def test_who_uses_a_card_is_known_where_its_driver_says():
    held = {p["name"]: p["used"] for p in machine("desktop-rtx-5090").devices[0].extra["processes"]}
    assert held["/usr/lib/firefox/firefox"] == 905 * MIB
    (process,) = machine("laptop-rx-7600m-xt-and-780m").devices[0].extra["processes"]
    assert (process["pid"], process["name"], process["used"]) == (4711, "python3", 1900 * MIB)


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("container-h100-mig-by-uuid", 408), ("server-gh200", 4022), ("vgpu-l40s-12q", 864), ("laptop-iris-xe-16gb", 68),
        ("jetson-orin-nx-16gb", 102), ("jetson-agx-thor-128gb", 273), ("server-4x-mi300a", 5300),
        ("desktop-rtx-4090", 1008), ("server-8x-h100", 3352), ("desktop-rx-7900-xtx", 960), ("server-2x-mi300x", 5300),
        ("strix-halo-128gb", 256), ("macbook-m3-max-64gb", 409), ("desktop-arc-b580-and-igpu", 456), ("dgx-spark", 273),
    ],
)  # fmt: skip
def test_the_memorys_speed_is_the_drivers_or_the_catalogues(name, bandwidth):
    assert machine(name).devices[0].memory_bandwidth // 10**9 == bandwidth


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("desktop-3060-and-3090", "CUDA_DEVICE_ORDER"),
        ("wsl-rtx-3060", ".wslconfig"),
        ("container-t4-8gib", "container limit"),
        ("server-a100-mig", "MIG"),
        ("server-2x-mi300x", "hides 0000:05:00.0, 0000:15:00.0"),
        ("strix-halo-128gb", "ttm.pages_limit"),
        ("laptop-5900hs-without-rocm", "Vulkan"),
        ("desktop-arc-a770", "not known"),
        ("macbook-m3-max-64gb", "iogpu.wired_limit_mb"),
        ("server-h100-mig-without-slices", "in MIG mode without a slice"),
        ("vgpu-l40s-12q", "virtual GPU"),
        ("server-2x-epyc-9654", "--numa distribute"),
        ("orange-pi-5-16gb", "does not say what is free"),
    ],
)
def test_what_a_user_should_know_is_said(name, said):
    assert any(said in note for note in machine(name).notes)


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_documented_and_survives_the_machine_file(name):
    recording = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert recording["about"]
    assert recording["format"]
    found = machine(name)
    assert machine_from_json(json.loads(json.dumps(machine_to_json(found)))) == found
    assert not any("failed" in note for note in found.notes)


def test_the_recordings_are_what_their_script_writes():
    script = runpy.run_path(str(FOLDER / "make_machines.py"))
    assert sorted(script["MACHINES"]) == NAMES
    for name in NAMES:
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == script["render"](name)


def write_tree(root, files):
    for path, text in files.items():
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / path[1:]).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in NAMES if "amd" in raw(name)])
def test_amds_tree_is_collected_as_it_was_recorded(name, tmp_path, monkeypatch):
    recorded = raw(name)["amd"]
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in recorded["env"].items():
        monkeypatch.setenv(variable, value)
    other = ["# List of AMDGPU IDs", "1309,\t00,\tAMD Radeon R7 Graphics"]
    write_tree(tmp_path, recorded["files"] | {"/usr/share/libdrm/amdgpu.ids": "\n".join([*other, *recorded["names"]])})
    assert fitplug_amd.collect(str(tmp_path)) == recorded


@pytest.mark.parametrize("name", [name for name in NAMES if "intel" in raw(name)])
def test_intels_tree_is_collected_as_it_was_recorded(name, tmp_path):
    recorded = raw(name)["intel"]
    driver = {"/usr/lib/x86_64-linux-gnu/libze_intel_gpu.so.1": ""} if recorded["level_zero"] else {}
    write_tree(tmp_path, recorded["files"] | driver)
    assert fitplug_intel.collect(str(tmp_path)) == recorded


@pytest.mark.parametrize("name", [name for name in NAMES if raw(name)["host"]["platform"] == "linux"])
def test_the_hosts_files_are_collected_as_they_were_recorded(name, tmp_path):
    recorded = raw(name)["host"]
    write_tree(tmp_path, recorded["files"])
    assert fitplug_host.collect(str(tmp_path))["files"] == {path: text.strip() for path, text in recorded["files"].items()}


def test_a_machine_without_their_gpus_has_nothing_for_them(tmp_path):
    assert fitplug_amd.collect(str(tmp_path)) is None
    assert fitplug_intel.collect(str(tmp_path)) is None


@settings(max_examples=60)
@given(st.sampled_from([name for name in NAMES if {"amd", "intel"} & set(raw(name))]), st.data())
def test_whatever_sysfs_holds_no_detector_ends_the_plan(name, data):
    found = raw(name)
    for detector in {"amd", "intel"} & set(found):
        files = found[detector]["files"]
        path = data.draw(st.sampled_from(sorted(files)))
        files[path] = data.draw(st.text(max_size=30) | st.just("99999999999999999999999"))
    for device in compose(DETECTORS, found).devices:
        assert 0 <= device.free_bytes <= device.total_bytes


def test_hip_takes_the_larger_pool_where_the_compute_driver_says_none():
    found = raw("strix-halo-128gb")["amd"]
    banks = [path for path in found["files"] if "mem_banks" in path]
    for path in banks:
        del found["files"][path]
    assert fitplug_amd.parse(found)[0].total_bytes == 118_111_600_640


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "3,0"}, ["35", "05"]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "3"}, ["15"]),
        ({"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}, ["35"]),
        ({"HIP_VISIBLE_DEVICES": "0,9,1"}, ["05"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1a2b3c4d5e6f7a8b"}, ["05"]),
    ],
)
def test_hips_environment_chooses(env, seen):
    found = raw("server-2x-mi300x")["amd"] | {"env": env}
    assert [device.pci_id[5:7] for device in fitplug_amd.parse(found)] == seen


json_values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=200)
@given(st.sampled_from(NAMES), st.data())
def test_a_recording_with_anything_in_it_is_a_machine_or_one_line(name, data):
    found = {"raw": raw(name)}
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([path for path in places(found) if path]))
        inner = found
        for key in path:
            inner = inner[key]
        inner[last] = data.draw(json_values)
    try:
        machine_from_file(json.dumps(found), DETECTORS)
    except FitplugError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("desktop-rtx-4090", ("nvidia", "cards", 0, "memory_clock_mhz")),
        ("desktop-rtx-4090", ("nvidia", "cards", 0, "bus_width_bits")),
        ("desktop-rtx-4090", ("nvidia", "cards", 0, "memory", "total")),
        ("macbook-m1-8gb-without-metal", ("apple", "sysctl", "iogpu.wired_limit_mb")),
        ("macbook-m1-8gb-without-metal", ("apple", "sysctl", "hw.memsize")),
    ],
)
def test_text_in_place_of_a_number_is_never_multiplied(name, path):
    """A million times a text of a megabyte is more memory than there is."""
    found = {"raw": raw(name)}
    inner = found["raw"]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = "1" * (1 << 20)
    tracemalloc.start()
    try:
        with contextlib.suppress(FitplugError):
            machine_from_file(json.dumps(found), DETECTORS)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
