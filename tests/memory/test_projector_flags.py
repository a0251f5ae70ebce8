"""Where a projector goes, and for how large a picture it is tried, follows the options as in llama.cpp's clip."""

import pytest

import flags_support as flags
import truth_support as truth
from fitplug.errors import RefusedError
from fitplug.memory.clip import projector_parts, warm_up_note
from fitplug.memory.records import HOST, Kind


def _label(row):
    return f"{row['projector']} {' '.join(row['args'])}"


def _parts(row):
    settings = flags.settings(["-mm", "p.gguf", *row["args"]])
    return projector_parts(flags.projector(row["projector"]), truth.machine(row["devices"]), settings)


def _sums(parts, kind):
    found = {}
    for part in parts:
        if part.kind == kind:
            found[part.device] = found.get(part.device, 0) + part.n_bytes
    return {device: n for device, n in found.items() if n}


@pytest.mark.parametrize("row", [row for row in flags.pictures() if "out" in row], ids=_label)
def test_projectors_take_what_clip_says(row):
    """Every type of projector, with --image-min-tokens and --image-max-tokens, -dev and -mmdev."""
    parts, told = _parts(row), row["out"]["buffers"]

    for kind in (Kind.MODEL, Kind.COMPUTE):
        assert _sums(parts, kind) == {HOST if name == "CPU" else name: n[kind] for name, n in told.items() if n[kind]}


@pytest.mark.parametrize("row", [row for row in flags.pictures() if "error" in row], ids=_label)
def test_pictures_that_cannot_be_are_refused(row):
    """The most tokens are fewer than the least."""
    with pytest.raises(RefusedError, match="picture"):
        _parts(row)


def test_a_note_says_for_which_picture():
    """Where the largest one is tried at the start, none takes more."""
    assert "16 x 16 tokens, which llama.cpp tries at the start; larger" in warm_up_note(flags.projector("lfm2-vl"))[0]
    assert warm_up_note(flags.projector("lfm2-vl"), 100)[0].endswith(
        "a picture of 100 tokens, which llama.cpp tries at the start"
    )
