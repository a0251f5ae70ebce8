"""From /proc and the control groups to a `Host`. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from fitplug.errors import UnreadableError
from fitplug.machine.records import Host
from fitplug.units import format_bytes

_X86 = (
    ("x86-amx", frozenset(("amx_int8", "avx512_vnni"))), ("x86-avx512", frozenset(("avx512f",))), ("x86", frozenset(("avx2",))),
)  # fmt: skip
_ARM = (("arm", frozenset(("asimddp",))),)
"""Names that fitplug has for kinds of processors, and the flags of Linux that each needs."""


class _Limit(NamedTuple):
    group: str
    limit: int
    available: int


def parse(raw: Mapping[str, Any]) -> Host:
    """The host as a new process finds it."""
    if "files" not in raw:
        available, windows = min(raw["available"], raw["total"]), raw.get("platform") == "win32"
        system = {"system": "windows"} if windows else {}
        if str(raw.get("machine", "")).lower() == "arm64":  # Apple's, and those of Windows, have dot products
            system["cpu"] = "arm"
        return Host(total_bytes=raw["total"], available_bytes=available, n_threads=raw["n_cpu"], extra=system)
    files: Mapping[str, str] = raw["files"]
    total, available = _meminfo(files.get("/proc/meminfo", ""))
    extra: dict[str, Any] = {}
    limits = list(_limits(files, total))
    if limits:
        tightest = min(limits, key=lambda limit: limit.available)
        extra = {"physical_bytes": total, "limited_by": f"cgroup {tightest.group}"}
        total, available = min(limit.limit for limit in limits), min(available, tightest.available)
    if _is_wsl(files):
        extra["system"] = "wsl"
    if cpu := _cpu(files.get("/proc/cpuinfo", "")):
        extra["cpu"] = cpu
    if model := files.get("/proc/device-tree/model"):
        extra["model"] = model
    listed = [files.get(f"/sys/devices/system/node/{name}") for name in ("has_cpu", "online")]  # a card can be a node
    if (nodes := _n_listed(next(filter(None, listed), "0"))) > 1:
        extra["numa_nodes"] = nodes
    return Host(total_bytes=total, available_bytes=available, n_threads=_n_threads(files, raw["n_cpu"]), extra=extra)


def notes(raw: Mapping[str, Any]) -> list[str]:
    """A container's limit, and Windows's share of the memory."""
    files: Mapping[str, str] = raw.get("files", {})
    host, lines = parse(raw), []
    if "limited_by" in host.extra:
        physical = format_bytes(host.extra["physical_bytes"])
        lines.append(f"a container limit leaves {format_bytes(host.total_bytes)} of {physical}")
    if _is_wsl(files):
        seen = format_bytes(host.total_bytes)
        lines.append(f"WSL shows {seen} of Windows's memory; `memory=` in .wslconfig sets how much")
    if nodes := host.extra.get("numa_nodes"):
        lines.append(f"{nodes} NUMA nodes: layers on the CPU are read faster with llama.cpp's --numa distribute")
    return lines


def _cpu(line: str) -> str | None:
    """What ggml's code for this processor repacks weights for: the first of what its flags show; None: they say nothing."""
    name, _, words = line.partition(":")
    rows = {"flags": _X86, "Features": _ARM}.get(name.strip())
    if rows is None:
        return None
    has = frozenset(words.split())
    return next((cpu for cpu, needs in rows if needs <= has), "none")


def _is_wsl(files: Mapping[str, str]) -> bool:
    return "microsoft" in files.get("/proc/sys/kernel/osrelease", "").lower()


def _meminfo(text: str) -> tuple[int, int]:
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    sizes = {key: _int(value.split()[0]) * 1024 for key, value in fields.items() if value.strip()}
    total = sizes.get("MemTotal", 0)
    if not total:
        raise UnreadableError("/proc/meminfo does not say MemTotal")
    # kernels before 3.14 do not say MemAvailable; what is free or cached is the nearest to it
    available = sizes.get("MemAvailable", sizes.get("MemFree", 0) + sizes.get("Cached", 0))
    return total, min(available, total)


def _limits(files: Mapping[str, str], physical: int) -> Iterator[_Limit]:
    """Every group at or above this process that holds its memory below the physical one.

    What a group may still take is its limit less what it uses; inactive file pages go first when it needs room.
    """
    for path, text in files.items():
        group, _, name = path.rpartition("/")
        if name not in {"memory.max", "memory.high", "memory.limit_in_bytes"}:
            continue
        limit = _int(text, physical)  # "max" is no limit, and so is v1's 2^63 less a page
        if limit >= physical:
            continue
        v1 = name == "memory.limit_in_bytes"
        usage = _int(files.get(f"{group}/{'memory.usage_in_bytes' if v1 else 'memory.current'}", "0"))
        stat = dict(line.partition(" ")[::2] for line in files.get(f"{group}/memory.stat", "").splitlines())
        idle = _int(stat.get("total_inactive_file" if v1 else "inactive_file", "0"))
        yield _Limit(group.removeprefix("/sys/fs/cgroup") or "/", limit, max(0, limit - max(0, usage - idle)))


def _n_threads(files: Mapping[str, str], n_cpu: int) -> int:
    """Processors of the affinity mask, and no more than a control group's quota pays for."""
    return max(1, min([n_cpu, *_quotas(files)]))


def _quotas(files: Mapping[str, str]) -> Iterable[int]:
    for path, text in files.items():
        group, _, name = path.rpartition("/")
        if name == "cpu.max":
            quota, period = (*text.split(), "", "")[:2]
        elif name == "cpu.cfs_quota_us":
            quota, period = text, files.get(f"{group}/cpu.cfs_period_us", "")
        else:
            continue
        if _int(quota, -1) > 0 and _int(period) > 0:
            yield -(-int(quota) // int(period))


def _n_listed(ranges: str) -> int:
    """How many numbers "0-3,8" names."""
    ends = [part.split("-") for part in ranges.split(",") if part]
    return sum(max(0, _int(pair[-1]) - _int(pair[0]) + 1) for pair in ends)


def _int(text: str, default: int = 0) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20 else default
