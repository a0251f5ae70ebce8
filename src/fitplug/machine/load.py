"""The machine file: JSON that people write and `fitplug devices --json` prints, to and from a `Machine`.

Everything in it may be wrong or hostile; each value is checked before it is believed, and what cannot be is one line
that names the key.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast, get_args

from fitplug.errors import UnreadableError
from fitplug.machine.order import take_devices
from fitplug.machine.records import Device, DeviceKind, Host, Machine
from fitplug.units import GIB, format_bytes

_MAX_TEXT = 4 << 20
_MAX_DEVICES = 256
_MAX_BYTES = 1 << 53
"""More than any machine has, and the largest int that every JSON reader keeps."""
_MAX_STRING = 512
_MAX_NOTES = 256
_DEVICE_KEYS = frozenset(Device.__dataclass_fields__) - {"extra"}
_HOST_KEYS = frozenset(Host.__dataclass_fields__) - {"extra"}


def machine_from_text(text: str | bytes) -> Machine:
    """Read a machine file's text.

    Raises:
        UnreadableError: it is not JSON, or not a machine.
    """
    return machine_from_json(json_from_text(text))


def json_from_text(text: str | bytes) -> Any:
    """What the text of a machine file or a recording holds; `UnreadableError` where it is no JSON, or too long."""
    import json

    if len(text) > _MAX_TEXT:
        _refuse("it is longer than 4 MiB")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"not a machine file: {_short(error)}") from error


def machine_from_json(data: Any) -> Machine:
    """Build a machine from a parsed machine file; unknown keys of devices and host are kept in their `extra`.

    Of a device only `kind`, `backend`, `total_bytes` and `free_bytes` are required. A file that does not state the
    host's memory gets an assumed one, and a note that says so.

    Raises:
        UnreadableError: a value that cannot be true.
    """
    if not isinstance(data, Mapping):
        _refuse("it is not a JSON object")
    if data.get("schema", 1) != 1:
        _refuse(f"its schema is {_short(data['schema'])}; this fitplug reads schema 1")
    if "devices" not in data and "raw" in data:
        _refuse("it is what detectors collected (`devices --raw`); give it to --machine, or record `devices --json`")
    rows = data.get("devices", [])
    if not isinstance(rows, list):
        _refuse("devices is not a list")
    if len(rows) > _MAX_DEVICES:
        _refuse(f"it lists {len(rows)} devices; at most {_MAX_DEVICES} are read")
    devices = [_device(row, f"devices[{i}]") for i, row in enumerate(rows)]
    notes = _notes(data.get("notes", []))
    if data.get("host") is None:
        host, note = assumed_host(devices)
        notes.append(note)
    else:
        host = _host(data["host"], notes)
    taken, unused = take_devices(devices)
    return Machine(devices=taken, unused=unused, host=host, notes=tuple(notes))


def machine_to_json(machine: Machine) -> dict[str, Any]:
    """The machine as its file holds it; `machine_from_json` gives the same machine back."""
    return {
        "schema": 1,
        "devices": [_row(device, _DEVICE_KEYS) for device in (*machine.devices, *machine.unused)],
        "host": _row(machine.host, _HOST_KEYS),
        **({"notes": list(machine.notes)} if machine.notes else {}),
    }


def assumed_host(devices: Iterable[Device]) -> tuple[Host, str]:
    """A host for a machine whose own memory nobody stated: as large as its devices, 16 GiB at least. And the note."""
    size = max(16 * GIB, sum(device.total_bytes for device in devices))
    note = f"the host's memory is not known; {format_bytes(size)} are assumed to be free"
    return Host(total_bytes=size, available_bytes=size, extra={"basis": "assumed"}), note


def _device(row: Any, at: str) -> Device:
    row = _mapping(row, at)
    for key in ("kind", "backend", "total_bytes", "free_bytes"):
        if key not in row:
            _refuse(f"{at} has no {key}")
    kind = row["kind"]
    if kind not in get_args(DeviceKind):
        _refuse(f"{at}.kind is {_short(kind)}; it can be {', '.join(get_args(DeviceKind))}")
    total, free = _bytes(row, "total_bytes", at), _bytes(row, "free_bytes", at)
    if free > total:
        _refuse(f"{at}.free_bytes ({free}) is more than its total_bytes ({total})")
    return Device(
        kind=cast("DeviceKind", kind),
        backend=_backend(row["backend"], at),
        name=_string(row, "name", at) or "",
        total_bytes=total,
        free_bytes=free,
        compute_capability=_string(row, "compute_capability", at),
        memory_bandwidth=_bandwidth(row, at),
        unified=_flag(row, "unified", at, default=kind == "igpu"),
        pci_id=_string(row, "pci_id", at),
        basis=_string(row, "basis", at) or "stated",
        extra={key: value for key, value in row.items() if key not in _DEVICE_KEYS},
    )


def _host(row: Any, notes: list[str]) -> Host:
    row = _mapping(row, "host")
    if "total_bytes" not in row:
        _refuse("host has no total_bytes")
    total = _bytes(row, "total_bytes", "host")
    if "available_bytes" in row:
        available = _bytes(row, "available_bytes", "host")
    else:
        available = total
        notes.append("the machine file does not say how much host memory is available; all of it is assumed to be")
    if available > total:
        _refuse(f"host.available_bytes ({available}) is more than its total_bytes ({total})")
    n_threads = _bytes(row, "n_threads", "host") if row.get("n_threads") is not None else None
    return Host(
        total_bytes=total,
        available_bytes=available,
        memory_bandwidth=_bandwidth(row, "host"),
        n_threads=n_threads or None,
        extra={key: value for key, value in row.items() if key not in _HOST_KEYS},
    )


def _row(record: Device | Host, keys: Iterable[str]) -> dict[str, Any]:
    """Known keys that say something, in the record's order, then the rest."""
    known = {key: getattr(record, key) for key in record.__dataclass_fields__ if key in keys}
    row = {key: value for key, value in known.items() if value is not None and value is not False and value != ""}
    if isinstance(record, Device) and record.kind == "igpu":
        row["unified"] = record.unified  # an igpu's default is true, so a false one must be written
    return row | {key: value for key, value in record.extra.items() if key not in known}


