"""llama.cpp's loaders, as data: they refuse what they refuse there, and nothing else."""

import json
from dataclasses import replace

import pytest

import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.formats.header import Tensor
from fitplug.memory.estimate import Estimator
from fitplug.model.describe import describe
from fitplug.settings import Settings

ARCHITECTURES = truth.architectures()
LATENT = truth.Answers("latent")
MISSING = json.loads((truth.TRUTH / "missing.json").read_text())


def _header(name, **changed):
    return replace(truth.header(f"tiny/{name}", "F32"), **changed)


def _refused(model):
    """By its loader or, where that takes the tensor as optional, by its graph."""
    try:
        Estimator(model, truth.machine(()), truth.RUNNERS["llama-server"])(Settings(n_ctx=512))
    except RefusedError:
        return True
    return False


def _without(header, tensor):
    return replace(header, tensors={name: held for name, held in header.tensors.items() if name != tensor})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_that_llama_cpp_loads_is_not_refused(name):
    assert describe(_header(name)).refusals == ()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_file_without_a_tensor_is_refused_where_llama_cpp_refuses_it(name):
    header = _header(name)
    for tensor, answered in MISSING[name].items():
        model = describe(_without(header, tensor))
        assert (not model.refusals) if answered else _refused(model), tensor


def test_the_missing_tensor_is_named():
    header = _without(_header("llama-dense"), "blk.1.attn_k.weight")

    assert describe(header).refusals == ("the tensor blk.1.attn_k.weight is missing",)


@pytest.mark.parametrize(
    ("name", "tensor"), [("glm-dsa-moe", "blk.0.indexer.proj.weight"), ("falcon-h1-dense", "blk.0.ssm_conv1d.bias")]
)
def test_a_tensor_that_the_graph_alone_cannot_do_without_is_named(name, tensor):
    model = describe(_without(_header(name), tensor))

    with pytest.raises(RefusedError, match=f"crashes.*{tensor}"):
        Estimator(model, truth.machine(()), truth.RUNNERS["llama-server"])(Settings(n_ctx=512))


def test_a_tensor_of_another_shape_is_refused():
    header = _header("llama-dense")
    held = header.tensors["blk.0.ffn_up.weight"]
    tensors = {**header.tensors, held.name: held._replace(shape=(held.shape[0], held.shape[1] + 32))}

    (said,) = describe(replace(header, tensors=tensors)).refusals

    assert said.startswith("the tensor blk.0.ffn_up.weight has the shape ")


def test_ones_at_the_end_of_a_shape_are_no_difference():
    header = _header("llama-dense")
    held = header.tensors["output_norm.weight"]
    tensors = {**header.tensors, held.name: held._replace(shape=(*held.shape, 1, 1))}

    assert describe(replace(header, tensors=tensors)).refusals == ()


def test_a_tensor_that_nothing_asks_for_is_refused():
    header = _header("llama-dense")
    extra = Tensor("blk.0.attn_q_norm.weight", "f32", (64,), 256, 0)

    (said,) = describe(replace(header, tensors={**header.tensors, extra.name: extra})).refusals

    assert "blk.0.attn_q_norm.weight" in said


def test_heads_whose_keys_and_values_differ_are_refused_where_the_graph_asserts_that_they_do_not():
    metadata = dict(truth.header("tiny/grok-moe", "F32").metadata)
    metadata["grok.attention.value_length"] = metadata["grok.attention.key_length"] // 2
    header = _header("grok-moe", metadata=metadata)

    assert describe(header).refusals


def test_numbers_below_zero_are_more_experts_than_there_are():
    metadata = dict(truth.header("tiny/qwen3moe-moe", "F32").metadata)
    metadata["qwen3moe.expert_used_count"] = (-1,) * metadata["qwen3moe.block_count"]

    assert describe(_header("qwen3moe-moe", metadata=metadata)).refusals


@pytest.mark.parametrize("blocks", [1 << 63, 99])
def test_a_decoder_of_more_blocks_than_there_are_is_refused(blocks):
    model = next(model for name, model in LATENT.models.items() if name.startswith("t5"))
    metadata = {**model["metadata"], "t5.decoder_block_count": blocks}

    assert describe(truth.header_of(model)).refusals == ()
    assert describe(truth.header_of({**model, "metadata": metadata})).refusals
