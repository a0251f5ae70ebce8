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
from fitplug_rpc import client

GIB = 1 << 30
Answer = Callable[[int, bytes], bytes | None]


def honest(command: int, data: bytes) -> bytes | None:
    """Two devices: a CUDA-like one and a plain one."""
    number = struct.unpack("<I", data[:4])[0] if len(data) >= 4 and command != client.Command.HELLO else 0
    return {
        client.Command.HELLO: struct.pack("<BBBB24s", 7, 0, 0, 0, bytes(24)),
        client.Command.DEVICE_COUNT: struct.pack("<I", 2),
        client.Command.GET_DEVICE_MEMORY: struct.pack("<QQ", (20 - number) * GIB, 24 * GIB),
        client.Command.GET_ALIGNMENT: struct.pack("<Q", 32 if number else 128),
        client.Command.GET_MAX_SIZE: struct.pack("<Q", (1 << 64) - 1),
        client.Command.GET_ALLOC_SIZE: struct.pack("<Q", 34 if number else 544),
    }[client.Command(command)]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server on loopback; None as an answer hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def take(connection: socket.socket, n: int) -> bytes:
        data = b""
        while len(data) < n and (more := connection.recv(n - len(data))):
            data += more
        return data

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):  # the client may hang up while we still talk
            while head := take(connection, 9):
                command, size = struct.unpack("<BQ", head)
                reply = answer(command, take(connection, size))
                if reply is None:
                    return
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


@pytest.mark.parametrize(
    ("spoiled", "reply", "message"),
    [
        (client.Command.HELLO, struct.pack("<BBBB24s", 3, 1, 0, 0, bytes(24)), "speaks RPC version 3.1.0"),
        (client.Command.HELLO, b"HTTP", "is it an rpc-server"),
        (client.Command.HELLO, None, "hung up"),
        (client.Command.DEVICE_COUNT, struct.pack("<I", 1 << 31), "says that it has"),
        (client.Command.DEVICE_COUNT, struct.pack("<I", 0), "says that it has"),
        (client.Command.GET_DEVICE_MEMORY, struct.pack("<QQ", 1 << 60, 1 << 60), "impossible sizes"),
        (client.Command.GET_ALIGNMENT, struct.pack("<Q", 0), "impossible sizes"),
        (client.Command.GET_MAX_SIZE, None, "hung up"),
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


def test_a_server_that_is_gone_or_silent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port at once, a silent one after the time-out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NetworkError, match="cannot reach the rpc-server"):
        client.devices(f"127.0.0.1:{port}")
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    with server(lambda *_: time.sleep(1)) as endpoint, pytest.raises(NetworkError, match="does not answer"):
        client.devices(endpoint)


@pytest.mark.parametrize("text", ["", "host", "host:0", "host:99999", "ho st:1", "host:1/x", "-x:1:2"])
def test_what_is_no_endpoint_is_never_dialled(text: str) -> None:
    """HOST:PORT and nothing else."""
    with pytest.raises(FitplugError, match="HOST:PORT"):
        client.devices(text)
