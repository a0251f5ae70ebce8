"""Projectors are held to what llama.cpp's clip reserves for them, to the byte; what nobody drew is a formula and says so."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import projector_support as projectors
from fitplug.errors import RefusedError
from fitplug.memory.clip import encoders, projector_parts, projector_type, refuse_for, warm_up_note
from fitplug.memory.clip_model import SECTIONS
from fitplug.memory.projectors.held import OWN
from fitplug.memory.projectors.required import required
from fitplug.memory.projectors.table import PROJECTORS
from fitplug.memory.projectors.width import n_mmproj_embd
from fitplug.memory.records import HOST, Basis, Kind
from fitplug.settings import Settings

ROWS = {row["name"]: row for row in projectors.rows()}
ASKED = [(row, answer) for row in projectors.rows() for answer in row["answers"]]


def _label(asked):
    row, answer = asked
    return f"{row['name']}-cc{answer['card'] or 'none'}-fa_{answer['flash_attn']}-{'gpu' if answer['offload'] else 'cpu'}"


def _compute(parts):
    found = Counter()
    for part in parts:
        if part.kind == Kind.COMPUTE:
            found[part.device] += part.n_bytes
    return dict(found)


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
    asked = {value for row in projectors.rows() for key, value in row["metadata"].items() if key.endswith("projector_type")}

    assert asked - {"qwen2.5o"} == set(OWN)
    assert set(OWN) - set(PROJECTORS) == {"qwen3tts_gen", "pockettts_gen"}  # what speaks has no graph until it does


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


def test_only_what_clip_asks_for_is_loaded():
    """Other tensors of the file, and blocks after the last, take nothing."""
    header, machine, settings = projectors.header(ROWS["smolvlm"]), projectors.machine("8.9"), Settings(mmproj="p.gguf")
    block = {name.replace("blk.0.", "blk.12."): t for name, t in header.tensors.items() if name.startswith("v.blk.0.")}
    more = {
        **block,
        "mm.7.weight": header.tensors["mm.model.fc.weight"],
        "v.patch_embd.scale": header.tensors["v.post_ln.bias"],
    }

    parts = projector_parts(replace(header, tensors={**header.tensors, **more}), machine, settings)

    assert parts == projector_parts(header, machine, settings)


@pytest.mark.parametrize("change", [
    {"clip.has_vision_encoder": False}, {"clip.projector_type": "gemma3na"},
    {"clip.has_vision_encoder": False, "clip.has_gen_audio_encoder": True},
])  # fmt: skip
def test_what_clip_does_not_load_is_refused(change):
    """A file that neither sees nor hears, and a type that it only knows by name."""
    header = projectors.header(ROWS["smolvlm"])

    with pytest.raises(RefusedError, match="llama"):
        projector_parts(replace(header, metadata={**header.metadata, **change}), projectors.machine("8.9"), Settings())


@pytest.mark.parametrize(("name", "n_embd"), [
    ("smolvlm", 960), ("llava-1.5", 4096), ("yi-vl", 4096), ("qwen3-vl-8b", 4 * 4096), ("gemma-3-4b", 2560), ("gemma-4", 2560),
    ("granite-vision-4.1", 3 * 2048), ("voxtral", 3072), ("lfm2-audio", 512), ("qwen3-tts-speaker-that-speaks", 1024),
])  # fmt: skip
def test_a_projector_of_another_model_is_refused(name, n_embd):
    """By the width of its embeddings, which clip_n_mmproj_embd tells."""
    header = projectors.header(ROWS[name])

    refuse_for(header, n_embd)
    with pytest.raises(RefusedError, match=f"{n_embd} numbers"):
        refuse_for(header, n_embd + 1)


def test_a_file_that_lacks_what_clip_asks_for_is_refused():
    """Every file that clip loads has all that it must have, and without any of that it is refused."""
    for row in ROWS.values():
        header = projectors.header(row)
        prefix = encoders(header)[0]
        keys = [SECTIONS[prefix] + key for key in required(projector_type(header, prefix), prefix)]
        assert set(keys) <= set(header.metadata), row["name"]
        for lost in keys:
            metadata = {key: value for key, value in header.metadata.items() if key != lost}
            with pytest.raises(RefusedError, match=lost):
                refuse_for(replace(header, metadata=metadata), 0)


def test_every_type_has_a_width():
    """Or the file of the fixture would be believed with any model."""
    for row in ROWS.values():
        header = projectors.header(row)
        found = [prefix for prefix in encoders(header) if prefix != "a.gen.code"]
        assert all(n_mmproj_embd(header, projector_type(header, prefix), 64) for prefix in found)


def test_what_is_counted_is_said():
    """One picture, so much sound, no speech: where more is possible, a note."""
    notes = {name: " ".join(warm_up_note(projectors.header(ROWS[name]))) for name in ROWS}

    assert notes["llava-1.5"] == ""
    assert "46 x 46 tokens" in notes["qwen2.5-omni"]
    assert "several" in notes["internvl3-8b"]
    assert "3000 frames" in notes["gemma-4-omni"]
    assert "first speaks" in notes["qwen3-tts-speaker-that-speaks"]


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
