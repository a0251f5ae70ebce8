"""fitplug_ollama: a Modelfile says what the plan says, or refuses to."""

import re
from dataclasses import replace
from typing import Any

import pytest

from fitplug.errors import NotFoundError, RefusedError
from fitplug.extension import Export
from fitplug.formats.header import Header, Tensor
from fitplug.machine.records import Device
from fitplug.model.describe import describe
from fitplug.registry import load
from fitplug.settings import Settings
from fitplug_ollama.export import default_name, render
from fitplug_ollama.modelfile import parse
from fitplug_ollama.older import translate
from fitplug_ollama.placement import chosen
from planner_support import make_model
from plugins_support import plan, request

GIB = 1 << 30


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # the discard port: nobody listens


def commands(made: Export) -> dict[str, str]:
    return dict(parse(made.files[0].text))


def test_the_plan_is_all_there():
    made = render(plan(Settings(n_ctx=16384, n_batch=512, type_k="q8_0", type_v="q8_0")), request(version="0.33.0"))
    assert commands(made) == {"model": "/models/m.gguf", "num_ctx": "16384", "num_batch": "512", "num_gpu": "33"}
    assert dict(made.env) == {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_NUM_PARALLEL": "1"}
    assert made.cannot_express == ()
    assert made.commands[0] == ("ollama", "create", "m", "-f", "Modelfile")
    assert not made.notes


def test_the_context_is_told_for_one_sequence():
    made = render(plan(Settings(n_ctx=32768, n_batch=512, n_seq_max=4)), request())
    assert commands(made)["num_ctx"] == "8192"
    assert made.env["OLLAMA_NUM_PARALLEL"] == "4"
    assert made.expected["context_length"] == 8192


def test_a_machine_without_gpu_offloads_nothing():
    assert commands(render(plan(Settings(n_ctx=4096, n_batch=512), n_gpus=0), request()))["num_gpu"] == "0"


def test_two_batches_become_one_and_that_is_said():
    made = render(plan(Settings(n_ctx=4096, n_batch=2048, n_ubatch=256)), request())
    assert commands(made)["num_batch"] == "256"
    assert made.cannot_express == ("n_batch",)


def test_experts_on_the_cpu_have_no_place():
    made = render(plan(Settings(n_ctx=4096, n_batch=512, n_cpu_moe=8)), request())
    assert made.cannot_express == ("n_cpu_moe",)
    assert any("experts" in note for note in made.notes)


def test_two_cache_types_need_other_variables():
    env = render(plan(Settings(n_ctx=4096, n_batch=512, type_k="q8_0", type_v="q4_0")), request()).env
    assert "OLLAMA_KV_CACHE_TYPE" not in env
    assert env["LLAMA_ARG_CACHE_TYPE_V"] == "q4_0"


def test_one_chosen_gpu_is_named():
    made = render(plan(Settings(n_ctx=4096, n_batch=512, split_mode="none", main_gpu=1), n_gpus=2), request())
    assert commands(made)["main_gpu"] == "1"
    assert "OLLAMA_SCHED_SPREAD" not in made.env


def test_a_plan_over_two_gpus_is_not_packed_onto_one():
    """By Ollama's own formula one card would do, so it must be told to spread."""
    made = render(plan(Settings(n_ctx=4096, n_batch=512), n_gpus=2, get=lambda key, default=None: 8), request())
    assert made.env["OLLAMA_SCHED_SPREAD"] == "1"


@pytest.mark.parametrize("mode", ["row", "tensor"])
def test_other_splits_are_refused(mode: Any):
    with pytest.raises(RefusedError, match=mode):
        render(plan(Settings(n_ctx=4096, split_mode=mode)), request())


def test_tensors_that_ollama_create_refuses_are_refused_here():
    made = plan(Settings(n_ctx=4096))
    made.model.header.tensors["x"] = Tensor(name="x", type="tq2_0", shape=(256,), n_bytes=66, offset=0)
    made.model.header.format = "gguf"
    with pytest.raises(RefusedError, match="tq2_0"):
        render(made, request())


def test_every_shard_is_named():
    made = plan(Settings(n_ctx=4096, n_batch=512))
    made.model.header.shards = ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    found = parse(render(made, request("/m/big-00001-of-00002.gguf")).files[0].text)
    assert [c.value for c in found if c.name == "model"] == ["/m/big-00001-of-00002.gguf", "/m/big-00002-of-00002.gguf"]


def test_models_that_ollama_knows_are_named_and_never_replaced():
    wanted = replace(request(), model_reference="ollama:llama3.2:3b", model_path="ollama:llama3.2:3b")
    made = render(plan(Settings(n_ctx=4096, n_batch=512)), wanted)
    assert commands(made)["model"] == "llama3.2:3b"
    assert made.commands[0][2] == "llama3.2-3b-fit"


def test_hubs_are_named_as_their_registries():
    wanted = replace(request(), model_reference="modelscope:Qwen/Qwen3-8B-GGUF:Q4_K_M")
    made = render(plan(Settings(n_ctx=4096, n_batch=512)), wanted)
    assert commands(made)["model"] == "modelscope.cn/Qwen/Qwen3-8B-GGUF:Q4_K_M"


def test_wishes_are_written_and_checked():
    made = render(plan(Settings(n_ctx=4096)), request(system='Say "hi"\nand stop.', temperature="0.5", name="mine:1"))
    assert commands(made)["system"] == 'Say "hi"\nand stop.'
    assert commands(made)["temperature"] == "0.5"
    assert made.commands[0][2] == "mine:1"
    for wish in ({"num_ctx": "1"}, {"colour": "red"}, {"top_k": "1.5"}, {"system": "a\u200d"}, {"name": "../x"}):
        with pytest.raises((RefusedError, NotFoundError)):
            render(plan(Settings(n_ctx=4096)), request(**wish))


def test_an_older_version_is_warned_about():
    made = render(plan(Settings(n_ctx=4096, type_k="q4_1", type_v="q4_1")), request(version="0.24.0"))
    assert any("0.30" in note for note in made.notes)
    assert any("q4_0" in note for note in made.notes)


def test_the_default_name_says_what_the_file_is_called():
    made = plan(Settings())
    made.model.header.shards = ("Qwen3 8B (final).Q4_K_M.gguf",)
    assert default_name(made, request()) == "qwen3-8b-final-.q4_k_m"


def gpu(free: int, kind: Any = "gpu", backend: str = "cuda") -> Device:
    return Device(kind=kind, backend=backend, total_bytes=free, free_bytes=free)


def test_one_gpu_is_enough_at_four_fifths():
    two = (gpu(10 * GIB), gpu(20 * GIB))
    assert chosen(two, 8 * GIB, 0) == (1,)
    assert chosen(two, 16 * GIB, 0) == (1,)
    assert chosen(two, 16 * GIB + 1, 0) == (0, 1)
    assert chosen(two, 8 * GIB, 0, spread=True) == (0, 1)
    assert chosen((), 1, 0) == ()


def test_libraries_are_never_mixed_and_dedicated_ones_win():
    mixed = (gpu(8 * GIB, "igpu", "vulkan"), gpu(12 * GIB), gpu(12 * GIB), gpu(16 * GIB, backend="rocm"))
    assert chosen(mixed, 40 * GIB, 64 * GIB) == (1, 2)
    assert chosen((gpu(64 * GIB, "igpu"), gpu(8 * GIB)), 4 * GIB, 64 * GIB) == (1,)


def older_header(architecture: str, metadata: Any = ()) -> Header:
    """A model's header under the name that Ollama's own converter gave its architecture."""
    ours = make_model(n_layer=4, n_embd=256, n_ff=512, n_vocab=512, n_expert=8, arch="llama").header
    keys = {re.sub("^llama", architecture, key): value for key, value in ours.metadata.items()}
    return replace(ours, metadata=keys | {"general.architecture": architecture} | dict(metadata), tensors=dict(ours.tensors))


def test_gpt_oss_is_read_as_llama_cpp_calls_it():
    header = older_header("gptoss", {"gptoss.attention.sliding_window": 128})
    header.tensors["blk.0.attn_sinks"] = Tensor("blk.0.attn_sinks", "f32", (64,), 256, 0)
    found = translate(header)
    assert "blk.0.attn_sinks.weight" in found.tensors
    assert "blk.3.post_attention_norm.weight" in found.tensors
    assert not any(name.endswith("ffn_norm.weight") for name in found.tensors)
    assert found.metadata["gpt-oss.expert_feed_forward_length"] == 512
    assert not any(key.startswith("gptoss.") for key in found.metadata)
    model = describe(header, [item.record for item in load().architectures])
    assert model.architecture == "gpt-oss"
    assert model.known
    assert model.n_layer_all == 4


def test_a_projector_inside_the_file_is_no_weight_of_the_text_model():
    header = older_header("qwen25vl", {"qwen25vl.rope.mrope_section": (16, 24, 24)})
    header.tensors["v.blk.0.attn_q.weight"] = Tensor("v.blk.0.attn_q.weight", "f16", (64, 64), 8192, 0)
    found = translate(header)
    assert "v.blk.0.attn_q.weight" not in found.tensors
    assert found.metadata["qwen2vl.rope.dimension_sections"] == (16, 24, 24, 0)
    assert found.metadata["general.architecture"] == "qwen2vl"


def test_other_headers_are_left_as_they_are():
    header = older_header("llama")
    assert translate(header) is header
