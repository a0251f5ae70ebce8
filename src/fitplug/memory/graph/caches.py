"""The memories as a graph sees them: views of the whole cache, rows written into it (src/llama-kv-cache.cpp)."""

from collections.abc import Callable

from fitplug.memory.cache import cells_of
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import GraphBase
from fitplug.memory.graph.errors import ShapesAbortError
from fitplug.memory.graph.params import GraphParams, LentCells
from fitplug.memory.graph.tensor import Tensor, is_quantized
from fitplug.model.records import Layer

SMALLEST_ROTATION = 64


def _all(_: Layer) -> bool:
    return True


class KvCache:
    """`llama_kv_cache_context` of a full cache: `n_kv` is all cells, `n_stream` all streams."""

    def __init__(
        self,
        g: GraphBase,
        n_kv: int,
        *,
        layers: Callable[[Layer], bool] = _all,
        head_k: Callable[[int], tuple[int, int]] | None = None,
        rotates_always: bool = False,
        n_stream: int | None = None,
    ) -> None:
        """`layers` is the memory's filter; `head_k(il)` answers (width of a head, heads) of K where not the layer's own."""
        self.g = g
        self.n_kv = n_kv
        self.n_stream = g.params.n_stream if n_stream is None else n_stream
        self.v_trans = g.params.v_trans
        self._head_k = head_k
        self._stored: dict[tuple[str, int], Tensor] = {}
        self._rotates_always = rotates_always
        self._layers = [layer for layer in g.model.layers if layer.has_kv and layers(layer)]
        self.n_embd_v_gqa_max = max(layer.n_embd_v_gqa for layer in g.model.layers)

    def head_k(self, il: int) -> tuple[int, int]:
        """Width and number of K's heads."""
        if self._head_k is not None:
            return self._head_k(il)
        layer = self.g.hparams(il)
        return layer.n_embd_head_k, layer.n_head_kv

    def k(self, il: int) -> Tensor:
        """The whole of K: get_k_storage."""
        width, heads = self.head_k(il)
        return self._storage("k", il, self.g.params.type_k, width * heads)

    def v(self, il: int) -> Tensor:
        """The whole of V; transposed, all layers are as wide as the widest."""
        width = self.n_embd_v_gqa_max if self.v_trans else self.g.hparams(il).n_embd_v_gqa
        return self._storage("v", il, self.g.params.type_v, width)

    def _storage(self, what: str, il: int, type_: str, width: int) -> Tensor:
        t = self._stored.get((what, il))
        if t is None:
            t = self._stored[what, il] = ggml.new_tensor(type_, width, self.n_kv, self.n_stream)
            t.param = cells_of(self.g.model.layers, il)
            t.buffer = self.g.params.cache_buffer(t.param)
        return t

    def get_k(self, il: int) -> Tensor:
        """llama_kv_cache::get_k."""
        width, heads = self.head_k(il)
        k = self.k(il)
        row = k.nb[1]
        return ggml.view_4d(k, width, heads, self.n_kv, self.n_stream, ggml.row_size(k.type, width), row, row * self.n_kv)

    def get_v(self, il: int) -> Tensor:
        """llama_kv_cache::get_v."""
        layer = self.g.hparams(il)
        v, n_kv, width, heads = self.v(il), self.n_kv, layer.n_embd_head_v, layer.n_head_kv
        if not self.v_trans:
            row = v.nb[1]
            return ggml.view_4d(v, width, heads, n_kv, self.n_stream, ggml.row_size(v.type, width), row, row * n_kv)
        size = ggml.row_size
        return ggml.view_4d(
            v, n_kv, heads, width, self.n_stream,
            size(v.type, n_kv * width), size(v.type, n_kv), size(v.type, n_kv * v.ne[0]),
        )  # fmt: skip

    def cpy_k(self, k_cur: Tensor, k_idxs: Tensor, il: int) -> Tensor:
        """llama_kv_cache::cpy_k."""
        n_embd_gqa = k_cur.ne[0] * k_cur.ne[1]
        return ggml.set_rows(self._merged(self.k(il)), ggml.view_2d(k_cur, n_embd_gqa, k_cur.ne[2], k_cur.nb[2]), k_idxs)

    def cpy_v(self, v_cur: Tensor, v_idxs: Tensor, il: int) -> Tensor:
        """llama_kv_cache::cpy_v."""
        v = self.v(il)
        n_embd_gqa, n_tokens = v_cur.ne[0] * v_cur.ne[1], v_cur.ne[2]
        if not self.v_trans:
            return ggml.set_rows(self._merged(v), ggml.view_2d(v_cur, n_embd_gqa, n_tokens, v_cur.nb[2]), v_idxs)
        if ggml.row_size(v_cur.type, n_embd_gqa) == v_cur.nb[2]:
            v_cur = ggml.reshape(v_cur, n_embd_gqa, n_tokens)
        else:
            v_cur = ggml.cont(v_cur, n_embd_gqa, n_tokens)
        if n_embd_gqa < v.ne[0]:
            v_cur = ggml.pad(v_cur, v.ne[0] - n_embd_gqa)
        v = ggml.reshape(v, 1, ggml.nelements(v))
        return ggml.set_rows(v, ggml.reshape(v_cur, 1, ggml.nelements(v_cur)), v_idxs)

    def _merged(self, t: Tensor) -> Tensor:
        """All streams in one, since row numbers are global."""
        return ggml.reshape(t, t.ne[0], self.n_kv * self.n_stream) if self.n_stream > 1 else t

    def build_input_k_idxs(self) -> Tensor:
        """llama_kv_cache::build_input_k_idxs."""
        return ggml.new_input("i64", self.g.n_tokens)

    def build_input_v_idxs(self) -> Tensor:
        """llama_kv_cache::build_input_v_idxs: one row number for each element if V lies transposed."""
        return ggml.new_input("i64", self.g.n_tokens * (self.n_embd_v_gqa_max if self.v_trans else 1))

    def build_input_k_rot(self) -> Tensor | None:
        """llama_kv_cache::build_input_k_rot: the largest Hadamard matrix from 64 up that divides the heads."""
        widths = {self.head_k(layer.il)[0] for layer in self._layers}
        n = k_rotation(widths, self.head_k(0)[0], self.g.params.type_k, always=self._rotates_always)
        return ggml.new_input("f32", n, n) if n else None

    def build_input_v_rot(self) -> Tensor | None:
        """llama_kv_cache::build_input_v_rot: always the smallest."""
        widths = set() if self.g.model.is_mla else {layer.n_embd_head_v for layer in self._layers}
        n = v_rotation(widths, self.g.n_embd_head_v, self.g.params.type_v)
        return ggml.new_input("f32", n, n) if n else None


