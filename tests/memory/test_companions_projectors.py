"""Projectors are held to what llama.cpp's clip reserves for them, to the byte; what nobody drew is a formula and says so."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import projector_support as projectors
from fitplug.memory.clip import projector_parts
from fitplug.memory.clip_projectors import PROJECTORS
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.settings import Settings

ROWS = {row["name"]: row for row in projectors.rows()}
ASKED = [(row, answer) for row in projectors.rows() for answer in row["answers"]]


def _label(asked):
    row, answer = asked
    return f"{row['name']}-cc{answer['card'] or 'none'}-fa_{answer['flash_attn']}-{'gpu' if answer['offload'] else 'cpu'}"


def _compute(parts):
    return {part.device: part.n_bytes for part in parts if part.kind == Kind.COMPUTE}


@pytest.mark.parametrize("asked", ASKED, ids=map(_label, ASKED))
def test_projectors_take_what_clip_says(asked):
    """Weights and the graph of the warm-up, on several cards, on the CPU, with flash attention and without."""
    row, answer = asked
    parts = projector_parts(projectors.header(row), projectors.machine(answer["card"]), projectors.settings(answer))

    assert sum(part.n_bytes for part in parts if part.kind == Kind.MODEL) == answer["weights"]
    assert _compute(parts) == {device: n for device, n in answer["compute"].items() if n}
    assert {part.basis for part in parts} == {Basis.EXACT}


def test_every_projector_that_is_drawn_was_compared():
    """A drawing without an answer of llama.cpp's would be called exact for nothing."""
    assert {row["metadata"]["clip.projector_type"] for row in projectors.rows()} == set(PROJECTORS)


@pytest.mark.parametrize("change", [
    {"clip.projector_type": "of tomorrow"}, {"clip.vision.patch_size": 0}, {"clip.vision.block_count": 1 << 31},
    {"clip.vision.embedding_length": "wide"}, {"clip.vision.image_size": 1 << 30}, {"clip.vision.attention.head_count": 0},
])  # fmt: skip
def test_a_projector_that_cannot_be_drawn_is_modelled(change):
    """Its compute buffer is a formula's, above zero, and marked."""
    header = projectors.header(ROWS["gemma-3-4b"])
    header = replace(header, metadata={**header.metadata, **change})
    parts = projector_parts(header, projectors.machine("8.9"), Settings(mmproj="p.gguf"))

    compute = [part for part in parts if part.kind == Kind.COMPUTE]
    assert [part.basis for part in compute] == [Basis.MODELLED]
    assert all(part.n_bytes > 0 and "formula" in part.source for part in compute)


@given(st.sampled_from(sorted(ROWS)), st.data())
def test_no_missing_tensor_stops_an_answer(name, data):
    """Whatever a file lacks, there is an answer, exact or modelled."""
    header = projectors.header(ROWS[name])
    lost = data.draw(st.sampled_from(sorted(header.tensors)))
    header = replace(header, tensors={key: tensor for key, tensor in header.tensors.items() if key != lost})

    assert projector_parts(header, projectors.machine("8.9"), Settings(mmproj="p.gguf"))


def test_several_encoders_share_what_both_load():
    """A file with eyes and ears: each has its own buffers, and the patches' weights are in both."""
    seen, heard = projectors.header(ROWS["qwen2.5-vl-7b"]), projectors.header(ROWS["qwen2-audio"])
    kinds = {"clip.projector_type": "qwen2.5o"}
    both = replace(seen, metadata={**heard.metadata, **seen.metadata, **kinds}, tensors={**seen.tensors, **heard.tensors})
    settings, machine = Settings(mmproj="p.gguf"), projectors.machine("8.9")
    parts = projector_parts(both, machine, settings)
    alone = [*projector_parts(seen, machine, settings), *projector_parts(heard, machine, settings)]
    patches = sum(tensor.n_bytes for name, tensor in seen.tensors.items() if name.startswith("v.patch_embd"))

    assert sum(p.n_bytes for p in parts) == sum(p.n_bytes for p in alone) + patches


def test_no_offload_is_the_host():
    """--no-mmproj-offload leaves nothing on a GPU."""
    parts = projector_parts(
        projectors.header(ROWS["smolvlm"]), projectors.machine("8.9"), Settings(mmproj="p.gguf", mmproj_offload=False)
    )

    assert {part.device for part in parts} == {HOST}
