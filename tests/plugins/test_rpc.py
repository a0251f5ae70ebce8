"""Asking rpc-servers for their devices: the protocol as llama.cpp has it, and servers that break it."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from fitplug.errors import FitplugError, NetworkError
from fitplug.machine.backends import backend
from fitplug.registry import load
from fitplug_rpc import client, measure, protocol
from fitplug_rpc.protocol import Command

GIB = 1 << 30
SILENT = b"(nothing is answered)"
Answer = Callable[[int, bytes], bytes | None]


def honest(command: int, data: bytes) -> bytes | None:
    """Two devices: a CUDA-like one and a plain one."""
    number = struct.unpack("<I", data[:4])[0] if len(data) >= 4 and command != Command.HELLO else 0
    return {
        Command.HELLO: struct.pack("<BBBB24s", 7, 0, 0, 0, bytes(24)),
        Command.DEVICE_COUNT: struct.pack("<I", 2),
        Command.GET_DEVICE_MEMORY: struct.pack("<QQ", (20 - number) * GIB, 24 * GIB),
        Command.GET_ALIGNMENT: struct.pack("<Q", 32 if number else 128),
        Command.GET_MAX_SIZE: struct.pack("<Q", (1 << 64) - 1),
        Command.GET_ALLOC_SIZE: struct.pack("<Q", _alloc_size(number, data)),
    }[Command(command)]


def _alloc_size(number: int, data: bytes) -> int:
    """As CUDA and as the CPU answer: rows of quantised tensors padded, K and V of quantised caches copied."""
    is_attention = len(data) > 100 and struct.unpack_from("<I", data, 4 + 52)[0] == protocol.Op.FLASH_ATTN_EXT
    if is_attention:
        return (1 << 20) + (0 if number else 1 << 20)
    return 34 if number else 544


@contextmanager
def server(answer: Answer, n_clients: int = 1) -> Iterator[str]:
    """A server on loopback, for so many clients one after the other; None as an answer hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def take(connection: socket.socket, n: int) -> bytes:
        data = b""
        while len(data) < n and (more := connection.recv(n - len(data))):
            data += more
        return data

    def serve() -> None:
        for _ in range(n_clients):
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client may hang up while we still talk
                talk(connection)

    def talk(connection: socket.socket) -> None:
        while head := take(connection, 9):
            command, size = struct.unpack("<BQ", head)
            reply = answer(command, take(connection, size))
            if reply is None:
                return
            if reply != SILENT:
                connection.sendall(struct.pack("<Q", len(reply)) + reply)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def test_devices_come_with_memory_alignment_and_padding() -> None:
    """And the padding of quantised rows is asked for, not supposed."""
    with server(honest) as endpoint:
        first, second = load().remote("rpc").devices(endpoint)
    assert (first.free_bytes, first.total_bytes, second.free_bytes) == (20 * GIB, 24 * GIB, 19 * GIB)
    assert (backend(first).alignment, backend(first).row_padding) == (128, 512)
    assert (backend(second).alignment, backend(second).row_padding) == (32, 0)
    assert first.extra["endpoint"] == endpoint
    assert (first.extra["served_by"], second.extra["served_by"]) == ("cuda", "cpu")
    assert (first.unified, second.unified) == (False, True)  # this machine's own memory, since it is on loopback


@pytest.mark.parametrize(
    ("spoiled", "reply", "message"),
    [
        (Command.HELLO, struct.pack("<BBBB24s", 3, 1, 0, 0, bytes(24)), "speaks RPC version 3.1.0"),
        (Command.HELLO, b"HTTP", "is it an rpc-server"),
        (Command.HELLO, None, "hung up"),
        (Command.DEVICE_COUNT, struct.pack("<I", 1 << 31), "says that it has"),
        (Command.DEVICE_COUNT, struct.pack("<I", 0), "says that it has"),
        (Command.GET_DEVICE_MEMORY, struct.pack("<QQ", 1 << 60, 1 << 60), "impossible sizes"),
        (Command.GET_ALIGNMENT, struct.pack("<Q", 0), "impossible sizes"),
        (Command.GET_MAX_SIZE, None, "hung up"),
    ],
)
def test_a_server_that_breaks_the_protocol_is_one_line(spoiled: int, reply: bytes | None, message: str) -> None:
    """Whatever it answers."""
    with (
        server(lambda command, data: reply if command == spoiled else honest(command, data)) as endpoint,
        pytest.raises(NetworkError, match=message) as caught,
    ):
        client.devices(endpoint)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_one_line_that_says_how_to_start_it() -> None:
    """A closed port at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NetworkError, match=f"cannot reach the rpc-server.*ggml-rpc-server -H 0.0.0.0 -p {port}"):
        client.devices(f"127.0.0.1:{port}")
    with pytest.raises(NetworkError, match="cannot reach the rpc-server"):
        client.devices("no-such-machine.invalid:50052")


def test_a_server_that_serves_another_client_is_told_from_one_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has one client at a time: the next one is accepted by the system and waits."""
    monkeypatch.setattr(protocol, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NetworkError, match="one client at a time"):
            client.devices(busy)
    stalled = lambda command, data: honest(command, data) if command == Command.HELLO else SILENT  # noqa: E731
    with server(stalled) as endpoint, pytest.raises(NetworkError, match=r"does not answer within 0 s$"):
        client.devices(endpoint)


