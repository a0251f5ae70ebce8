"""DeepSeek 4's compressed caches and their compressors' states (src/llama-kv-cache-dsv4.cpp, src/models/deepseek4.cpp).

A compressor sums up every 4 tokens (CSA, with those of the block before) or every 128 (HCA) as one cell. What a batch leaves
unfinished stays in a state, one per sequence.
"""

from typing import NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.attention import mul_mat_hadamard
from fitplug.memory.graph.base import LLM_NORM_RMS
from fitplug.memory.graph.caches import KvCache
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor
from fitplug.model.records import Layer
from fitplug.units import pad

CSA_RATIO, HCA_RATIO = 4, 128
CELLS = 256


class Compressor(NamedTuple):
    """One kind of compressor."""

    name: str
    """Its weights' in the file: NAME_kv, NAME_gate, NAME_ape, NAME_norm."""
    ratio: int
    overlaps: bool
    """Sums up two blocks at a time, whose halves lie side by side in the state."""
    head: int
    """Width of a cell."""

    @property
    def n_blocks(self) -> int:
        """Blocks of one cell."""
        return 2 if self.overlaps else 1


class Indices(NamedTuple):
    """comp_input of llm_graph_input_dsv4: where the compressor reads and writes."""

    pos: Tensor
    persist_src: Tensor
    persist_dst: Tensor
    restore: tuple[Tensor, Tensor] | None
    snapshot: tuple[Tensor, Tensor] | None
    read: Tensor
    write: Tensor
    write_pos: Tensor


class State(NamedTuple):
    """Compressed keys and their scores before they are summed up."""

    kv: Tensor
    score: Tensor


