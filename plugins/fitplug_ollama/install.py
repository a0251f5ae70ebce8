"""`ollama create` for an export, then a look at what the server says it loaded."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fitplug.errors import NetworkError, NotFoundError, RefusedError
from fitplug.extension import Export
from fitplug.units import MIB, format_bytes
from fitplug_ollama import server
from fitplug_ollama.names import parse_name

_TIMEOUT = 3600
"""Seconds for `ollama create`, which rewrites the whole file."""
_LOAD_TIMEOUT = 600
_NEAR = 4 * MIB
"""Ollama adds up figures that llama.cpp prints with two decimals, and the output buffer besides."""


def install(export: Export) -> Sequence[str]:
    """Create the model, load it, and compare what /api/ps reports with the plan.

    Raises:
        NotFoundError: there is no `ollama` on PATH.
        RefusedError: `ollama create` did not take it; the message is its own.
        NetworkError: no server runs.
    """
    name = export.commands[0][2]
    program = shutil.which("ollama")
    if program is None:
        raise NotFoundError("there is no `ollama` on PATH: write the Modelfile with --output and create the model yourself")
    server.call("/api/version")
    done = []
    kept = _keep(program, name)
    if kept:
        done.append(f"kept the model that was called {name} as {kept}")
    _create(program, name, export.files[0].text)
    done.append(f"created {name}")
    return [*done, *check(name, export)]


def _keep(program: str, name: str) -> str | None:
    """A model of that name is copied first: Ollama would replace it without a word."""
    wanted = str(parse_name(name)).lower()
    found = server.call("/api/tags").get("models")
    names = (
        {str(item.get("name", "")).lower() for item in found if isinstance(item, dict)} if isinstance(found, list) else set()
    )
    if wanted not in names:
        return None
    number = next(n for n in range(1, 1000) if f"{_stem(name)}:before-fitplug-{n}" not in names)
    kept = f"{_stem(name)}:before-fitplug-{number}"
    _run([program, "cp", name, kept])
    return kept


def _stem(name: str) -> str:
    return str(parse_name(name)).rpartition(":")[0].lower()


def _create(program: str, name: str, text: str) -> None:
    with TemporaryDirectory(prefix="fitplug-") as folder:
        path = Path(folder) / "Modelfile"
        path.write_text(text, encoding="utf-8")
        _run([program, "create", name, "-f", str(path)])


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, check=False, errors="replace")  # noqa: S603 - the user's own program
    except (OSError, subprocess.SubprocessError) as error:
        raise RefusedError(f"ollama {argv[1]}: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise RefusedError(f"ollama {argv[1]}: {(lines or ['it failed without a word'])[-1][:300]}")


def check(name: str, export: Export) -> Iterator[str]:
    """Load the model and say how the server's own figures lie beside the plan's."""
    try:
        server.call("/api/generate", {"model": name, "stream": False}, timeout=_LOAD_TIMEOUT)
        loaded = _loaded(name)
    except NetworkError as error:
        yield f"it could not be loaded: {error}"
        return
    if loaded is None:
        yield "the server does not list it as loaded"
        return
    yield from compare(loaded, export)


def _loaded(name: str) -> dict[str, Any] | None:
    wanted = str(parse_name(name)).lower()
    found = server.call("/api/ps").get("models")
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return next((item for item in items if str(item.get("name", "")).lower() == wanted), None)


def compare(loaded: dict[str, Any], export: Export) -> Iterator[str]:
    """One line a figure of /api/ps."""
    context, wanted = loaded.get("context_length"), export.expected.get("context_length")
    if context is not None and context != wanted:
        yield f"the server runs it with a context of {context}, not the planned {wanted}"
    vram, planned = loaded.get("size_vram"), export.expected.get("size_vram")
    if not isinstance(vram, int) or planned is None:
        return
    if abs(vram - planned) <= _NEAR:
        yield f"loaded: {format_bytes(vram)} on GPUs, as planned"
    else:
        yield (f"loaded with {format_bytes(vram)} on GPUs where the plan has {format_bytes(planned)}: "
               f"does the server run with {' '.join(f'{key}={value}' for key, value in export.env.items())}?")  # fmt: skip
