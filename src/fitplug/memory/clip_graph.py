"""What the graphs of projectors are written with: the counterpart of clip_graph (tools/mtmd/clip.cpp, clip-graph.h)."""

from collections.abc import Callable, Sequence

from fitplug.memory.clip_model import AUDIO_FRAMES, ClipModel
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Graph
from fitplug.memory.graph.convolutions import conv_2d, interpolate, pool_1d
from fitplug.memory.graph.tensor import Tensor, nelements, row_size

AddPosition = Callable[[Tensor], Tensor]
RMS, NORMAL = "rms", "normal"
AVERAGE_POOLED = frozenset(("qwen2a", "voxtral", "musicflamingo"))
GLU_KINDS = {"silu": "swiglu", "gelu": "geglu", "gelu_erf": "geglu_erf", "gelu_quick": "geglu_quick"}


class ClipGraph:
    """One picture, or one piece of sound, through one encoder."""

    def __init__(self, model: ClipModel, *, flash_attn: bool) -> None:
        self.model, self.flash_attn = model, flash_attn
        self.gf = Graph()
        self.n_embd = model.n_embd
        self.nx = self.ny = model.image_size
        if model.prefix == "a":
            self.nx, self.ny = AUDIO_FRAMES, model.number("num_mel_bins")
        self.n_x, self.n_y = self.nx // model.patch_size, self.ny // model.patch_size
        self.n_patches = self.n_x * self.n_y
        self.clamps = False
        """Products are clamped on both sides (clip_graph_gemma4v::build_mm)."""
        self.post_ln = (f"{model.prefix}.post_ln.weight", f"{model.prefix}.post_ln.bias")
        """The norm after the last block: model.post_ln_w and post_ln_b."""

    def build_mm(self, w: Tensor, x: Tensor) -> Tensor:
        """clip_graph::build_mm."""
        return ggml.clamp(ggml.mul_mat(w, ggml.clamp(x))) if self.clamps else ggml.mul_mat(w, x)

    def build_inp_raw(self, channels: int = 3) -> Tensor:
        """clip_graph::build_inp_raw."""
        return ggml.new_input("f32", self.nx, self.ny, channels)

    def build_inp(self) -> Tensor:
        """clip_graph::build_inp: pixels to patches, [n_embd, n_patches]."""
        inp = conv_2d(self.model.w("v.patch_embd.weight"), self.build_inp_raw(), self.model.patch_size)
        inp = ggml.cont(ggml.transpose(ggml.reshape(inp, self.n_patches, self.n_embd)))
        bias = self.model.optional("v.patch_embd.bias")
        return inp if bias is None else ggml.add(inp, bias)

    def positions(self, n: int) -> Tensor:
        """An input of `n` whole numbers."""
        return ggml.new_input("i32", n)

    def build_norm(self, cur: Tensor, w: Tensor | None, b: Tensor | None, kind: str) -> Tensor:
        """clip_graph::build_norm."""
        cur = ggml.rms_norm(cur) if kind == RMS else ggml.norm(cur)
        if w is not None:
            cur = ggml.mul(cur, w)
        return cur if b is None else ggml.add(cur, b)

    def norm(self, cur: Tensor, name: str, kind: str = NORMAL) -> Tensor:
        """The same with a weight that must be there and a bias that may be."""
        return self.build_norm(cur, self.model.w(f"{name}.weight"), self.model.optional(f"{name}.bias"), kind)

    def norm_if_any(self, cur: Tensor, name: str, kind: str) -> Tensor:
        """The same, left out where the file has no weight."""
        return self.norm(cur, name, kind) if self.model.has(f"{name}.weight") else cur

    def linear(self, cur: Tensor, name: str) -> Tensor:
        """A product and, where the file has one, its bias."""
        cur = self.build_mm(self.model.w(f"{name}.weight"), cur)
        bias = self.model.optional(f"{name}.bias")
        return cur if bias is None else ggml.add(cur, bias)

    def mlp(self, cur: Tensor, up: str, down: str, act: str = "gelu") -> Tensor:
        """build_ffn of a projector: up, activation, down."""
        return self.linear(activate(self.linear(cur, up), act), down)

    def build_ffn(self, cur: Tensor, il: int, act: str) -> Tensor:
        """clip_graph::build_ffn of a block, with a gate where it has one."""
        layer = self.model.layer
        tmp = self._with_bias(cur, il, "ffn_up")
        if layer(il, "ffn_gate.weight") is not None:
            cur = self.gated(self._with_bias(cur, il, "ffn_gate"), tmp, act)
        else:
            cur = activate(tmp, act)
        return self._with_bias(cur, il, "ffn_down")

    def gated(self, gate: Tensor, up: Tensor, act: str) -> Tensor:
        """The gated activations of clip_graph::build_ffn."""
        return ggml.glu(gate, up, "swiglu_clamp" if act == "silu" and self.model.swiglu_clamp else GLU_KINDS[act])

    def _with_bias(self, cur: Tensor, il: int, name: str) -> Tensor:
        weight, bias = self.model.layer(il, f"{name}.weight"), self.model.layer(il, f"{name}.bias")
        if weight is not None:
            cur = self.build_mm(weight, cur)
        return cur if bias is None else ggml.add(cur, bias)

    def build_attn(
        self, il: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, sinks: Tensor | None = None
    ) -> Tensor:
        """clip_graph::build_attn of a block."""
        weight, bias = self.model.layer(il, "attn_out.weight"), self.model.layer(il, "attn_out.bias")
        cur = self.attend(q, k, v, mask, sinks)
        if weight is not None:
            cur = self.build_mm(weight, cur)
        return cur if bias is None else ggml.add(cur, bias)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, sinks: Tensor | None = None) -> Tensor:
        """clip_graph::build_attn up to its output projection."""
        for t in (q, k, v):
            self.gf.expand(t)
        q, k = ggml.permute(q, 0, 2, 1, 3), ggml.permute(k, 0, 2, 1, 3)
        if self.flash_attn:
            v = ggml.permute(v, 0, 2, 1, 3)
            k, v = ggml.cast(k, "f16"), ggml.cast(v, "f16")
            cur = ggml.flash_attn_ext(q, k, v, None if mask is None else ggml.cast(mask, "f16"), sinks=sinks)
            return ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])
        v = ggml.cont(ggml.permute(v, 1, 2, 0, 3))
        kq = ggml.soft_max_ext(ggml.mul_mat(k, q), mask, sinks)
        cur = ggml.permute(ggml.mul_mat(v, kq), 0, 2, 1, 3)
        return ggml.cont(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])

    # The encoder

    def build_vit(
        self, inp: Tensor, n_pos: int, kind: str, act: str, pos_embd: Tensor | None, add_pos: AddPosition | None = None,
        masks: Sequence[Tensor | None] = (), outs: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """clip_graph::build_vit for one picture.

        `masks` are attention's, one a layer; `outs` collects what opts.callback_layer_out sees.
        """
        model = self.model
        if pos_embd is not None:
            inp = ggml.add(inp, pos_embd)
        cur = self.norm_if_any(ggml.reshape(inp, self.n_embd, n_pos), f"{model.prefix}.pre_ln", kind)
        for il in range(model.n_layer):
            attended = self._attention(cur, il, n_pos, kind, add_pos, masks[il] if masks else None)
            if outs is not None:
                outs.append(attended)
            cur = self._feed_forward(attended, il, kind, act)
        if model.kind in AVERAGE_POOLED:
            cur = ggml.cont(ggml.transpose(cur))
            cur = ggml.cont(ggml.transpose(pool_1d(cur, 2, 2)))
        weight, bias = self.post_ln
        if model.has(weight):
            cur = self.build_norm(cur, model.w(weight), model.optional(bias), kind)
        return ggml.reshape(cur, self.n_embd, cur.ne[1])

    def _attention(
        self, inp: Tensor, il: int, n_pos: int, kind: str, add_pos: AddPosition | None, mask: Tensor | None
    ) -> Tensor:
        layer = self.model.layer
        cur = self.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), kind)
        q, k, v = self._fused_qkv(cur, il, n_pos, kind) if layer(il, "attn_qkv.weight") else self._qkv(cur, il, n_pos, kind)
        if add_pos is not None:
            q, k = add_pos(q), add_pos(k)
        if self.model.kind == "gemma4v":
            v = ggml.rms_norm(v)
        cur = self.scaled(self.build_attn(il, q, k, v, mask), il, "ls1")
        cur = self._normed(cur, il, "attn_post_norm", kind)
        return ggml.add(cur, inp)

    def _feed_forward(self, inp: Tensor, il: int, kind: str, act: str) -> Tensor:
        layer = self.model.layer
        cur = self.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), kind)
        cur = self._experts(cur, il) if layer(il, "ffn_gate_exps.weight") is not None else self.build_ffn(cur, il, act)
        cur = self._normed(cur, il, "ffn_post_norm", kind)
        return self.scaled(ggml.add(inp, self.scaled(cur, il, "ls2")), il, "out_scale")

    def _experts(self, cur: Tensor, il: int) -> Tensor:
        """clip_graph::build_moe_ffn."""
        model, name, n = self.model, f"{self.model.prefix}.blk.{il}", cur.ne[1]
        experts = model.w(f"{name}.ffn_gate_exps.weight")
        n_expert, n_used = experts.ne[2], min(model.number("expert_used_count"), experts.ne[2])
        probs = ggml.sigmoid(self.build_mm(model.w(f"{name}.ffn_gate_inp.weight"), cur))
        bias = model.optional(f"{name}.exp_probs_b.weight")
        selected = ggml.top_k(probs if bias is None else ggml.add(probs, bias), n_used)
        weights = ggml.reshape(ggml.get_rows(ggml.reshape(probs, 1, n_expert, n), selected), n_used, n)
        weights = ggml.reshape(ggml.div(weights, ggml.sum_rows(weights)), 1, n_used, n)
        cur = ggml.reshape(cur, cur.ne[0], 1, n)
        gate = ggml.mul_mat_id(experts, cur, selected)
        up = ggml.mul_mat_id(model.w(f"{name}.ffn_up_exps.weight"), cur, selected)
        cur = ggml.mul_mat_id(model.w(f"{name}.ffn_down_exps.weight"), ggml.mul(ggml.silu(gate), up), selected)
        cur = ggml.mul(cur, weights)
        views = [ggml.view_2d(cur, cur.ne[0], n, cur.nb[2], i * cur.nb[1]) for i in range(n_used)]
        if n_used == 1:
            return ggml.cont(views[0])
        out = views[0]
        for view in views[1:]:
            out = ggml.add(out, view)
        return out

    def scaled(self, cur: Tensor, il: int, name: str) -> Tensor:
        """Times a number per channel, where the file has them."""
        scale = self.model.layer(il, f"{name}.weight")
        return cur if scale is None else ggml.mul(cur, scale)

    def _normed(self, cur: Tensor, il: int, name: str, kind: str) -> Tensor:
        weight = self.model.layer(il, f"{name}.weight")
        return cur if weight is None else self.build_norm(cur, weight, None, kind)

    def _fused_qkv(self, cur: Tensor, il: int, n_pos: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        n_head, d_head = self.model.n_head, self.model.d_head
        cur = self._with_bias(cur, il, "attn_qkv")
        nb, offset = cur.nb[1], row_size(cur.type, n_head * d_head)
        views = [ggml.view_4d(cur, d_head, n_head, n_pos, 1, row_size(cur.type, d_head), nb, nb * n_pos, i * offset)
                 for i in range(3)]  # fmt: skip
        return self._normed(views[0], il, "attn_q_norm", kind), self._normed(views[1], il, "attn_k_norm", kind), views[2]

    def _qkv(self, cur: Tensor, il: int, n_pos: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        q, k, v = (self._with_bias(cur, il, name) for name in ("attn_q", "attn_k", "attn_v"))
        q_norm = model.layer(il, "attn_q_norm.weight")
        per_head = q_norm is not None and q_norm.ne[0] == model.d_head
        if not per_head:
            q, k = self._normed(q, il, "attn_q_norm", kind), self._normed(k, il, "attn_k_norm", kind)
        q = ggml.reshape(q, model.d_head, model.n_head, n_pos)
        k = ggml.reshape(k, model.d_head, model.n_head_kv, n_pos)
        v = ggml.reshape(v, model.d_head, model.n_head_kv, n_pos)
        if per_head:
            q, k = self._normed(q, il, "attn_q_norm", kind), self._normed(k, il, "attn_k_norm", kind)
        return q, k, v

    # Around it

    def resize_position_embeddings(self) -> Tensor:
        """clip_graph::resize_position_embeddings."""
        pos_embd = self.model.w(f"{self.model.prefix}.position_embd.weight")
        n = int(pos_embd.ne[1] ** 0.5)
        if self.n_x == n and self.n_y == n:
            return pos_embd
        cur = ggml.permute(ggml.reshape(pos_embd, self.n_embd, n, n), 2, 0, 1, 3)
        cur = interpolate(cur, self.n_x, self.n_y, self.n_embd)
        return ggml.cont(ggml.permute(cur, 1, 2, 0, 3), self.n_embd, self.n_x * self.n_y)

    def build_patch_merge_permute(self, cur: Tensor, scale: int) -> Tensor:
        """clip_graph::build_patch_merge_permute."""
        n, width, height = cur.ne[0], self.n_x, self.n_y
        more_x, more_y = -width % scale, -height % scale
        cur = ggml.reshape(cur, n, width, height)
        if more_x or more_y:
            cur = ggml.pad(cur, 0, more_x, more_y)
            width, height = width + more_x, height + more_y
        cur = ggml.permute(ggml.reshape(cur, n * scale, width // scale, height), 0, 2, 1, 3)
        cur = ggml.cont(cur, n * scale * scale, height // scale, width // scale)
        cur = ggml.permute(cur, 0, 2, 1, 3)
        return ggml.cont(cur, cur.ne[0], cur.ne[1] * cur.ne[2])

    def build_stack(self, cur: Tensor, factor: int) -> Tensor:
        """clip_graph::build_stack."""
        if factor <= 1:
            return cur
        stride, total = self.n_embd * factor, nelements(cur)
        n = -(-total // stride)
        if n * stride > total:
            cur = ggml.pad(ggml.view_1d(cur, total), n * stride - total)
        return ggml.view_2d(cur, stride, n, row_size(cur.type, stride))


def rope_2d(pos_a: Tensor, pos_b: Tensor) -> AddPosition:
    """clip_graph::build_rope_2d: each half of a head is turned by one axis."""
    return lambda cur: ggml.rope_ext(ggml.rope_ext(cur, pos_a), pos_b)


def activate(cur: Tensor, act: str) -> Tensor:
    """An ungated activation."""
    return ggml.sqr(ggml.relu(cur)) if act == "relu_sqr" else ggml.unary(cur, act)