def _mapping(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(f"{at} is not a JSON object")
    return cast("Mapping[str, Any]", value)


def _bytes(row: Mapping[str, Any], key: str, at: str) -> int:
    value = row[key]
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)  # 2.4e10 is how some programs write an int
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_BYTES:
        _refuse(f"{at}.{key} is {_short(value)}, not a number between 0 and 2^53")
    return value


def _bandwidth(row: Mapping[str, Any], at: str) -> int | None:
    return _bytes(row, "memory_bandwidth", at) or None if row.get("memory_bandwidth") is not None else None


def _backend(value: Any, at: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.replace("_", "a").isalnum() or len(value) > 32:
        _refuse(f"{at}.backend is {_short(value)}, not a backend such as cuda, rocm, metal, vulkan, sycl")
    return value.lower()


def _string(row: Mapping[str, Any], key: str, at: str) -> str | None:
    value = row.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_BYTES:
        value = str(value)  # 8.9 for "8.9"
    if value is not None and (not isinstance(value, str) or len(value) > _MAX_STRING or not value.isprintable()):
        _refuse(f"{at}.{key} is {_short(value)}, not a short line of text")
    return value


def _flag(row: Mapping[str, Any], key: str, at: str, *, default: bool) -> bool:
    value = default if row.get(key) is None else row[key]
    if not isinstance(value, bool):
        _refuse(f"{at}.{key} is {_short(value)}, not true or false")
    return value


def _notes(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > _MAX_NOTES:
        _refuse("notes is not a list of lines")
    return [_string({"note": note}, "note", "notes") or "" for note in value]


def _short(value: Any) -> str:
    """A value of a hostile file, cut to what one line can hold."""
    if isinstance(value, int) and abs(value) > _MAX_BYTES:
        return "a huge number"
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'JSON object'}"
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(why: str) -> NoReturn:
    raise UnreadableError(f"not a machine file: {why}")
