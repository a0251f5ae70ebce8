"""As much of the protocol as planning needs (ggml/src/ggml-rpc/ggml-rpc.cpp).

Request: command (1 byte), size (8 bytes), data. Response: size (8 bytes), data. Little endian, packed.
"""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from struct import Struct, error

from fitplug.errors import FitplugError, NetworkError

PROTOCOL = (7, 0)
"""RPC_PROTO_MAJOR_VERSION and _MINOR_ of the llama.cpp that fitplug follows."""
CAPABILITIES = bytes(24)
"""RPC_CONN_CAPS_SIZE: none of the other transports."""
TIMEOUT = 5.0
"""Seconds for a whole conversation about sizes: a server that sends a byte now and then is no better than a silent one."""
_ENDPOINT = re.compile(r"(?P<host>[A-Za-z0-9_.-]{1,253}):(?P<port>\d{1,5})")
"""As parse_endpoint cuts it, at the first colon: llama.cpp's RPC knows no IPv6."""


class Command(IntEnum):
    """rpc_cmd."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    GET_TENSOR = 8
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    GET_ALLOC_SIZE = 13
    HELLO = 14
    DEVICE_COUNT = 15


class Op(IntEnum):
    """ggml_op (ggml/include/ggml.h)."""

    NONE = 0
    MUL_MAT = 29
    FLASH_ATTN_EXT = 74


class Type(IntEnum):
    """ggml_type."""

    F32 = 0
    F16 = 1
    Q8_0 = 8


U32, U64, TWO_U64 = Struct("<I"), Struct("<Q"), Struct("<QQ")
_HELLO = Struct("<BBBB24s")
_OLD_HELLO = Struct("<BBB")
_TENSOR = Struct("<QIQ4I4II64si80sQQQ64si")
TENSOR_BYTES = _TENSOR.size
_COMPUTE = 16
"""GGML_TENSOR_FLAG_COMPUTE: nodes without it are left out."""
_BLOCK = {Type.F32: (1, 4), Type.F16: (1, 2), Type.Q8_0: (32, 34)}


def tensor(
    id_: int,
    type_: Type,
    shape: tuple[int, ...],
    op: Op = Op.NONE,
    *,
    src: tuple[int, ...] = (),
    buffer: int = 0,
    data: int = 0,
    uses: int = 0,
) -> bytes:
    """rpc_tensor, contiguous."""
    ne = (*shape, 1, 1, 1)[:4]
    block, size = _BLOCK[type_]
    nb = [size, ne[0] // block * size]
    nb += [nb[1] * ne[1], nb[1] * ne[1] * ne[2]]
    flags = 0 if op is Op.NONE else _COMPUTE
    sources = b"".join(map(U64.pack, (*src, *(0,) * (10 - len(src)))))
    return _TENSOR.pack(id_, type_, buffer, *ne, *nb, op, bytes(64), flags, sources, 0, 0, data, b"fitplug", uses)


class Server:
    """One conversation."""

    def __init__(self, endpoint: str, connection: socket.socket, seconds: float) -> None:
        self.endpoint, self._connection = endpoint, connection
        self._until = time.monotonic() + seconds

    def tell(self, command: Command, data: bytes) -> None:
        """A request without a response."""
        self._wait()
        self._connection.sendall(bytes([command]) + U64.pack(len(data)) + data)

    def ask(self, command: Command, data: bytes, answer: Struct) -> tuple[int, ...]:
        """One request and its response, which must have exactly that form."""
        return answer.unpack(self.fetch(command, data, answer.size))

    def fetch(self, command: Command, data: bytes, n_bytes: int) -> bytes:
        """One request and its response of exactly so many bytes; none for a request that is only acknowledged."""
        self.tell(command, data)
        (size,) = U64.unpack(self._take(8))
        if size != n_bytes:
            raise NetworkError(f"{self.endpoint} answers {size} bytes where {n_bytes} belong: is it an rpc-server?")
        return self._take(size)

    def _take(self, n_bytes: int) -> bytes:
        data = bytearray()
        while len(data) < n_bytes:
            self._wait()
            more = self._connection.recv(min(n_bytes - len(data), 1 << 20))
            if not more:
                raise HungUpError(f"{self.endpoint} hung up: is it an rpc-server of llama.cpp of this year?")
            data += more
        return bytes(data)

    def _wait(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)


class HungUpError(NetworkError):
    """The server ended the conversation."""


@contextmanager
def connected(endpoint: str, seconds: float | None = None) -> Iterator[Server]:
    """A server that speaks our version, for a conversation of so many seconds.

    Raises:
        FitplugError: no endpoint; NetworkError: nobody there, busy, or another version.
    """
    seconds = seconds or TIMEOUT
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise FitplugError(f"'{endpoint[:80]}' is no RPC server: write it as HOST:PORT, with a name or an IPv4 address")
    spoken = False
    try:
        with _dial(match["host"], int(match["port"]), seconds) as connection:
            server = Server(endpoint, connection, seconds)
            _greet(server, match["host"], int(match["port"]))
            spoken = True
            yield server
    except TimeoutError:
        busy = "" if spoken else "; a server has one client at a time: is a llama.cpp using it now?"
        raise NetworkError(f"{endpoint} does not answer within {seconds:.0f} s{busy}") from None
    except (OSError, error) as problem:
        why = getattr(problem, "strerror", None) or problem
        hint = f"; start it there with `ggml-rpc-server -H 0.0.0.0 -p {match['port']}`" if not spoken else ""
        raise NetworkError(f"cannot reach the rpc-server {endpoint}: {why}{hint}") from None


def _dial(host: str, port: int, seconds: float) -> socket.socket:
    """As socket_t::connect: the name's first IPv4 address."""
    address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(seconds)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _greet(server: Server, host: str, port: int) -> None:
    """negotiate_hello, and what an older server says of itself."""
    try:
        major, minor, patch, *_ = server.ask(Command.HELLO, CAPABILITIES, _HELLO)
    except HungUpError:
        older = _older(server.endpoint, host, port)
        if older is None:
            raise
        major, minor, patch = older
    if major != PROTOCOL[0] or minor > PROTOCOL[1]:
        ours = ".".join(map(str, PROTOCOL))
        which = "the llama.cpp there" if major < PROTOCOL[0] else "the llama.cpp here and fitplug"
        said = f"{server.endpoint} speaks RPC version {major}.{minor}.{patch}, llama.cpp here {ours}"
        raise NetworkError(f"{said}: update {which}")


def _older(endpoint: str, host: str, port: int) -> tuple[int, ...] | None:
    """Servers before version 4 hang up on a greeting with data; one without is answered with three bytes."""
    try:
        with _dial(host, port, 1.0) as connection:
            return Server(endpoint, connection, 1.0).ask(Command.HELLO, b"", _OLD_HELLO)
    except (OSError, NetworkError):
        return None
