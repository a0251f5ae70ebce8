"""A small real model: llama architecture, random weights, a vocabulary that can be tokenized with. It babbles, but it runs."""

import pathlib

import gguf
import numpy as np

N_VOCAB, N_EMBD, N_FF, N_LAYER, N_HEAD, N_HEAD_KV, N_CTX = 512, 256, 512, 4, 4, 2, 4096


def vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """<unk>, <s>, </s>, the 256 bytes, and pieces of text up to N_VOCAB: an SPM vocabulary."""
    special = [(b"<unk>", 0.0, 2), (b"<s>", 0.0, 3), (b"</s>", 0.0, 3)]
    every_byte = [(f"<0x{i:02X}>".encode(), 0.0, 6) for i in range(256)]
    letters = [c.encode() for c in "\u2581etaoinshrdlucmfwypvbgkjqxz.,"]
    pairs = [a + b for a in letters for b in letters]
    pieces = [(text, -float(i), 1) for i, text in enumerate((letters + pairs)[: N_VOCAB - 259])]
    tokens, scores, types = zip(*(special + every_byte + pieces), strict=True)
    return list(tokens), list(scores), list(types)


def write(path: pathlib.Path, kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0) -> None:
    """The whole file."""
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_vocab_size(N_VOCAB)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokens, scores, types = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def matrix(name: str, n_in: int, n_out: int) -> None:
        data = rng.standard_normal((n_out, n_in), dtype=np.float32) * 0.05
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(N_EMBD, dtype=np.float32))

    matrix("token_embd.weight", N_EMBD, N_VOCAB)
    for i in range(N_LAYER):
        norm(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", N_EMBD, N_EMBD)
        matrix(f"blk.{i}.attn_k.weight", N_EMBD, N_EMBD * N_HEAD_KV // N_HEAD)
        matrix(f"blk.{i}.attn_v.weight", N_EMBD, N_EMBD * N_HEAD_KV // N_HEAD)
        matrix(f"blk.{i}.attn_output.weight", N_EMBD, N_EMBD)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", N_EMBD, N_FF)
        matrix(f"blk.{i}.ffn_up.weight", N_EMBD, N_FF)
        matrix(f"blk.{i}.ffn_down.weight", N_FF, N_EMBD)
    norm("output_norm.weight")
    matrix("output.weight", N_EMBD, N_VOCAB)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
