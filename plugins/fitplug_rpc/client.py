"""Who is behind an rpc-server, and how much memory they have."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from fitplug.errors import NetworkError
from fitplug.machine.records import Device
from fitplug.units import format_bytes
from fitplug_rpc.protocol import TENSOR_BYTES, TWO_U64, U32, U64, Command, Op, Server, Type, connected, tensor

MAX_DEVICES = 64
ROUND_TRIPS = 5
"""How often the way there and back is timed."""
NO_LIMIT = (1 << 64) - 1
"""What a backend without a longest buffer says (SIZE_MAX)."""
_SHORT_ROW, _SHORT_ROW_BYTES = 32, 34
_HEADS, _HEAD, _CELLS = 8, 64, 512
_ATTENTION_BYTES, _COPY_BYTES = 4 * _HEAD * _HEADS * _CELLS, 2 * _HEAD * _HEADS * _CELLS


def devices(endpoint: str) -> Sequence[Device]:
    """Its devices with their memory as it is now, in its order."""
    with connected(endpoint) as server:
        (count,) = server.ask(Command.DEVICE_COUNT, b"", U32)
        if not 0 < count <= MAX_DEVICES:
            raise NetworkError(f"{endpoint} says that it has {count} devices")
        delay = round_trip(server)
        return tuple(_device(server, number, delay) for number in range(count))


def notes(found: Sequence[Device]) -> Sequence[str]:
    """What a server cannot say, and what its word is worth."""
    return [note for device in found for note in _notes(device)]


def _notes(device: Device) -> Iterator[str]:
    at = device.name
    yield f"{at}: {_way(device)}"
    if not device.total_bytes:
        yield f"{at} does not say how much memory it has: nothing is put there"
    elif device.extra.get("served_by") == "cpu":
        shared = "; it is this machine's own" if device.unified else ""
        yield f"{at} is a processor, which calls all its memory free ({format_bytes(device.free_bytes)}){shared}"


def _way(device: Device) -> str:
    """How far away it is, and what was measured there."""
    told = [f"{device.extra['round_trip_s'] * 1e3:.2g} ms there and back"]
    for key, what in (("link_bandwidth", "the network carries"), ("read_rate", "it reads weights at")):
        if key in device.extra:
            told.append(f"{what} {device.extra[key] / 1e6:,.0f} MB/s")
    return ", ".join(told)


def round_trip(server: Server) -> float:
    """Seconds there and back, the shortest of a few."""
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        server.ask(Command.DEVICE_COUNT, b"", U32)
        times.append(time.perf_counter() - start)
    return min(times)


def _device(server: Server, number: int, delay: float) -> Device:
    which = U32.pack(number)
    free, total = server.ask(Command.GET_DEVICE_MEMORY, which, TWO_U64)
    (alignment,) = server.ask(Command.GET_ALIGNMENT, which, U64)
    (max_size,) = server.ask(Command.GET_MAX_SIZE, which, U64)
    padding = 512 if _alloc_size(server, which, _short_row()) > _SHORT_ROW_BYTES else 0
    if free > 1 << 50 or total > 1 << 50 or not 0 < alignment <= 1 << 16:
        raise NetworkError(f"{server.endpoint} gives impossible sizes for device {number}")
    served_by = _served_by(server, which, alignment, padding, max_size)
    told: dict[str, Any] = {
        "endpoint": server.endpoint, "alignment": alignment, "row_padding": padding, "round_trip_s": round(delay, 6),
        "max_buffer_bytes": max_size if 0 < max_size < 1 << 62 else None, "served_by": served_by,
    }  # fmt: skip
    return Device(
        backend="rpc",
        name=f"device {number} of {server.endpoint}",
        total_bytes=total or free,
        free_bytes=min(free, total) if total else free,
        unified=served_by == "cpu" and _is_here(server.endpoint),
        extra={key: value for key, value in told.items() if value is not None},
    )


def _alloc_size(server: Server, which: bytes, tensors: Sequence[bytes]) -> int:
    """What the server's backend takes for the first of these, the others being its sources."""
    padding = bytes((11 - len(tensors)) * TENSOR_BYTES)
    (size,) = server.ask(Command.GET_ALLOC_SIZE, which + b"".join(tensors) + padding, U64)
    return size


def _short_row() -> Sequence[bytes]:
    """A q8_0 tensor of one short row: a CUDA server answers with the padding of quantised rows, others without."""
    return [tensor(1, Type.Q8_0, (_SHORT_ROW,))]


def _attention() -> Sequence[bytes]:
    """Attention over a q8_0 cache: what it takes besides its result tells backends apart."""
    cells = (_HEAD, _CELLS, _HEADS)
    return [
        tensor(1, Type.F32, (_HEAD, _HEADS, _CELLS), Op.FLASH_ATTN_EXT, src=(2, 3, 4, 5)),
        tensor(2, Type.F32, cells), tensor(3, Type.Q8_0, cells), tensor(4, Type.Q8_0, cells),
        tensor(5, Type.F16, (_CELLS, _CELLS)),
    ]  # fmt: skip


def _served_by(server: Server, which: bytes, alignment: int, padding: int, max_size: int) -> str | None:
    """The backend behind the server, as far as its sizes betray it.

    CUDA (HIP and MUSA are the same source) pads quantised rows and copies K and V to f16 for attention over a quantised
    cache; the CPU aligns to 32, pads and copies nothing, and knows no longest buffer.
    """
    if max_size != NO_LIMIT:
        return None
    more = _alloc_size(server, which, _attention()) - _ATTENTION_BYTES
    if (alignment, padding, more) == (128, 512, 2 * _COPY_BYTES):
        return "cuda"
    return "cpu" if (alignment, padding, more) == (32, 0, 0) else None


def _is_here(endpoint: str) -> bool:
    """On this machine's loopback."""
    host = endpoint.rpartition(":")[0]
    return host == "localhost" or host.startswith("127.")