class CompressedCache:
    """One compressed cache with its compressor, for all layers of its kind."""

    def __init__(self, g: GraphContext, comp: Compressor, *, is_index: bool = False) -> None:
        """Build the inputs for the reserved worst case (dsv4_build_reserve_comp_plan)."""
        self.g, self.comp = g, comp
        ratio, p = comp.ratio, g.params
        n_kv = pad(max(1, -(-p.n_ctx_seq // ratio)), CELLS)

        def mine(layer: Layer) -> bool:
            return layer.compress_ratio == ratio

        self.cache = KvCache(
            g, n_kv, layers=mine, head_k=lambda _: (comp.head, 1), n_stream=p.n_seq_max,
            rotates_always=comp.head == g.hparam("indexer_head_size"),
        )  # fmt: skip
        self.n_rows = comp.n_blocks * ratio * p.n_seq_max
        self.idx = self._indices()
        half = g.flash_attn or is_index
        self.kq_mask = ggml.new_input("f16" if half else "f32", n_kv, g.n_tokens // g.n_seqs, 1, g.n_seqs)
        self.k_rot = self.cache.build_input_k_rot()
        self._stored: dict[tuple[str, int], Tensor] = {}

    def _indices(self) -> Indices:
        g, comp, n_rs = self.g, self.comp, self.g.params.n_rs_seq
        n_blocks = g.n_tokens // comp.ratio + g.n_seqs
        n_persist = min(g.n_tokens, self.n_rows)

        def pair(n: int) -> tuple[Tensor, Tensor] | None:
            return (ggml.new_input("i32", n), ggml.new_input("i32", n)) if n_rs else None

        return Indices(
            ggml.new_input("i32", g.n_tokens), ggml.new_input("i32", n_persist), ggml.new_input("i32", n_persist),
            pair(self.n_rows), pair(self.n_rows * n_rs), ggml.new_input("i32", comp.n_blocks * comp.ratio * n_blocks),
            ggml.new_input("i64", n_blocks), ggml.new_input("i32", n_blocks),
        )  # fmt: skip

    def new_state(self, cur: Tensor, il: int) -> State:
        """What the tokens of this batch add."""
        g, name = self.g, self.comp.name
        kv = g.build_lora_mm(g.w(f"{name}_kv", il).weight, cur)
        score = g.build_lora_mm(g.w(f"{name}_gate", il).weight, cur)
        return State(kv, ggml.add(score, ggml.get_rows(g.needed(f"{name}_ape", il), self.idx.pos)))

    def compress(self, new: State, il: int) -> None:
        """Write the cells that are complete, keep what is not."""
        g, idx = self.g, self.idx
        restored = self._restored(il)
        base = State(*(ggml.view_2d(t, t.ne[0], self.n_rows, t.nb[1]) for t in restored))
        source = State(*(ggml.concat(a, b, 1) for a, b in zip(base, new, strict=True)))
        cells = self._overlapping(source) if self.comp.overlaps else self._summed(self._read(source))
        cells = g.build_norm(cells, g.w(f"{self.comp.name}_norm", il), LLM_NORM_RMS, il)
        cells = ggml.rope_ext(cells, idx.write_pos)
        if self.k_rot is not None:
            cells = mul_mat_hadamard(cells, self.k_rot)
        g.expand(self.cache.cpy_k(cells, idx.write, il))

        if idx.snapshot is not None:
            src, dst = idx.snapshot
            sources = [ggml.concat(a, b, 1) for a, b in zip(restored, new, strict=True)]
            for what, rows in zip(("kv", "score"), sources, strict=True):
                g.expand(ggml.set_rows(self._state(what, il), ggml.get_rows(rows, src), dst))
        kept = [ggml.get_rows(t, idx.persist_src) for t in new]
        for what, rows in zip(("kv", "score"), kept, strict=True):
            g.expand(ggml.set_rows(self._state(what, il), rows, idx.persist_dst))

    def _state(self, what: str, il: int) -> Tensor:
        """get_kv_all, get_score_all."""
        t = self._stored.get((what, il))
        if t is None:
            n = self.n_rows * (1 + self.g.params.n_rs_seq)
            t = self._stored[what, il] = ggml.new_tensor("f32", self.comp.n_blocks * self.comp.head, n)
            t.buffer, t.param = self.g.params.cache_buffer(il), il
        return ggml.view_2d(t, t.ne[0], t.ne[1], t.nb[1])

    def _restored(self, il: int) -> State:
        """dsv4_build_state_restore."""
        found = State(self._state("kv", il), self._state("score", il))
        if self.idx.restore is None:
            return found
        src, dst = self.idx.restore
        kv, score = (
            ggml.set_rows(self._state(what, il), ggml.get_rows(t, src), dst)
            for what, t in zip(("kv", "score"), found, strict=True)
        )
        return State(kv, score)

    def _read(self, source: State) -> State:
        """The rows of each block."""
        head, ratio, n_blocks = self.comp.head, self.comp.ratio, self.idx.write.ne[0]
        return State(*(ggml.reshape(ggml.get_rows(t, self.idx.read), head, ratio, n_blocks) for t in source))

    def _overlapping(self, source: State) -> Tensor:
        """build_overlap_compressed_kv_from_state: of the block before the first halves of its rows, of this one the second."""
        head, ratio, n_blocks = self.comp.head, self.comp.ratio, self.idx.write.ne[0]
        n_read = ratio * n_blocks
        rows = [ggml.get_rows(_with_empty_row(t), self.idx.read) for t in source]
        parts: list[Tensor] = []
        for t in rows:
            before = ggml.cont(ggml.view_2d(t, head, n_read, t.nb[1]))
            this = ggml.cont(ggml.view_2d(t, head, n_read, t.nb[1], n_read * t.nb[1] + head * t.nb[0]))
            parts.append(ggml.concat(ggml.reshape(before, head, ratio, n_blocks), ggml.reshape(this, head, ratio, n_blocks), 1))
        return self._summed(State(*parts))

    @staticmethod
    def _summed(blocks: State) -> Tensor:
        """One cell of each block: the sum weighted by the scores."""
        values, scores = (ggml.cont(ggml.permute(t, 1, 0, 2, 3)) for t in blocks)
        cells = ggml.sum_rows(ggml.mul(values, ggml.soft_max(scores)))
        return ggml.cont(ggml.permute(cells, 1, 0, 2, 3))


def _with_empty_row(t: Tensor) -> Tensor:
    """dsv4_append_zero_row."""
    return ggml.concat(t, ggml.reshape(ggml.scale(ggml.view_1d(t, t.ne[0])), t.ne[0], 1), 1)


__all__ = ["CSA_RATIO", "HCA_RATIO", "CompressedCache", "Compressor"]
