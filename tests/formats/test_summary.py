"""Sums over the table of tensors are exact, and together they are the whole."""

from hypothesis import given
from hypothesis import strategies as st

from fitplug.formats import summary
from fitplug.formats.header import Header, Tensor


def header(*tensors: tuple[str, str, tuple[int, ...], int]) -> Header:
    return Header(
        format="gguf", metadata={}, tensors={t[0]: Tensor(*t, offset=0) for t in tensors}, n_bytes=sum(t[3] for t in tensors)
    )  # fmt: skip


MOE = header(
    ("token_embd.weight", "q8_0", (64, 100), 6800),
    ("blk.0.attn_q.weight", "q8_0", (64, 64), 4352),
    ("blk.0.ffn_up.weight", "q8_0", (64, 64), 4352),
    ("blk.1.attn_q.weight", "q8_0", (64, 64), 4352),
    ("blk.1.ffn_gate_inp.weight", "f32", (64, 4), 1024),
    ("blk.1.ffn_up_exps.weight", "q4_0", (64, 32, 4), 4608),
    ("blk.1.ffn_gate_up_exps.weight", "q4_0", (64, 32, 4), 4608),
    ("blk.1.ffn_down_exps.bias", "f32", (64, 4), 1024),
    ("blk.1.ffn_up_shexp.weight", "q8_0", (64, 32), 2176),
    ("blk.1.ffn_norm_exps.weight", "f32", (64,), 256),
    ("output.weight", "q8_0", (64, 100), 6800),
)


def test_histogram_has_most_bytes_first():
    shares = summary.by_type(MOE)

    assert [share.type for share in shares] == ["q8_0", "q4_0", "f32"]
    assert shares[0] == summary.TypeShare("q8_0", 6, 2 * 6400 + 3 * 4096 + 2048, 28832)
    assert shares[0].bits_per_weight == 8.5
    assert shares[1].bits_per_weight == 4.5


def test_layers_and_experts():
    dense, moe = summary.by_layer(MOE)

    assert dense == summary.LayerShare("blk.0", 2, 8704)
    assert (moe.name, moe.n_tensors) == ("blk.1", 7)
    assert moe.expert_bytes == ((4608 + 4608 + 1024) // 4,) * 4
    assert [t.name for t in summary.outside_layers(MOE)] == ["token_embd.weight", "output.weight"]


def test_experts_with_a_tensor_each_may_differ():
    layer = summary.by_layer(
        header(
            ("model.layers.3.mlp.experts.0.up_proj.weight", "bf16", (8, 8), 128),
            ("model.layers.3.mlp.experts.0.down_proj.weight", "bf16", (8, 8), 128),
            ("model.layers.3.mlp.experts.1.up_proj.weight", "f8_e4m3", (8, 8), 64),
            ("model.layers.3.mlp.shared_experts.up_proj.weight", "bf16", (8, 8), 128),
        )
    )

    assert layer == [summary.LayerShare("model.layers.3", 4, 448, (256, 64))]


def test_experts_stacked_in_safetensors():
    (layer,) = summary.by_layer(header(("model.layers.0.mlp.experts.gate_up_proj", "bf16", (8, 16, 4), 1024)))

    assert layer.expert_bytes == (256,) * 4


def test_old_files_with_a_tensor_for_each_expert():
    (layer,) = summary.by_layer(header(*((f"blk.0.ffn_up.{n}.weight", "f32", (2,), 8) for n in range(8))))

    assert layer.expert_bytes == (8,) * 8


def test_two_stacks_of_layers_stay_apart():
    names = ["enc.blk.0.w", "dec.blk.0.w", "v.blk.0.w", "transformer.h.0.w"]

    assert [layer.name for layer in summary.by_layer(header(*((name, "f32", (1,), 4) for name in names)))] == [
        "enc.blk.0", "dec.blk.0", "v.blk.0", "transformer.h.0"
    ]  # fmt: skip


def test_a_file_without_tensors_has_no_bits():
    assert summary.bits_per_weight(header()) == 0.0
    assert summary.bits_per_weight(header(("a", "f32", (0,), 0))) == 0.0
    assert summary.bits_per_weight(header(("a", "q8_0", (32,), 34), ("b", "f32", (32,), 128))) == 162 * 8 / 64


PARTS = st.sampled_from(["blk.0", "blk.12", "model.layers.3", "enc.blk.1", "output", "a"])
NAMES = st.builds("{}.{}".format, PARTS, st.sampled_from(["w", "ffn_up_exps.weight", "experts.1.w", "experts.up", "x.blk.1.y"]))


@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(["f32", "q8_0"]), st.integers(0, 100))))
def test_the_parts_are_the_whole(kinds):
    whole = header(*((name, kind, (n,), n * 4) for name, (kind, n) in kinds.items()))
    layers = sum(layer.n_bytes for layer in summary.by_layer(whole))

    assert layers + sum(t.n_bytes for t in summary.outside_layers(whole)) == whole.n_bytes
    assert sum(share.n_bytes for share in summary.by_type(whole)) == whole.n_bytes
    assert sum(share.n_tensors for share in summary.by_type(whole)) == len(whole.tensors)
