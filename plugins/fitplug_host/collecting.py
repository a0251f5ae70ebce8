"""What the system says about its memory. On Linux plain files: psutil would cost a fifth of fitplug's start there."""

import os
import sys
from typing import Any

from fitplug.sysfs import read_tree

CPUINFO = "/proc/cpuinfo"
_FILES = (
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/sys/kernel/osrelease",
    "/proc/device-tree/model",
    CPUINFO,
    "/sys/devices/system/node/online",
    "/sys/devices/system/node/has_cpu",
)
_FEATURES = ("flags", "Features")
"""The lines of /proc/cpuinfo that say what the processor can do, of x86 and of Arm; only the first is kept."""
_V2 = ("memory.max", "memory.high", "memory.current", "memory.stat", "cpu.max")
_V1 = {
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
}
_MAX_DEPTH = 32


def collect(root: str = "/") -> dict[str, Any]:
    """Files of Linux, or psutil's figures elsewhere."""
    if sys.platform == "linux" or root != "/":
        files = read_tree(_FILES, root)
        if CPUINFO in files:
            files[CPUINFO] = next((line for line in files[CPUINFO].splitlines() if line.startswith(_FEATURES)), "")
        wanted = cgroup_files(files.get("/proc/self/cgroup", ""))
        return {"platform": "linux", "files": files | read_tree(wanted, root), "n_cpu": _n_cpu()}
    import psutil

    memory = psutil.virtual_memory()
    return {
        "platform": sys.platform, "total": memory.total, "available": memory.available, "n_cpu": _n_cpu(),
        "machine": os.environ.get("PROCESSOR_ARCHITECTURE", "") if sys.platform == "win32" else os.uname().machine,
    }  # fmt: skip


def cgroup_files(own: str) -> list[str]:
    """The limit files of this process's control group and all groups above it, v1 and v2, from /proc/self/cgroup.

    Inside a container the path may be the host's while the mount shows the container's own group as its root; going up
    to the root meets that one as well.
    """
    wanted: dict[str, None] = {}
    for line in own.splitlines()[:64]:
        _, controllers, path = (*line.split(":", 2), "", "", "")[:3]
        for group in _upwards(path):
            if not controllers:
                for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                    wanted.update((f"{mount}{group}/{name}", None) for name in _V2)
            for controller, names in _V1.items():
                if controller in controllers.split(","):
                    wanted.update((f"/sys/fs/cgroup/{controller}{group}/{name}", None) for name in names)
    return list(wanted)


def _upwards(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in {"", ".", ".."} and "*" not in part]
    return ["".join(f"/{part}" for part in parts[:n]) for n in range(min(len(parts), _MAX_DEPTH), -1, -1)]


def _n_cpu() -> int:
    """Logical processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
