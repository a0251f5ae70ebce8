"""What files of a repository belong together, and what a name says."""

import pytest

from fitplug.errors import NotFoundError
from fitplug.extension import Entry, Listing
from fitplug.repository.grouping import Role, candidates, quant_label, role_of, select


def listing(*paths):
    return Listing(repository="a/b", revision="main", entries=[Entry(path=path, n_bytes=i + 1) for i, path in enumerate(paths)])


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Model-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-IQ2_M/Model-UD-IQ2_M-00001-of-00002.gguf", "UD-IQ2_M"),
        ("Model.i1-Q4_K_M.gguf", "i1-Q4_K_M"),
        ("Qwen_Qwen3.5-4B-Q4_K_L.gguf", "Q4_K_L"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("model.Q4_K_M.gguf", "Q4_K_M"),
        ("Model-bf16.gguf", "BF16"),
        ("Model.gguf", ""),
    ],
)
def test_the_label_is_the_publishers(path, label):
    assert quant_label(path) == label


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("mmproj-F16.gguf", Role.PROJECTOR),
        ("imatrix_unsloth.gguf_file", Role.IMATRIX),
        ("Model-imatrix.gguf", Role.IMATRIX),
        ("MTP/mtp-Model-Q4_K_M.gguf", Role.DRAFT),
        ("eagle3-Model.gguf", Role.DRAFT),
        ("Model-lora-f16.gguf", Role.ADAPTER),
        ("Model-Q4_K_M.gguf", Role.MODEL),
    ],
)
def test_what_a_file_is_for(path, role):
    assert role_of(path) == role


def test_every_file_is_in_one_group_at_most_and_none_is_lost():
    """Splits joined, pieces joined, the rest one by one."""
    paths = [f"Q8_0/M-Q8_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3)] + ["M-Q4_K_M.gguf", "O.gguf.part1of2", "O.gguf.part2of2",
             "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "README.md"]  # fmt: skip
    found = candidates(listing(*paths))
    grouped = [entry.path for c in found for entry in c.entries]
    assert sorted(grouped) == sorted(paths[:-1])
    assert {(c.role, len(c.entries)) for c in found} == {(Role.MODEL, 3), (Role.MODEL, 1), (Role.MODEL, 2), (Role.PIECES, 2)}


def test_a_split_knows_what_it_lacks():
    """However large the count in a name is."""
    (found,) = candidates(listing("M-00001-of-00003.gguf", "M-00003-of-00003.gguf"))
    assert found.missing == ["M-00002-of-00003.gguf"]
    (hostile,) = candidates(listing("M-00001-of-99999.gguf"))
    assert 0 < len(hostile.missing) < 2000


def test_a_quant_a_path_or_the_only_one():
    """What the user writes after the colon."""
    both = listing("M-Q4_K_M.gguf", "M-Q8_0.gguf")
    assert select(both, "q8_0").label == "Q8_0"
    assert select(both, "M-Q4_K_M.gguf").label == "Q4_K_M"
    assert select(listing("M.gguf"), "").name == "M.gguf"
    for wanted in ("", "Q5_0"):
        with pytest.raises(NotFoundError, match=r"there is: Q4_K_M, Q8_0"):
            select(both, wanted)


def test_a_quant_that_could_be_made_means_the_safetensors():
    """Only where there is no such file."""
    assert select(listing("model.safetensors", "config.json"), "Q4_K_M").format == "safetensors"
    assert select(listing("model.safetensors", "M-Q4_K_M.gguf"), "Q4_K_M").format == "gguf"
    with pytest.raises(NotFoundError):
        select(listing("model.safetensors"), "Q99")


def test_a_whole_path_is_never_ambiguous():
    """A file at the top, and one of the same name in a folder: the path means the first, its folder's path the other."""
    both = listing("mmproj-F16.gguf", "old/mmproj-F16.gguf", "M-Q4_K_M.gguf")
    assert select(both, "mmproj-F16.gguf").name == "mmproj-F16.gguf"
    assert select(both, "old/mmproj-F16.gguf").name == "old/mmproj-F16.gguf"


def test_a_quant_may_stand_behind_a_checkpoint_and_not_behind_a_gguf():
    several = listing("a/model.safetensors", "b/model.safetensors", "M-Q4_K_M.gguf")
    assert select(several, "b/model.safetensors:Q6_K").name == "b"
    assert select(several, "a:q8_0").name == "a"
    with pytest.raises(NotFoundError):
        select(several, "M-Q4_K_M.gguf:Q6_K")
