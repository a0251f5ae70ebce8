"""Older files of Ollama's library: what its llama-server makes of them is what llama.cpp's converter would have written."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import truth_support as truth
from fitplug.formats.header import Header, Tensor
from fitplug.model.describe import describe
from fitplug.registry import load
from fitplug_ollama import OLDER
from fitplug_ollama.older import TRANSLATIONS, translate

Tensors = dict[str, Tensor]
Keys = dict[str, Any]


def renamed(tensors: Tensors, *parts: tuple[str, str]) -> Tensors:
    for new, old in parts:
        tensors = {name.replace(new, old): t._replace(name=name.replace(new, old)) for name, t in tensors.items()}
    return tensors


def with_rows(tensor: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    n = 1
    for length in shape:
        n *= length
    return Tensor(name, tensor.type, shape, tensor.n_bytes * n // tensor.n_elements, 0)


def vision(tensors: Tensors, *names: str) -> Tensors:
    return tensors | {
        name: Tensor(name, "f16", (64, 64), 8192, 0) for name in names or ("v.blk.0.attn_q.weight", "mm.0.weight")
    }


def gptoss(keys: Keys, tensors: Tensors) -> Tensors:
    del keys["expert_feed_forward_length"]
    return renamed(tensors, (".attn_sinks.weight", ".attn_sinks"), (".post_attention_norm.", ".ffn_norm."))


def gemma3(keys: Keys, tensors: Tensors) -> Tensors:
    keys |= {"mm.tokens_per_image": 256}
    return vision(tensors, "v.patch_embedding.weight", "mm.mm_input_projection.weight")


def mistral3(keys: Keys, tensors: Tensors) -> Tensors:
    keys["rope.scaling_beta"] = keys.pop("attention.temperature_scale")
    return vision(tensors)


def llama4(_: Keys, tensors: Tensors) -> Tensors:
    return vision(tensors)


def lfm2(keys: Keys, tensors: Tensors) -> Tensors:
    keys["feed_forward_length"] = 7
    return renamed(tensors, ("token_embd_norm.", "output_norm."))


def qwen3vl(keys: Keys, tensors: Tensors) -> Tensors:
    keys["vision.deepstack_visual_indexes"] = (5, 11, 17)
    keys.pop("n_deepstack_layers", None)
    del keys["rope.dimension_sections"]
    return vision(tensors)


def qwen35(keys: Keys, tensors: Tensors) -> Tensors:
    keys |= {"image_token_id": 1, "attention.head_count_kv": (0, keys["attention.head_count_kv"])}
    keys["rope.dimension_sections"] = keys["rope.dimension_sections"][:3]
    return vision(renamed(tensors, (".ssm_dt.bias", ".ssm_dt")))


def qwen3next(keys: Keys, tensors: Tensors) -> Tensors:
    keys["attention.head_count_kv"] = (0, keys["attention.head_count_kv"])
    return renamed(tensors, (".ssm_dt.bias", ".ssm_dt"))


def laguna(_: Keys, tensors: Tensors) -> Tensors:
    return renamed(tensors, (".attn_gate.", ".attn_g."))


def glmocr(keys: Keys, tensors: Tensors) -> Tensors:
    """Gate and up apart."""
    keys["rope.mrope_section"] = keys.pop("rope.dimension_sections")[:3]
    tensors = renamed(
        vision(tensors), (".attn_output.", ".attn_out."), (".post_attention_norm.", ".post_attn_norm."),
        (".post_ffw_norm.", ".post_ffn_norm."),
    )  # fmt: skip
    for name in [name for name in tensors if name.endswith(".ffn_up.weight")]:
        both = tensors[name]
        half = (both.shape[0], both.shape[1] // 2)
        gate = name.replace("ffn_up", "ffn_gate")
        tensors |= {name: with_rows(both, name, half), gate: with_rows(both, gate, half)}
    return tensors


CASES: list[tuple[str, str, Callable[[Keys, Tensors], Tensors], Keys]] = [
    ("gptoss", "gpt-oss-moe", gptoss, {}),
    ("gemma3", "gemma3-dense", gemma3, {}),
    ("mistral3", "mistral3-dense", mistral3, {}),
    ("llama4", "llama4-moe", llama4, {}),
    ("lfm2", "lfm2-dense", lfm2, {}),
    ("qwen3vl", "qwen3vl-dense", qwen3vl, {"rope.dimension_sections": (24, 20, 20, 0), "n_deepstack_layers": 3}),
    ("qwen3vlmoe", "qwen3vlmoe-moe", qwen3vl, {"rope.dimension_sections": (24, 20, 20, 0), "n_deepstack_layers": 3}),
    ("qwen35", "qwen35-dense", qwen35, {"rope.dimension_sections": (32, 32, 32, 0)}),
    ("qwen3next", "qwen3next-moe", qwen3next, {}),
    ("laguna", "laguna-moe", laguna, {}),
    ("glmocr", "glm4-dense", glmocr, {"rope.dimension_sections": (32, 32, 32, 0)}),
    ("olmo3", "olmo2-dense", lambda _, tensors: tensors, {}),
]


def split(header: Header) -> tuple[str, Keys, Keys]:
    """(architecture, its keys without it, the others)."""
    name = str(header.metadata["general.architecture"])
    own = {key[len(name) + 1 :]: value for key, value in header.metadata.items() if key.startswith(f"{name}.")}
    return name, own, {key: value for key, value in header.metadata.items() if not key.startswith(f"{name}.")}


def joined(header: Header, name: str, own: Keys, others: Keys, tensors: Tensors) -> Header:
    metadata = others | {f"{name}.{key}": value for key, value in own.items()} | {"general.architecture": name}
    return replace(header, metadata=metadata, tensors=tensors)


def changed(old: str, model: str, undo: Callable[[Keys, Tensors], Tensors], sets: Keys) -> tuple[Header, Header]:
    """(As llama.cpp's converter writes it, as Ollama's did)."""
    first = truth.header(f"tiny/{model}", "F32")
    name, own, others = split(first)
    header = joined(first, name, own | sets, others, dict(first.tensors))
    keys = dict(own | sets)
    tensors = undo(keys, dict(header.tensors))
    return header, joined(header, old, keys, others, tensors)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_what_ollamas_converter_wrote_becomes_what_llama_cpps_writes(case: Any) -> None:
    header, older = changed(*case)
    found = translate(older)
    name, own, others = split(header)
    its_name, its_own, its_others = split(found)
    assert (its_name, its_others) == (name, others)
    assert {key: its_own[key] for key in own} == own
    assert {t.name: t._replace(offset=0) for t in found.tensors.values()} == {
        t.name: t._replace(offset=0) for t in header.tensors.values()
    }
    assert describe(found).layers == describe(header).layers


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in OLDER], ids=lambda case: case[0])
def test_llama_cpps_own_files_are_left_as_they_are(case: Any) -> None:
    header = truth.header(f"tiny/{case[1]}", "F32")
    assert translate(header) is header


def test_the_projector_in_the_file_is_said_and_not_counted_as_weights() -> None:
    header, older = changed("gemma3", "gemma3-dense", gemma3, {})
    model = describe(older, [item.record for item in load().architectures])
    assert model.known
    assert model.n_bytes == describe(header).n_bytes
    assert any("16.0 KiB" in assumption and "not counted" in assumption for assumption in model.assumptions)


def test_every_translation_is_asked_for() -> None:
    assert set(OLDER) == set(TRANSLATIONS)


def test_embedding_gemma_is_told_by_its_dense_layers() -> None:
    first = truth.header("tiny/gemma3-dense", "F32")
    dense = {name: Tensor(name, "f32", shape, 4, 0) for name, shape in
             (("dense.0.weight", (768, 3072)), ("dense.1.weight", (3072, 768)), ("norm.weight", (768,)))}  # fmt: skip
    found = translate(replace(first, tensors={**first.tensors, **dense}))
    assert found.metadata["general.architecture"] == "gemma-embedding"
    assert {"dense_2.weight", "dense_3.weight"} < set(found.tensors)
    assert found.metadata["gemma-embedding.dense_2_feat_out"] == 3072


def test_glm_flash_is_deepseeks_latent_attention() -> None:
    keys = {"attention.head_count_kv": 20, "attention.key_length": 256, "attention.value_length": 256,
            "attention.kv_lora_rank": 512, "rope.dimension_count": 64}  # fmt: skip
    header = Header(
        format="gguf", n_bytes=0, tensors={},
        metadata={"general.architecture": "glm4moelite", **{f"glm4moelite.{key}": value for key, value in keys.items()}},
    )  # fmt: skip
    name, own, _ = split(translate(header))
    assert name == "deepseek2"
    assert own["attention.head_count_kv"] == 1
    assert (own["attention.key_length"], own["attention.value_length"]) == (576, 512)
    assert (own["attention.key_length_mla"], own["attention.value_length_mla"]) == (256, 256)


def test_gemma_4s_experts_become_one_tensor_where_they_have_no_scales() -> None:
    names = ("blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight")
    tensors = {name: Tensor(name, "q4_K", (256, 128, 4), 73728, 0) for name in names}
    tensors |= {"blk.1.ffn_up_exps.scale": Tensor("blk.1.ffn_up_exps.scale", "f32", (4,), 16, 0)}
    header = Header(format="gguf", n_bytes=0, tensors=vision(tensors), metadata={"general.architecture": "gemma4"})
    found = translate(header).tensors
    assert found["blk.0.ffn_gate_up_exps.weight"].shape == (256, 256, 4)
    assert found["blk.0.ffn_gate_up_exps.weight"].n_bytes == 2 * 73728
    assert set(found) == {"blk.0.ffn_gate_up_exps.weight", *names[2:], "blk.1.ffn_up_exps.scale"}


def test_blocks_for_drafting_that_were_stored_apart_follow_the_others() -> None:
    experts = {f"mtp.layers.0.mlp.experts.{i}.{part}_proj.weight": (256, 128) for i in range(4) for part in ("gate", "up")}
    shapes = {"blk.0.attn_norm.weight": (256,), "blk.1.attn_norm.weight": (256,), "mtp.layers.0.attn_norm.weight": (256,),
              "mtp.fc.weight": (512, 256), "mtp.unknown.weight": (1,), **experts}  # fmt: skip
    tensors = {name: Tensor(name, "f16", shape, 2 * shape[0] * (shape[1] if len(shape) > 1 else 1), 0)
               for name, shape in shapes.items()}  # fmt: skip
    header = Header(format="gguf", n_bytes=0, tensors=tensors, metadata={"general.architecture": "qwen35moe"})
    found = translate(header)
    assert found.metadata["qwen35moe.block_count"] == 3
    assert found.metadata["qwen35moe.nextn_predict_layers"] == 1
    assert found.tensors["blk.2.ffn_gate_exps.weight"].shape == (256, 128, 4)
    assert found.tensors["blk.2.attn_norm.weight"].n_bytes == 4 * 256
    assert found.tensors["blk.2.nextn.eh_proj.weight"].shape == (512, 256)
    assert not any(name.startswith("mtp.") for name in found.tensors)
