"""Ollama's HTTP API on this machine, as far as a plan needs it: its version, loading a model, what is loaded."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from fitplug.errors import NetworkError

_MOST = 1 << 22


def address() -> str:
    """Where the server listens: OLLAMA_HOST in any of its forms, else 127.0.0.1:11434 (envconfig.Host)."""
    told = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    scheme, separator, rest = told.partition("://")
    scheme, rest = (scheme, rest) if separator else ("http", told)
    host_port, _, path = rest.partition("/")
    default_port = {"http": "80", "https": "443"}.get(scheme, "11434") if separator else "11434"
    host, port = _split_port(host_port, default_port)
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - read, not bound
    return f"{scheme}://{host}:{port}" + (f"/{path.rstrip('/')}" if path.strip("/") else "")


def _split_port(text: str, default: str) -> tuple[str, str]:
    if text.endswith("]") or (text.count(":") > 1 and not text.startswith("[")):
        return (text if text.startswith("[") else f"[{text}]"), default
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, default
    return host, port if port.isdigit() and int(port) < 65536 else default


def call(path: str, body: dict[str, Any] | None = None, *, timeout: float = 10) -> dict[str, Any]:
    """One request, one JSON object.

    Raises:
        NetworkError: no server, or one that answers an error; the message is its own.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address() + path, data, {"Content-Type": "application/json"})  # noqa: S310 - http or https by construction
    try:
        with _opener().open(request, timeout=timeout) as response:
            found = json.loads(response.read(_MOST))
    except urllib.error.HTTPError as error:
        raise NetworkError(f"Ollama: {_message(error.read(_MOST)) or error.reason}") from None
    except (OSError, ValueError) as error:
        raise NetworkError(f"no Ollama server answers at {address()}: {getattr(error, 'reason', error)}") from None
    if not isinstance(found, dict):
        raise NetworkError(f"{address()}{path} answered no JSON object")
    return found


def _opener() -> urllib.request.OpenerDirector:
    """Never through a proxy: the server is this machine's, or one that OLLAMA_HOST names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])[:200]
    except (ValueError, KeyError, TypeError):
        return ""


def version() -> str | None:
    """The version of a server that runs; None without one."""
    try:
        found = call("/api/version", timeout=1).get("version")
    except NetworkError:
        return None
    return found if isinstance(found, str) else None


def version_numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version: "0.33.0-rc2" → (0, 33, 0)."""
    return tuple(int(part) for part in text.lstrip("v").partition("-")[0].split(".") if part.isdigit())
