"""The installed llama-cpp-python, asked what these settings would take."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fitplug.errors import RefusedError, UnreadableError
from fitplug.machine.backends import backend_named
from fitplug.machine.records import Device
from fitplug.settings import Settings

_TIMEOUT = 600
_LIST_TIMEOUT = 5
"""Seconds: importing the package takes one, opening a card another."""


def version() -> str | None:
    """The installed version; None where it is missing, or where its library cannot be asked (only Linux's can)."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    if not sys.platform.startswith("linux"):
        return None
    try:
        return installed("llama-cpp-python")
    except PackageNotFoundError:
        return None


def measure(model: str, settings: Settings) -> Mapping[str, Mapping[str, int]]:
    """Buffer type → kind → bytes, as llama.cpp's measuring path counts them.

    Raises:
        RefusedError: llama.cpp did not take the model or the settings; the message is its own.
    """
    if settings.kv_overrides:
        raise RefusedError("llama-cpp-python is not asked about --override-kv: take another --engine")
    request = json.dumps({"model": model, "settings": asdict(settings)})
    argv = [sys.executable, "-m", "fitplug_llama_cpp_python.measure"]
    try:
        done = subprocess.run(  # noqa: S603 - this Python, this module
            argv, input=request, capture_output=True, text=True, timeout=_TIMEOUT, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"llama-cpp-python did not answer within {_TIMEOUT} s") from error
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"buffers"')]
    if not answers:
        raise RefusedError(f"llama-cpp-python refused: {reason(done.stderr)}")
    try:
        return {str(name): {str(k): int(v) for k, v in row.items()} for name, row in json.loads(answers[-1])["buffers"].items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UnreadableError("llama-cpp-python answered nonsense") from error


def listed() -> Sequence[Device] | None:
    """The devices of the package's library; None where it is missing or does not answer."""
    from importlib.util import find_spec

    if find_spec("llama_cpp") is None:
        return None
    argv = [sys.executable, "-m", "fitplug_llama_cpp_python.listing"]
    try:
        done = subprocess.run(  # noqa: S603 - this Python, this module
            argv, capture_output=True, text=True, timeout=_LIST_TIMEOUT, check=False, errors="replace"
        )
        rows = json.loads(done.stdout.splitlines()[-1])["devices"]
        return tuple(_device(row) for row in rows)
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return None


def _device(row: Mapping[str, Any]) -> Device:
    total = int(row["total_bytes"])
    return Device(
        kind=row["kind"], backend=backend_named(row["name"]), name=str(row["description"]), total_bytes=total,
        free_bytes=min(total, int(row["free_bytes"])), pci_id=row.get("pci_id"), basis="llama.cpp",
    )  # fmt: skip


def reason(log: str) -> str:
    """The first complaint in llama.cpp's log: what follows is its consequence."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    complaints = [line for line in lines if any(word in line.lower() for word in ("error", "failed", "requires", "invalid"))]
    return (complaints or lines or ["it ended without a word"])[0][:200]
