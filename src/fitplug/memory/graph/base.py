"""The common part of a graph under construction: weights by name, inputs, norms, products (src/llama-graph.cpp)."""

from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from typing import NamedTuple

from fitplug.errors import RefusedError
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Section
from fitplug.memory.graph.graph_weights import ABSENT, GraphWeights, Linear
from fitplug.memory.graph.layers import layer_classes, shortened
from fitplug.memory.graph.params import GraphParams
from fitplug.memory.graph.tensor import Tensor, next_serial
from fitplug.model.records import Layer

__all__ = ["ABSENT", "LLM_NORM", "LLM_NORM_GROUP", "LLM_NORM_RMS", "FusedNode", "GraphBase", "Linear"]

# llm_norm_type
LLM_NORM, LLM_NORM_RMS, LLM_NORM_GROUP = "norm", "rms", "group"


class FusedNode(NamedTuple):
    """A fused operation, and the layer whose device must be able to do it (llm_graph_fused_node)."""

    op: str
    tensor: Tensor
    il: int


class GraphBase(GraphWeights):
    """The state of `llm_graph_context` under its names, and what every block needs."""

    def __init__(self, params: GraphParams) -> None:
        """Start an empty graph."""
        super().__init__(params)
        model = params.model
        layer = model.layers[0]
        self.n_embd = model.n_embd
        self.n_layer, self.n_layer_nextn = model.n_layer, model.n_layer_nextn
        self.n_head, self.n_head_kv = layer.n_head, layer.n_head_kv
        self.n_embd_head_k, self.n_embd_head_v = layer.n_embd_head_k, layer.n_embd_head_v
        self.n_expert, self.n_expert_used = model.n_expert, layer.n_expert_used
        self.n_tokens, self.n_seqs, self.n_outputs = params.n_tokens, params.n_seqs, params.n_outputs
        self.n_seq_tokens = params.n_tokens // params.n_seqs
        self.flash_attn = params.flash_attn
        self.fused_nodes: list[FusedNode] = []
        self.taps, self.keeps_states = params.taps, params.taps.nextn == "all"
        """The latter is cparams.embeddings_nextn, not masked."""
        self.t_embd: Tensor | None = None
        self.t_logits: Tensor | None = None
        """res->t_embd, and res->t_logits where tokens may be picked from it."""
        self.inp_tokens: Tensor | None = None
        """res->t_inp_tokens, once there are embeddings."""
        self._pins = params.pins_layers

    # Numbers of the header

    def hparams(self, il: int) -> Layer:
        """The values that llama_hparams answers for layer `il`: n_head, n_ff, is_swa and so on."""
        return self.model.layers[il]

    def heads(self, il: int) -> tuple[int, int]:
        """The numbers of heads, and of those of K and V, that the graph supposes in layer `il`."""
        layer, how = self.model.layers[il], self.quirks.heads
        return layer.n_head if how == "each" else self.n_head, self.n_head_kv if how == "first" else layer.n_head_kv

    def hparam(self, name: str, default: int = 0) -> int:
        """Any other whole number of llama_hparams by its name there, such as n_lora_q or ssm_d_inner."""
        return self.model.hparam(name, default)

    def get_float(self, key: str, default: float = 0.0) -> float:
        """`{architecture}.{key}` as a number."""
        value = self.model.get(key)
        return float(value) if isinstance(value, (int, float)) else default

    def get_bool(self, key: str, default: bool = False) -> bool:
        """`{architecture}.{key}` as a truth value."""
        value = self.model.get(key)
        return bool(value) if isinstance(value, (int, float)) else default

    @cached_property
    def f_embedding_scale(self) -> float:
        """hparams.f_embedding_scale."""
        default = self.quirks.embedding_scale
        return 0.0 if default is None else self.get_float("embedding_scale", default)

    # The loop over the layers

    def layers(self, key: Callable[[int], Hashable] | None = None, n_layer: int | None = None) -> Iterator[int]:
        """`for il in range(n_layer)`, without repetitions that go on as others do (layers.py).

        A graph whose layers differ by anything besides their tensors and `hparams(il)` says so with `key`: layers with equal
        keys are equal.
        """
        tapped = self.taps.inputs
        if tapped:
            own = key
            key = lambda il: (own and own(il), il in tapped)  # noqa: E731 - what a draft asks for makes layers differ
        gf, cut = self.gf, self.params.cut
        classes = layer_classes(self.params, self.n_layer if n_layer is None else n_layer, key)
        loop = len(gf.loops)
        gf.loops.append(classes)
        for il, run in shortened([layer.shape for layer in classes] if cut.by_shape else classes, cut):
            if run is not None:
                gf.marks.append((len(gf.nodes), run))
            gf.sections.append(Section(next_serial(), loop, il, classes[il].shape))
            yield il
        gf.sections.append(Section(next_serial(), loop, -1, None))

    def tap(self, il: int, cur: Tensor) -> None:
        """res->t_layer_inp[il] = cur: kept if a draft asked for it."""
        if il in self.taps.inputs:
            cur.is_output = True

    # Nodes

    def expand(self, t: Tensor) -> None:
        """ggml_build_forward_expand(gf, t)."""
        self.gf.expand(t)

    def pin_to_cpu(self, t: Tensor) -> None:
        """ggml_backend_sched_set_tensor_backend; the measuring path forgets it."""
        self.gf.pins.append((t, -1))
        if self.params.pin:
            t.backend = len(self.params.backends) - 1

    def pin_to_layer(self, t: Tensor, il: int) -> None:
        """What llama_context::graph_get_cb does for nodes named "norm" and "l_last"."""
        if il < 0:
            return
        self.gf.pins.append((t, il))
        if self._pins:
            backend = self.params.layer_backends[il]
            if self.params.backends[backend].supports_op(t):
                t.backend = backend

    def build_lora_mm(self, w: Tensor | None, cur: Tensor, w_s: Tensor | None = None) -> Tensor:
        """llm_graph_context::build_lora_mm."""
        res = ggml.mul_mat(self.need(w), cur)
        if w_s is not None:
            res = ggml.mul(res, w_s)
        for a, b in self._adapters.get(id(w), ()):
            if a.ne[0] != cur.ne[0]:
                raise RefusedError("an adapter changes token_embd.weight, which is the output as well: llama.cpp stops there")
            res = ggml.add(res, ggml.scale(ggml.mul_mat(b, ggml.mul_mat(a, cur))))
        return res

    def proj(self, name: str, cur: Tensor, il: int = -1) -> Tensor:
        """build_lora_mm(layer.NAME, cur, layer.NAME_s), the bias left out."""
        linear = self.w(name, il)
        return self.build_lora_mm(linear.weight, cur, linear.scale)

    def plain(self, name: str, cur: Tensor, il: int = -1) -> Tensor:
        """ggml_mul_mat(layer.NAME, cur): no adapter, no scale, no bias."""
        return ggml.mul_mat(self.needed(name, il), cur)

    def build_lora_mm_id(self, w: Tensor | None, cur: Tensor, ids: Tensor, w_s: Tensor | None = None) -> Tensor:
        """llm_graph_context::build_lora_mm_id."""
        res = ggml.mul_mat_id(self.need(w), cur, ids)
        if w_s is not None:
            n_expert, n_tokens = w_s.ne[0], cur.ne[2]
            s = ggml.repeat_4d(ggml.reshape(w_s, 1, n_expert, 1), 1, n_expert, n_tokens, 1)
            res = ggml.mul(res, ggml.get_rows(s, ids))
        for a, b in self._adapters.get(id(w), ()):
            res = ggml.add(res, ggml.scale(ggml.mul_mat_id(b, ggml.mul_mat_id(a, cur, ids), ids)))
        return res

    def mm(self, linear: Linear, cur: Tensor) -> Tensor:
        """A product with its scale and, where the file has one, its bias."""
        cur = self.build_lora_mm(linear.weight, cur, linear.scale)
        return ggml.add(cur, linear.bias) if linear.bias is not None else cur

    def build_norm(self, cur: Tensor, w: Linear, kind: str, il: int = -1) -> Tensor:
        """llm_graph_context::build_norm; w("attn_norm", il) carries weight and bias, ABSENT neither."""
        if kind == LLM_NORM_RMS:
            cur = ggml.rms_norm(cur)
        elif kind == LLM_NORM:
            cur = ggml.norm(cur)
        else:
            cur = ggml.group_norm(ggml.reshape(cur, cur.ne[0], 1, cur.ne[1]))
            cur = ggml.reshape(cur, cur.ne[0], cur.ne[2])
        if w.weight is not None or w.bias is not None:
            self.pin_to_layer(cur, il)
        if w.weight is not None:
            cur = ggml.mul(cur, w.weight)
        if w.bias is not None:
            cur = ggml.add(cur, w.bias)
        return cur

    # Inputs

    def build_inp_embd(self) -> Tensor:
        """llm_graph_context::build_inp_embd: tokens and, beside them, embeddings that are given."""
        n_inp, n_embd = self.model.n_embd_inp or self.n_embd, self.n_embd
        tokens = self.inp_tokens = ggml.new_input("i32", self.n_tokens)
        embd = ggml.new_input("f32", n_inp, self.n_tokens)
        cur = ggml.get_rows(self.need(self.tok_embd, "token_embd.weight"), tokens)
        for a, b in self._adapters.get(id(self.tok_embd), ()):  # turned round, since A is looked up
            cur = ggml.add(cur, ggml.scale(ggml.mul_mat(b, ggml.get_rows(a, tokens))))
        if n_inp != n_embd:
            cur = ggml.pad(cur, n_inp - n_embd)
        self.expand(cur)
        self.expand(embd)
        if n_inp != n_embd:
            cur = ggml.view_2d(cur, n_embd, self.n_tokens, cur.nb[1])
        if self.f_embedding_scale != 0.0:
            if not ggml.is_contiguous(cur):
                cur = ggml.cont(cur)
            cur = ggml.scale(cur)
        self.expand(cur)
        return cur

    def build_inp_pos(self) -> Tensor:
        """llm_graph_context::build_inp_pos."""
        return ggml.new_input("i32", self.n_tokens * self.model.n_pos_per_embd)

    def build_inp_attn_scale(self) -> Tensor:
        """llm_graph_context::build_inp_attn_scale."""
        return ggml.new_input("f32", 1, 1, self.n_tokens)

    def build_inp_out_ids(self) -> Tensor:
        """llm_graph_context::build_inp_out_ids."""
        return ggml.new_input("i32", self.n_outputs)

    def logits(self, cur: Tensor) -> Tensor:
        """The product with model.output, which some graphs leave bare."""
        return (
            ggml.mul_mat(self.need(self.output.weight, "output.weight"), cur)
            if self.quirks.plain_output
            else self.mm(self.output, cur)
        )

    def keep_embd(self, cur: Tensor) -> None:
        """res->t_embd = cur."""
        cur.is_output = True
        self.t_embd = cur

    def build_output(self, cur: Tensor, t_embd: Tensor | None = None) -> None:
        """The end of a decoder: logits of `cur`; both are outputs of the graph."""
        self.keep_embd(cur if t_embd is None else t_embd)
        logits = self.logits(cur)
        logits.is_output = True
        self.expand(logits)
