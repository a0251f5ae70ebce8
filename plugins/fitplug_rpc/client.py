"""As much of the protocol as planning needs (ggml/src/ggml-rpc/ggml-rpc.cpp): who is there, and how much memory they have.

Request: command (1 byte), size (8 bytes), data. Response: size (8 bytes), data. Little endian, packed.
"""

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from struct import Struct, error

from fitplug.errors import FitplugError, NetworkError
from fitplug.machine.records import Device

PROTOCOL = (7, 0)
"""RPC_PROTO_MAJOR_VERSION and _MINOR_ of the llama.cpp that fitplug follows."""
CAPABILITIES = bytes(24)
"""RPC_CONN_CAPS_SIZE: none of the other transports."""
TIMEOUT = 5.0
MAX_DEVICES = 64
ROUND_TRIPS = 5
"""How often the way there and back is timed."""
_ENDPOINT = re.compile(r"(?P<host>[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>\d{1,5})")
_Q8_0, _SHORT_ROW, _SHORT_ROW_BYTES = 8, 32, 34


class Command(IntEnum):
    """rpc_cmd."""

    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    GET_DEVICE_MEMORY = 11
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15


_U32, _U64, _MEMORY = Struct("<I"), Struct("<Q"), Struct("<QQ")
_HELLO = Struct("<BBBB24s")
_TENSOR = Struct("<QIQ4I4II64si80sQQQ64si")
"""rpc_tensor."""


class Server:
    """One conversation."""

    def __init__(self, endpoint: str, connection: socket.socket) -> None:
        self.endpoint, self._connection = endpoint, connection

    def ask(self, command: Command, data: bytes, answer: Struct) -> tuple[int, ...]:
        """One request and its response, which must have exactly that form."""
        self._connection.sendall(bytes([command]) + _U64.pack(len(data)) + data)
        (size,) = _U64.unpack(self._take(8))
        if size != answer.size:
            raise NetworkError(f"{self.endpoint} answers {size} bytes where {answer.size} belong: is it an rpc-server?")
        return answer.unpack(self._take(size))

    def _take(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            more = self._connection.recv(n_bytes - len(data))
            if not more:
                raise NetworkError(f"{self.endpoint} hung up: is it an rpc-server of llama.cpp of this year?")
            data += more
        return data


@contextmanager
def connected(endpoint: str) -> Iterator[Server]:
    """A server that speaks our version.

    Raises:
        FitplugError: no endpoint; NetworkError: nobody there, or another version.
    """
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise FitplugError(f"'{endpoint[:80]}' is no RPC server: write it as HOST:PORT")
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), TIMEOUT) as connection:
            server = Server(endpoint, connection)
            major, minor, patch, *_ = server.ask(Command.HELLO, CAPABILITIES, _HELLO)
            if major != PROTOCOL[0] or minor > PROTOCOL[1]:
                ours = ".".join(map(str, PROTOCOL))
                raise NetworkError(f"{endpoint} speaks RPC version {major}.{minor}.{patch}, llama.cpp here {ours}: update one")
            yield server
    except TimeoutError:
        raise NetworkError(f"{endpoint} does not answer within {TIMEOUT:.0f} s") from None
    except (OSError, error) as problem:
        raise NetworkError(f"cannot reach the rpc-server {endpoint}: {getattr(problem, 'strerror', None) or problem}") from None


def devices(endpoint: str) -> Sequence[Device]:
    """Its devices with their memory as it is now, in its order."""
    with connected(endpoint) as server:
        (count,) = server.ask(Command.DEVICE_COUNT, b"", _U32)
        if not 0 < count <= MAX_DEVICES:
            raise NetworkError(f"{endpoint} says that it has {count} devices")
        delay = _round_trip(server)
        return tuple(_device(server, number, delay) for number in range(count))


def _round_trip(server: Server) -> float:
    """Seconds there and back, the shortest of a few."""
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        server.ask(Command.DEVICE_COUNT, b"", _U32)
        times.append(time.perf_counter() - start)
    return min(times)


def _device(server: Server, number: int, delay: float) -> Device:
    which = _U32.pack(number)
    free, total = server.ask(Command.GET_DEVICE_MEMORY, which, _MEMORY)
    (alignment,) = server.ask(Command.GET_ALIGNMENT, which, _U64)
    (max_size,) = server.ask(Command.GET_MAX_SIZE, which, _U64)
    (padded,) = server.ask(Command.GET_ALLOC_SIZE, which + _short_row() + bytes(10 * _TENSOR.size), _U64)
    if free > 1 << 50 or total > 1 << 50 or not 0 < alignment <= 1 << 16:
        raise NetworkError(f"{server.endpoint} gives impossible sizes for device {number}")
    return Device(
        backend="rpc",
        name=f"device {number} of {server.endpoint}",
        total_bytes=total or free,
        free_bytes=min(free, total) if total else free,
        extra={
            "endpoint": server.endpoint,
            "alignment": alignment,
            "max_buffer_bytes": max_size if 0 < max_size < 1 << 62 else None,
            "row_padding": 512 if padded > _SHORT_ROW_BYTES else 0,
            "round_trip_s": round(delay, 6),
        },
    )


def _short_row() -> bytes:
    """A q8_0 tensor of one short row: a CUDA server answers with the padding of quantised rows, others without."""
    row = _SHORT_ROW_BYTES
    return _TENSOR.pack(
        1, _Q8_0, 0, _SHORT_ROW, 1, 1, 1, row, row, row, row, 0, bytes(64), 0, bytes(80), 0, 0, 0, b"probe", 0
    )  # fmt: skip
