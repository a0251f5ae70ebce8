import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitplug.errors import FitplugError
from fitplug.machine.records import Host
from fitplug.memory.cpu_buffers import CPUS
from fitplug_host import collect, measure_bandwidth, notes, parse
from fitplug_host.collecting import cgroup_files

GIB = 1 << 30
MEMINFO = "MemTotal:       67108864 kB\nMemFree:         1048576 kB\nMemAvailable:   50331648 kB\nCached: 1 kB\n"


def raw(n_cpu=16, **files):
    return {"platform": "linux", "files": {"/proc/meminfo": MEMINFO} | files, "n_cpu": n_cpu}


def tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return collect(str(root))


def test_the_hosts_memory_is_what_the_kernel_says():
    host = parse(raw())
    assert (host.total_bytes, host.available_bytes, host.n_threads) == (64 * GIB, 48 * GIB, 16)


def test_an_old_kernel_without_memavailable_is_understood():
    assert parse(raw(**{"/proc/meminfo": "MemTotal: 100 kB\nMemFree: 30 kB\nCached: 20 kB\n"})).available_bytes == 50 * 1024


def test_a_container_of_cgroup_v2_leaves_its_limit_less_what_it_uses(tmp_path):
    found = tree(tmp_path, {
        "proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{8 * GIB}\n", "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file 5\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
    })  # fmt: skip
    host = parse(found)
    assert (host.total_bytes, host.available_bytes) == (8 * GIB, 6 * GIB)  # inactive file pages go first
    assert host.n_threads == min(2, found["n_cpu"])
    assert host.extra["physical_bytes"] == 64 * GIB
    assert any("8.00 GiB of 64.0 GiB" in line for line in notes(found))


def test_the_tightest_of_nested_groups_counts(tmp_path):
    found = tree(tmp_path, {
        "proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/user.slice/job.scope\n",
        "sys/fs/cgroup/user.slice/memory.max": f"{10 * GIB}\n", "sys/fs/cgroup/user.slice/memory.current": f"{9 * GIB}\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.high": f"{6 * GIB}\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.current": f"{GIB}\n",
    })  # fmt: skip
    assert parse(found).available_bytes == GIB  # the outer one is nearly full
    assert parse(found).total_bytes == 6 * GIB


def test_a_container_of_cgroup_v1_is_understood(tmp_path):
    group = "sys/fs/cgroup/memory/docker/abc"
    found = tree(tmp_path, {
        "proc/meminfo": MEMINFO, "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n",
        f"{group}/memory.limit_in_bytes": f"{4 * GIB}\n", f"{group}/memory.usage_in_bytes": f"{2 * GIB}\n",
        f"{group}/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    host = parse(found)
    assert (host.total_bytes, host.available_bytes, host.n_threads) == (4 * GIB, 3 * GIB, 1)


def test_a_mount_that_shows_the_containers_group_as_its_root_is_understood(tmp_path):
    found = tree(tmp_path, {
        "proc/meminfo": MEMINFO, "proc/self/cgroup": "4:memory:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "0\n",
    })  # fmt: skip
    assert parse(found).available_bytes == 2 * GIB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "garbage", str(128 * GIB)])
def test_no_limit_is_no_limit(tmp_path, limit):
    found = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": limit})
    assert (parse(found).total_bytes, parse(found).available_bytes) == (64 * GIB, 48 * GIB)


def test_wsl_is_said():
    found = raw(**{"/proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2"})
    assert any(".wslconfig" in line for line in notes(found))
    assert notes(raw(**{"/proc/sys/kernel/osrelease": "6.8.0-generic"})) == []


def test_numa_nodes_and_board_are_kept():
    found = raw(**{"/sys/devices/system/node/online": "0-1,4", "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"})
    assert parse(found).extra == {"numa_nodes": 3, "model": "Raspberry Pi 5 Model B Rev 1.0"}


def test_other_systems_are_asked_by_psutil():
    host = parse({"platform": "darwin", "total": 100, "available": 60, "n_cpu": 8})
    assert host == Host(total_bytes=100, available_bytes=60, n_threads=8)


def test_a_group_cannot_lead_out_of_the_mount():
    assert all("/../" not in path and "*" not in path for path in cgroup_files("0::/../../etc/*\n4:memory:/a/../b\n"))
    assert len(cgroup_files("0::" + "/a" * 100_000)) < 1000


paths = st.sampled_from(
    [
        "/proc/meminfo",
        "/sys/devices/system/node/online",
        *(f"/sys/fs/cgroup/{n}" for n in ("memory.max", "memory.stat", "cpu.max")),
    ]
)


@given(st.dictionaries(paths, st.text(max_size=40)))
def test_whatever_the_files_hold_comes_a_host_or_one_line(files):
    try:
        host = parse({"platform": "linux", "files": files, "n_cpu": 2})
    except FitplugError:
        return
    assert 0 <= host.available_bytes <= host.total_bytes
    assert host.n_threads >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_agrees_with_psutil():
    import psutil

    found = collect()
    host, memory = parse(found), psutil.virtual_memory()
    physical = host.extra.get("physical_bytes", host.total_bytes)
    assert physical == memory.total
    assert 0 < host.available_bytes <= host.total_bytes <= memory.total
    assert host.n_threads <= psutil.cpu_count()


def test_reading_memory_takes_time():
    assert 100e6 < measure_bandwidth(0.05) < 100e12


@pytest.mark.parametrize(
    ("line", "cpu"),
    [
        ("flags\t\t: fpu avx avx2 fma", "x86"),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", "x86-avx512"),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_tile amx_int8", "x86-amx"),
        ("flags\t\t: fpu sse2", "none"),
        ("Features\t: fp asimd asimddp i8mm sve", "arm"),
        ("Features\t: fp asimd", "none"),
        ("", None),
        ("isa : rv64gcv", None),
    ],
)
def test_the_processors_flags_say_what_ggml_repacks_for_it(line, cpu):
    """Names of memory.cpu_buffers."""
    assert parse(raw(**{"/proc/cpuinfo": line})).extra.get("cpu") == cpu
    assert cpu is None or cpu in CPUS


def test_of_the_processors_only_the_flags_are_kept(tmp_path):
    """No serial numbers, and one processor of many."""
    text = "processor : 0\nflags : fpu avx2\nSerial : 12\n\nprocessor : 1\nflags : fpu avx2\n"
    found = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/cpuinfo": text})

    assert found["files"]["/proc/cpuinfo"] == "flags : fpu avx2"
    assert parse(found).extra["cpu"] == "x86"


@pytest.mark.parametrize(("machine", "cpu"), [("arm64", "arm"), ("ARM64", "arm"), ("x86_64", None), ("AMD64", None)])
def test_elsewhere_the_architecture_says_it(machine, cpu):
    found = parse({"platform": "darwin", "total": GIB, "available": GIB, "n_cpu": 8, "machine": machine})

    assert found.extra.get("cpu") == cpu
