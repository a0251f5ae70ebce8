"""What tensors are called in GGUF: llama.cpp's own table, then the installed gguf package."""

import gguf
import pytest

from fitplug.conversion.names import TensorNames
from fitplug.errors import FitplugError


def test_the_table_of_the_llama_cpp_that_is_followed_comes_first():
    """Architectures that published packages do not have yet are in it."""
    names = TensorNames("llama")
    assert names.find("model.layers.17.self_attn.q_proj.weight") == "blk.17.attn_q.weight"
    assert names.find("lm_head.weight") == "output.weight"
    assert names.find("model.layers.17.nonsense.weight") is None


def test_a_newer_package_is_asked_for_what_the_table_lacks(monkeypatch):
    """A tensor that only the installed package knows, and an architecture."""
    kind = gguf.MODEL_ARCH.LLAMA
    monkeypatch.setitem(gguf.TensorNameMap.block_mappings_cfg, gguf.MODEL_TENSOR.ATTN_Q, ("model.layers.{bid}.new_q",))
    assert TensorNames("llama").find("model.layers.17.new_q.weight") == "blk.17.attn_q.weight"
    monkeypatch.setitem(gguf.MODEL_ARCH_NAMES, kind, "llama-9")
    assert TensorNames("llama-9").find("model.layers.3.mlp.up_proj.weight") == "blk.3.ffn_up.weight"


def test_an_architecture_that_neither_knows_is_one_line():
    with pytest.raises(FitplugError, match="does not know the architecture 'nobody'"):
        TensorNames("nobody")