def test_a_server_that_drips_is_no_better_than_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, the whole never."""
    monkeypatch.setattr(protocol, "TIMEOUT", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while True:
                connection.sendall(b"\0")
                time.sleep(0.2)

    threading.Thread(target=drip, daemon=True).start()
    start = time.monotonic()
    with listener, pytest.raises(NetworkError, match="does not answer"):
        client.devices(f"127.0.0.1:{listener.getsockname()[1]}")
    assert time.monotonic() - start < 2


def test_the_version_of_an_older_server_is_found_out() -> None:
    """It hangs up on our greeting, and answers the one of its own time."""

    def old(command: int, data: bytes) -> bytes | None:
        return bytes([3, 6, 0]) if command == Command.HELLO and not data else None

    with server(old, n_clients=2) as endpoint, pytest.raises(NetworkError, match=r"version 3\.6\.0.*the llama.cpp there"):
        client.devices(endpoint)


def test_a_newer_server_asks_for_a_newer_llama_cpp_here() -> None:
    """And not the other way round."""

    def new(command: int, data: bytes) -> bytes | None:
        return struct.pack("<BBBB24s", 9, 0, 0, 0, bytes(24)) if command == Command.HELLO else honest(command, data)

    with server(new) as endpoint, pytest.raises(NetworkError, match=r"version 9\.0\.0.*the llama.cpp here"):
        client.devices(endpoint)


def test_another_program_on_the_port_is_one_line() -> None:
    """A web server answers what no rpc-server does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def web() -> None:
        with suppress(OSError):  # the listener is closed when the client has seen enough
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(64)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=web, daemon=True).start()
    with listener, pytest.raises(NetworkError, match="is it an rpc-server") as caught:
        client.devices(f"127.0.0.1:{listener.getsockname()[1]}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "host", "host:0", "host:99999", "ho st:1", "host:1/x", "-x:1:2", "[::1]:50052"])
def test_what_is_no_endpoint_is_never_dialled(text: str) -> None:
    """HOST:PORT and nothing else: llama.cpp cuts at the first colon and dials IPv4 only."""
    with pytest.raises(FitplugError, match="HOST:PORT"):
        client.devices(text)


def test_what_a_server_cannot_say_is_said() -> None:
    """A processor calls all of its memory free; a device without a size gets nothing."""

    def poor(command: int, data: bytes) -> bytes | None:
        known = command != Command.GET_DEVICE_MEMORY or data != bytes(4)
        return honest(command, data) if known else struct.pack("<QQ", 0, 0)

    with server(poor) as endpoint:
        remote = load().remote("rpc")
        assert remote.notes is not None
        said = remote.notes(remote.devices(endpoint))
    assert any("device 0" in line and "does not say how much memory" in line for line in said)
    assert any("device 1" in line and "processor" in line and "this machine's own" in line for line in said)
    assert sum("there and back" in line for line in said) == 2


class Measured:
    """A CPU server that is measured: keeps nothing, answers in time."""

    def __init__(self, seconds: float = 0.0, buffer: int = 7) -> None:
        self.seconds, self.buffer, self.said = seconds, buffer, list[int]()

    def __call__(self, command: int, data: bytes) -> bytes | None:
        """As an rpc-server whose graphs take so many seconds for each product."""
        self.said.append(command)
        if command == Command.ALLOC_BUFFER:
            return struct.pack("<QQ", self.buffer, 1 << 28)
        if command == Command.BUFFER_GET_BASE:
            return struct.pack("<Q", 1 << 20)
        if command == Command.GET_TENSOR:
            return bytes(struct.unpack("<QQ", data[-16:])[1])
        if command == Command.GRAPH_COMPUTE:
            time.sleep(self.seconds * struct.unpack_from("<I", data, 4)[0])
        if command in {Command.BUFFER_CLEAR, Command.SET_TENSOR, Command.FREE_BUFFER, Command.GRAPH_COMPUTE}:
            return SILENT
        one_cpu = command == Command.DEVICE_COUNT
        return struct.pack("<I", 1) if one_cpu else honest(command, struct.pack("<I", 1) + data[4:])


def test_the_way_and_the_device_are_measured() -> None:
    """A product that takes 50 ms reads 256 MiB in that time, or less where the machine is busy; the memory is given back."""
    there = Measured(0.05)
    with server(there, n_clients=2) as endpoint:
        (device,) = measure.measured(endpoint)
        _until(lambda: there.said[-1] == Command.FREE_BUFFER)  # nobody waits for an answer to it
    assert 0 < device.extra["read_rate"] < 1.05 * (256 << 20) / 0.05
    assert device.extra["link_bandwidth"] > 0


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_without_memory_to_measure_with_is_one_line() -> None:
    """No buffer: nothing is sent there."""
    there = Measured(buffer=0)
    with server(there, n_clients=2) as endpoint, pytest.raises(NetworkError, match=r"has no .* MiB left"):
        measure.measured(endpoint)
    assert Command.SET_TENSOR not in there.said
