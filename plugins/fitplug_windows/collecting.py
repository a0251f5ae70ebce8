"""What Windows says of its display adapters: DXGI, and the registry where drivers write their exact memory size."""

import sys
from typing import Any

_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
_MAX_ADAPTERS = 32


def collect() -> dict[str, Any] | None:
    """Adapters by DXGI, and the registry's figures."""
    if sys.platform != "win32":
        return None
    from fitplug_windows.dxgi import adapters

    return {"adapters": adapters("dxgi"), "registry": _registry()}


def _registry() -> list[dict[str, Any]]:
    """Each driver's name, PCI identity and memory size: DXGI's is cut to 4 GiB by some old drivers, this one never."""
    import winreg as registry

    found = []
    with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, _CLASS) as folder:  # type: ignore[attr-defined,unused-ignore] # Windows only
        for index in range(_MAX_ADAPTERS):
            entry = {}
            try:
                with registry.OpenKey(folder, f"{index:04}") as key:  # type: ignore[attr-defined,unused-ignore] # Windows only
                    for name in ("DriverDesc", "MatchingDeviceId", "HardwareInformation.qwMemorySize"):
                        try:
                            entry[name] = registry.QueryValueEx(key, name)[0]  # type: ignore[attr-defined,unused-ignore] # Windows only
                        except OSError:
                            continue
            except OSError:
                continue
            found.append(entry)
    return found
