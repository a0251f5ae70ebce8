"""What real runs on real cards printed, and what fitplug says to them."""

import importlib.util
import json
from pathlib import Path

import pytest

from fitplug.machine.backends import BACKENDS, backend
from fitplug.machine.records import Device
from fitplug.memory.graph.devices import cpu_backend

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "accuracy"
RUNS = json.loads((FOLDER / "real_logs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def logs():
    spec = importlib.util.spec_from_file_location("real_logs", FOLDER / "real_logs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("run", RUNS[::7], ids=lambda run: f"{run['backend']}-{run['model']}-{run['settings']['n_ctx']}")
def test_what_agreed_with_a_real_run_still_agrees(logs, run):
    again = logs.compare(run)
    for name in run["measured"]:
        if agreed := logs.generation_of(run, name):
            assert logs.generation_of(again, name) == agreed, name


TIMES = {
    "b7342 (per text)": "before 2026",
    "b8571": "before April 2026",
    "b8829": "before June 2026",
    "b8893": "before June 2026",
    "b9010": "before June 2026",
}
"""By the build that a log names: December 2025, March, April and May 2026."""


def times(logs, run):
    """By the rules of which times all compute buffers of a run agree."""
    said = [(run["predicted"][name], measured) for name, measured in run["measured"].items() if name.endswith("compute")]
    return [time for i, time in enumerate(logs.GENERATIONS) if all(logs.agrees(mib[i], measured) for mib, measured in said)]


def test_all_of_a_run_agrees_by_the_rules_of_its_time(logs):
    assert {run["source"].rsplit("/", 1)[-1] for run in RUNS if not times(logs, run)} == {"gritlm.md"}
    named = [run for run in RUNS if run.get("build") in TIMES]
    assert all(TIMES[run["build"]] in times(logs, run) for run in named)
    assert len(named) > 80


def test_the_documents_count_what_the_runs_say(logs):
    text = logs.LIMITS.read_text(encoding="utf-8")
    assert f"{logs.START}\n{logs.table(RUNS)}\n{logs.END}" in text


def test_weights_caches_and_states_agree_nearly_everywhere():
    """They change with no generation: those that differ are named in limits.md."""
    differ = {
        (run["backend"], run["model"], name.split(" ")[1])
        for run in RUNS
        for name, (now, *_) in run["predicted"].items()
        if not name.endswith("compute") and abs(now - sum(run["measured"][name])) > 0.005 * len(run["measured"][name]) + 1e-6
    }
    assert differ == {
        ("MTL", "gpt-oss-20b MXFP4_MOE", "model"),
        ("ROCm", "qwen3-32b Q4_K_M", "model"),
        ("CUDA", "mistral-7b", "model"),
        ("CUDA", "mistral-7b", "KV"),
    }


def test_the_mask_in_f32_is_what_the_host_held_more_before():
    """Two bytes for each token of the context and of the micro-batch, in the runs with flash attention and one sequence."""
    tried = 0
    for run in RUNS:
        asked = run["settings"]
        if run["model"].startswith("qwen35moe-122b") and asked["flash_attn"] == "on" and "CPU compute" in run["measured"]:
            now = run["predicted"]["CPU compute"][0]
            mask = 2 * asked["n_ctx"] * asked["n_ubatch"] / (1 << 20)
            assert run["measured"]["CPU compute"] == [pytest.approx(now + mask, abs=0.04)]
            tried += 1
    assert tried > 20


def test_the_cpu_computes_in_the_first_devices_pinned_memory():
    """ggml_backend_vk_host_buffer_type_get_alignment: minMemoryMapAlignment."""
    radeon, geforce = (
        backend(Device(backend="vulkan", name=name, total_bytes=1, free_bytes=1))
        for name in ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "NVIDIA GeForce RTX 3090")
    )
    assert cpu_backend([radeon, BACKENDS["cuda"]]).alignment == 4096
    assert cpu_backend([geforce]).alignment == 64
    assert cpu_backend([BACKENDS["cuda"]]).alignment == 32
    assert cpu_backend([]).alignment == 32
    assert cpu_backend([BACKENDS["metal"]]).alignment == 32
