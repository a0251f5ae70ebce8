"""`fitplug auto --run`: start what was planned, if it still fits."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fitplug.errors import NotFoundError, RefusedError
from fitplug.quoting import join_powershell, join_sh

if TYPE_CHECKING:
    from fitplug.extension import Export
    from fitplug.machine.records import Machine
    from fitplug.planner.records import Plan


def still_fits(plan: "Plan", now: "Machine") -> bool:
    """Whether the plan fits the memory that is free now, on the devices it was made for."""
    from fitplug.planner.budget import spare

    same = [device.name for device in plan.machine.devices] == [device.name for device in now.devices]
    return plan.fits and same and spare(plan.estimate, now, plan.request.reserve_bytes).fits


def checked(plan: "Plan", detect: "Callable[[], Machine]", again: "Callable[[], Plan]") -> "Plan":
    """The plan if it still fits, else a new one for what is free now.

    Raises:
        RefusedError: what is free changes faster than it can be planned for.
    """
    for _ in range(2):
        if still_fits(plan, detect()):
            return plan
        plan = again()
        if not plan.fits:
            return plan
    raise RefusedError("the free memory keeps changing: close what uses it, or leave more with --reserve")


def start(export: "Export") -> int:
    """Replace this process by the planned command; on Windows, where there is no such thing, wait for it.

    Raises:
        RefusedError: the export is no command.
        NotFoundError: its program is not on PATH.
    """
    if not export.argv:
        raise RefusedError("--run starts llama-server or llama-cli; write other runners' files with `fitplug export`")
    program = shutil.which(export.argv[0])
    if program is None:
        raise NotFoundError(f"{export.argv[0]} is not on PATH: install llama.cpp first")
    join = join_powershell if os.name == "nt" else join_sh
    print(join(export.argv), file=sys.stderr, flush=True)
    sys.stdout.flush()
    env = os.environ | dict(export.env)
    if os.name == "nt":
        import subprocess

        return subprocess.call(export.argv, executable=program, env=env)  # noqa: S603 - the plan's own command
    return os.execve(program, list(export.argv), env)  # noqa: S606 - as above; it never returns
