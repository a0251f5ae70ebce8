"""`auto --run`: what is started is what fits now."""

import os
import pathlib
import subprocess
import sys
from dataclasses import replace

import pytest

from fitplug.cli import main
from fitplug.cli.running import checked, start, still_fits
from fitplug.errors import NotFoundError, RefusedError
from fitplug.extension import Export
from fitplug.memory.records import Basis, Kind, Part
from fitplug.settings import Settings
from plugins_support import GIB, machine, plan


def planned(n_bytes: int):
    made = plan(Settings(n_ctx=4096))
    part = Part("CUDA0", Kind.MODEL, n_bytes, Basis.EXACT, "weights")
    return replace(made, estimate=replace(made.estimate, parts=(part,)))


def now(free: int):
    found = machine(1)
    return replace(found, devices=(replace(found.devices[0], free_bytes=free),))


def test_a_plan_holds_only_for_memory_that_is_still_free():
    assert still_fits(planned(20 * GIB), now(23 * GIB))
    assert not still_fits(planned(20 * GIB), now(20 * GIB))
    assert not still_fits(planned(GIB), replace(machine(2)))


def test_what_no_longer_fits_is_planned_again():
    smaller = planned(4 * GIB)
    assert checked(planned(20 * GIB), lambda: now(10 * GIB), lambda: smaller) is smaller
    with pytest.raises(RefusedError, match="keeps changing"):
        checked(planned(20 * GIB), lambda: now(10 * GIB), lambda: planned(20 * GIB))
    hopeless = replace(planned(GIB), fits=False)
    assert checked(planned(20 * GIB), lambda: now(10 * GIB), lambda: hopeless) is hopeless


def test_only_commands_are_started():
    with pytest.raises(RefusedError):
        start(Export())
    with pytest.raises(NotFoundError, match="no-such-program"):
        start(Export(argv=("no-such-program",)))


@pytest.mark.skipif(os.name == "nt", reason="no process is replaced there")
def test_the_process_is_replaced_with_its_environment(tmp_path: pathlib.Path):
    program = tmp_path / "llama-server"
    program.write_text('#!/bin/sh\necho "$$ $MODEL_ENDPOINT $*"\n')
    program.chmod(0o755)
    code = (
        "from fitplug.cli.running import start; from fitplug.extension import Export;"
        "start(Export(argv=('llama-server', '-c', '5 6'), env={'MODEL_ENDPOINT': 'x'}))"
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as run:
        out, err = run.communicate()
    assert out == f"{run.pid} x -c 5 6\n"
    assert err == "llama-server -c '5 6'\n"


def test_nothing_is_started_for_another_machine(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path):
    from real import small_model

    small_model.write(tmp_path / "m.gguf")
    assert main(["auto", str(tmp_path / "m.gguf"), "--gpu", "RTX 4090", "--run"]) == 2
    assert "--gpu" in capsys.readouterr().err
