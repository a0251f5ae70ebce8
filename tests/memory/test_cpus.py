"""Weights lie on each kind of processor where llama.cpp puts them there, and take what they take there."""

from collections import Counter
from dataclasses import replace

import pytest

import adapter_support as adapters
import flags_support as flags
import truth_support as truth
from fitplug.formats.header import Tensor
from fitplug.machine.load import machine_from_json
from fitplug.memory.cpu_buffers import AMX, CPUS, REPACKED, cpu_buffer, cpu_bytes, cpu_of
from fitplug.memory.estimate import Estimator
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.settings import Settings

ROWS = truth.Answers("cpus").answered
EVERY = max(1, truth.EVERY // 6)
MODEL = truth.model("llama-3.1-8b", "Q4_K_M")


def _machine(devices, cpu):
    found = truth.machine(devices)
    return replace(found, host=replace(found.host, extra={"cpu": cpu} if cpu else {}))


def _estimate(row):
    estimator = Estimator(adapters.model(row), _machine(row["devices"], row["cpu"]), truth.RUNNERS[row["runner"]])
    return estimator(flags.settings(row["args"]))


@pytest.mark.parametrize("row", ROWS[::EVERY], ids=lambda row: f"{row['cpu']} {flags.label(row)}")
def test_every_byte_is_llama_cpps(row):
    """In each buffer type; and compute buffers, since no device reads what is repacked."""
    estimate = _estimate(row)
    held = Counter()
    for part in estimate.parts:
        if part.kind == Kind.MODEL:
            held[part.buffer or part.device] += part.n_bytes

    assert dict(held) == {name: n["model"] for name, n in row["out"]["buffers"].items() if n["model"]}
    for kind in (Kind.CONTEXT, Kind.COMPUTE):
        assert truth.predicted(estimate, kind) == truth.told(row, kind)


def _tensor(type_, *shape):
    return Tensor("blk.0.ffn_up.weight", type_, shape, 1, 0)


def test_what_a_processor_takes_depends_on_type_and_shape():
    """ggml_repack_get_optimal_repack_type, and supports_op of amx.cpp."""
    assert [cpu_buffer("MUL_MAT", _tensor("q2_K", 256, 8), CPUS[cpu]) for cpu in ("x86", "x86-avx512")] == [HOST, REPACKED]
    assert [cpu_buffer("MUL_MAT", _tensor("q8_0", 256, 4), CPUS[cpu]) for cpu in ("x86", "arm")] == [HOST, REPACKED]
    assert [cpu_buffer("MUL_MAT", _tensor("q8_0", 256, n), CPUS["x86-amx"]) for n in (16, 32)] == [HOST, AMX]
    assert [cpu_buffer("MUL_MAT", _tensor("q4_K", n, 32), CPUS["x86-amx"]) for n in (256, 128)] == [AMX, REPACKED]
    assert cpu_buffer("MUL_MAT_ID", _tensor("q4_K", 256, 32, 2), CPUS["x86-amx"]) == REPACKED
    assert cpu_buffer("MUL_MAT", _tensor("f16", 16, 32), CPUS["x86-amx"]) == AMX
    assert cpu_buffer("GET_ROWS", _tensor("q4_0", 256, 32), CPUS["x86-amx"]) == HOST
    assert cpu_buffer("MUL_MAT", _tensor("q4_0", 256, 32), cpu_of(_machine([], "of tomorrow"))) == HOST


def test_amx_adds_to_each_block_what_its_kernels_need():
    """get_row_size: sums of q8_0, mins of q4_K; the others are as large as in the file."""
    sizes = {type_: cpu_bytes(_tensor(type_, 256, 32), AMX) for type_ in ("q4_0", "q8_0", "q4_K", "q5_K", "q6_K", "iq4_xs")}

    assert sizes == {"q4_0": 32 * 8 * 18, "q8_0": 32 * 8 * 38, "q4_K": 32 * 148, "q5_K": 32 * 180, "q6_K": 32 * 210,
                     "iq4_xs": 32 * 138}  # fmt: skip


def test_a_machine_that_does_not_say_has_what_its_devices_come_with():
    """A Mac's processor is Arm's; others are x86 with AVX2."""
    metal = {"kind": "gpu", "backend": "metal", "total_bytes": 32 << 30, "free_bytes": 24 << 30}
    host = {"total_bytes": 32 << 30, "available_bytes": 24 << 30}
    mac = machine_from_json({"devices": [metal], "host": host})
    model = truth.model("llama-3.1-8b", "Q8_0")

    def repacked(machine):
        parts = Estimator(model, machine, truth.RUNNERS["llama-server"])(Settings(n_ctx=512, n_gpu_layers=0)).parts
        return any(part.buffer == REPACKED for part in parts)

    assert repacked(mac)
    assert not repacked(_machine([], None))
    assert repacked(_machine([], "arm"))


def test_amx_is_said_to_depend_on_the_build():
    """Its figures are llama.cpp's own where the build has it."""
    with_it, without = (Estimator(MODEL, _machine([], cpu), truth.RUNNERS["llama-server"])(Settings(n_ctx=512))
                        for cpu in ("x86-amx", "x86-avx512"))  # fmt: skip

    assert (with_it.basis(), without.basis()) == (Basis.MODELLED, Basis.EXACT)
    assert any("AMX" in note for note in with_it.notes)
    assert not any("AMX" in note for note in without.notes)


def test_every_processor_that_was_built_for_was_asked():
    assert {row["cpu"] for row in ROWS} == {name for name in CPUS if name.startswith("x86-")}
