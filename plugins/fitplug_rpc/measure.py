"""How fast a server is: its network, and how its devices read weights. Takes a second or two and some of its memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from fitplug.errors import NetworkError
from fitplug.machine.records import Device
from fitplug_rpc.client import devices
from fitplug_rpc.protocol import TWO_U64, U32, U64, Command, Op, Server, Type, connected, tensor

SECONDS = 60.0
"""For the whole of one server's measuring; a slow network takes that long for a few MiB."""
_FIRST_BYTES, _MOST_BYTES, _LONG_ENOUGH = 1 << 18, 1 << 25, 0.2
"""A transfer is doubled until it takes long enough to be timed."""
_WIDTH, _MOST_ROWS, _READS = 4096, 32768, 4
"""The matrix that is read: 256 MiB in f16, more than caches hold, a quarter of what is free at most."""


def measured(endpoint: str) -> Sequence[Device]:
    """Its devices, with the network's bytes per second in the slower direction, and the rate at which each reads weights."""
    found = devices(endpoint)
    with connected(endpoint, SECONDS) as server:
        return tuple(_with_speed(server, number, device) for number, device in enumerate(found))


def _with_speed(server: Server, number: int, device: Device) -> Device:
    rows = min(_MOST_ROWS, device.free_bytes // 4 // (2 * _WIDTH)) // 32 * 32
    if not rows:
        return device
    weights = max(2 * _WIDTH * rows, _MOST_BYTES)
    bench = _Bench(server, number, weights, rows)
    try:
        link = bench.link_bandwidth()
        # only the CPU's kernels are known never to ask for more than their tensors
        rate = bench.read_rate() if device.extra.get("served_by") == "cpu" else None
    finally:
        bench.close()
    told = {"link_bandwidth": link, "read_rate": rate}
    return replace(device, extra={**device.extra, **{key: value for key, value in told.items() if value}})


class _Bench:
    """A buffer on the server: a matrix, then a vector, then the products."""

    def __init__(self, server: Server, number: int, weights: int, rows: int) -> None:
        self.server, self.number, self.rows = server, number, rows
        self._vector, self._results = weights, weights + 4 * _WIDTH
        size = self._results + 4 * rows * _READS
        self._buffer, _ = server.ask(Command.ALLOC_BUFFER, U32.pack(number) + U64.pack(size), TWO_U64)
        if not self._buffer:
            raise NetworkError(f"{server.endpoint} has no {size >> 20} MiB left to measure with on device {number}")
        (self._base,) = server.ask(Command.BUFFER_GET_BASE, U64.pack(self._buffer), U64)
        server.tell(Command.BUFFER_CLEAR, U64.pack(self._buffer) + b"\0")
        self._receive(4)  # everything is served in turn: this answer says that the buffer is clear

    def close(self) -> None:
        """Give the memory back."""
        self.server.tell(Command.FREE_BUFFER, U64.pack(self._buffer))

    def link_bandwidth(self) -> int:
        """Bytes per second there or back, whichever is slower; the time of an empty exchange is taken off."""
        empty = min(_seconds(lambda: self._send(4)) for _ in range(3))
        return min(_rate(self._send, empty), _rate(self._receive, empty))

    def read_rate(self) -> int:
        """Bytes of weights per second that a product with one vector reads, as generation does."""
        self._multiply(1)
        once = min(_seconds(lambda: self._multiply(1)) for _ in range(2))
        often = min(_seconds(lambda: self._multiply(_READS)) for _ in range(2))
        return round(2 * _WIDTH * self.rows * (_READS - 1) / max(often - once, 1e-9))

    def _bytes(self, n_bytes: int) -> bytes:
        return tensor(1, Type.F32, (n_bytes // 4,), buffer=self._buffer, data=self._base)

    def _send(self, n_bytes: int) -> None:
        self.server.tell(Command.SET_TENSOR, self._bytes(n_bytes) + b"\0" + U64.pack(0) + bytes(n_bytes))
        self._receive(4)  # served in turn: its answer says that all of it has arrived

    def _receive(self, n_bytes: int) -> None:
        self.server.fetch(Command.GET_TENSOR, self._bytes(n_bytes) + TWO_U64.pack(0, n_bytes), n_bytes)

    def _multiply(self, times: int) -> None:
        buffer = self._buffer
        matrix = tensor(1, Type.F16, (_WIDTH, self.rows), data=self._base, uses=times, buffer=buffer)
        vector = tensor(2, Type.F32, (_WIDTH,), data=self._base + self._vector, uses=times, buffer=buffer)
        results = [
            tensor(3 + i, Type.F32, (self.rows,), Op.MUL_MAT, src=(1, 2), data=self._base + self._results + 4 * self.rows * i,
                   buffer=buffer)
            for i in range(times)
        ]  # fmt: skip
        nodes = b"".join(U64.pack(3 + i) for i in range(times))
        tensors = [matrix, vector, *results]
        graph = U32.pack(self.number) + U32.pack(times) + nodes + U32.pack(len(tensors)) + b"".join(tensors)
        self.server.tell(Command.GRAPH_COMPUTE, graph)
        self._receive(4)


def _rate(transfer: Callable[[int], None], empty: float) -> int:
    n_bytes = _FIRST_BYTES
    while True:
        seconds = _seconds(lambda n=n_bytes: transfer(n)) - empty  # type: ignore[misc]
        if seconds >= _LONG_ENOUGH or n_bytes >= _MOST_BYTES:
            return round(n_bytes / max(seconds, 1e-9))
        n_bytes *= 2


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