class LentCache(KvCache):
    """The cells of one layer of a target, which all layers of this kind of a draft read (`share` of llama_kv_cache)."""

    def __init__(self, g: GraphBase, cells: LentCells) -> None:
        """As long as the target's; nothing is written."""
        super().__init__(g, cells.k.shape[1], n_stream=cells.k.shape[2])
        self.cells = cells

    def k(self, il: int) -> Tensor:  # noqa: ARG002 - one for all
        """The target's K."""
        return self.g.weight_in(*self.cells.k)

    def v(self, il: int) -> Tensor:  # noqa: ARG002 - as above
        """The target's V."""
        return self.g.weight_in(*self.cells.v)

    def build_input_k_rot(self) -> Tensor | None:
        """The target's."""
        n = self.cells.k_rot
        return ggml.new_input("f32", n, n) if n else None

    def build_input_v_rot(self) -> Tensor | None:
        """The target's."""
        n = self.cells.v_rot
        return ggml.new_input("f32", n, n) if n else None


def k_rotation(widths: set[int], first: int, type_: str, *, always: bool = False) -> int:
    """Size of the Hadamard matrix for keys (attn_rot_k): the largest from 64 up that divides the heads; 0: none.

    Args:
        widths: of the heads of the cache's layers.
        first: hparams.n_embd_head_k().
        type_: of the cells.
        always: whatever the type.
    """
    head = next(iter(widths)) if len(widths) == 1 else -1
    rotated = head > 0 and is_quantized(type_) and first % SMALLEST_ROTATION == 0
    if not rotated and not always:
        return 0
    if not widths:
        raise ShapesAbortError("llama.cpp divides by zero where a cache whose heads are turned has no layers")
    n = SMALLEST_ROTATION
    while head % (n * 2) == 0:
        n *= 2
    return n


def v_rotation(widths: set[int], first: int, type_: str) -> int:
    """The same for values (attn_rot_v): always the smallest."""
    return SMALLEST_ROTATION if len(widths) == 1 and is_quantized(type_) and first % SMALLEST_ROTATION == 0 else 0


class RecurrentState:
    """`llama_memory_recurrent_context` of a full memory: one row a sequence."""

    def __init__(self, params: GraphParams) -> None:
        """States of all layers that have one. Not made of a graph, which holds it: together they would be a cycle."""
        self.params = params
        self.n_rs = max(1, params.n_seq_max)
        self.n_rows = self.n_rs * (1 + params.n_rs_seq)
        self._stored: dict[tuple[str, int], Tensor] = {}

    def get_r_l(self, il: int) -> Tensor:
        """The convolution's state."""
        return self._storage("r", il, self.params.model.layers[il].n_embd_r)

    def get_s_l(self, il: int) -> Tensor:
        """The mixer's state."""
        return self._storage("s", il, self.params.model.layers[il].n_embd_s)

    def get_p_l(self, il: int) -> Tensor:
        """The convolution history of per-layer embeddings."""
        return self._storage("p", il, self.params.model.layers[il].n_embd_ple)

    def _storage(self, what: str, il: int, width: int) -> Tensor:
        t = self._stored.get((what, il))
        if t is None:
            t = self._stored[what, il] = ggml.new_tensor("f32", width, self.n_rows)
            t.buffer, t.param = self.params.cache_buffer(il), il
        return t
