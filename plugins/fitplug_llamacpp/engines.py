"""Asking an installed llama.cpp what it would allocate: its programs' own printed figures, parsed."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace

from fitplug.enginelog import parse_buffer_sizes
from fitplug.errors import NotFoundError, RefusedError
from fitplug.settings import Settings
from fitplug.units import MIB
from fitplug_llamacpp.command import flags, measuring_flags

_TIMEOUT = 600
"""Seconds; a real load reads the whole file."""
_READY = ("server is listening", "all slots are idle")
_RESERVED = "reserve took"
"""src/llama-context.cpp, sched_reserve: every buffer is there."""
_ESTIMATE = re.compile(r"^(\S+) (\d+) (\d+) (\d+)\s*$", re.MULTILINE)
"""common/fit.cpp, common_fit_print: device, model, context, compute in whole MiB."""


def version(program: str) -> str | None:
    """What `--version` says, or None where the program is not on PATH."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - the user's own program
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("version:")]
    return lines[0].removeprefix("version:").strip() if lines else None


def measure_fit_params(model: str, settings: Settings) -> Mapping[str, Mapping[str, int]]:
    """What llama-fit-params prints: whole MiB per device (rounded down), nothing is loaded."""
    argv = [_find("llama-fit-params"), "-m", model, *measuring_flags(settings)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603 - the user's own program
    found = parse_fit_print(done.stdout)
    if not found:
        raise RefusedError(f"llama-fit-params did not answer: {_reason((done.stderr + done.stdout).splitlines())}")
    return found


def parse_fit_print(text: str) -> dict[str, dict[str, int]]:
    """The lines of `llama-fit-params -fitp on`; its "Host" is every buffer in the host's memory together."""
    return {
        name: {"model": int(model) * MIB, "context": int(context) * MIB, "compute": int(compute) * MIB}
        for name, model, context, compute in _ESTIMATE.findall(text)
    }


def measure_server(model: str, settings: Settings) -> Mapping[str, Mapping[str, int]]:
    """Starts llama-server on a free port, reads its log until the model is loaded, and ends it.

    Without a memory map: for a mapped file it prints the stretch of the file that is mapped, not the tensors' size.
    """
    unmapped = replace(settings, use_mmap=False, load_mode=None)
    argv = [_find("llama-server"), "-m", model, *flags(unmapped), "--no-warmup", "-lv", "5", "--host", "127.0.0.1",
            "--port", str(_free_port())]  # fmt: skip
    with subprocess.Popen(  # noqa: S603 - the user's own program
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            lines = list(_until_ready(process.stdout or ()))
        finally:
            process.terminate()
    if not any(_RESERVED in line for line in lines):
        raise RefusedError(f"llama-server did not start with these settings: {_reason(lines)}")
    return parse_buffer_sizes(lines)


def _until_ready(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        yield line
        if any(word in line for word in _READY):
            return


def _reason(lines: list[str]) -> str:
    """The last line that looks like one."""
    wrong = [line for line in lines if re.search(r"error|failed|unable|invalid", line, re.IGNORECASE)]
    return (wrong or [line for line in lines if line.strip()] or ["no output"])[-1].strip()[:200]


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise NotFoundError(f"{program} is not on PATH")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
