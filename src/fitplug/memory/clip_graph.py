"""What the graphs of projectors are written with: the counterpart of clip_graph (tools/mtmd/clip.cpp, clip-graph.h)."""

from collections.abc import Callable

from fitplug.memory.clip_model import AUDIO_FRAMES, ClipModel
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.build import Graph
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
            cur = ggml.glu(self._with_bias(cur, il, "ffn_gate"), tmp, GLU_KINDS[act])
        else:
            cur = activate(tmp, act)
        return self._with_bias(cur, il, "ffn_down")

    def _with_bias(self, cur: Tensor, il: int, name: str) -> Tensor:
        weight, bias = self.model.layer(il, f"{name}.weight"), self.model.layer(il, f"{name}.bias")
        if weight is not None:
            cur = self.build_mm(weight, cur)
        return cur if bias is None else ggml.add(cur, bias)

    def build_attn(self, il: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """clip_graph::build_attn of a block."""
        weight, bias = self.model.layer(il, "attn_out.weight"), self.model.layer(il, "attn_out.bias")
        cur = self.attend(q, k, v, mask)
        if weight is not None:
            cur = self.build_mm(weight, cur)
        return cur if bias is None else ggml.add(cur, bias)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """clip_graph::build_attn up to its output projection."""
        for t in (q, k, v):
            self.gf.expand(t)
        q, k = ggml.permute(q, 0, 2, 1, 3), ggml.permute(k, 0, 2, 1, 3)
        if self.flash_attn:
            v = ggml.permute(v, 0, 2, 1, 3)
            k, v = ggml.cast(k, "f16"), ggml.cast(v, "f16")
            cur = ggml.flash_attn_ext(q, k, v, None if mask is None else ggml.cast(mask, "f16"))
            return ggml.reshape(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])
        v = ggml.cont(ggml.permute(v, 1, 2, 0, 3))
        kq = ggml.soft_max_ext(ggml.mul_mat(k, q), mask)
        cur = ggml.permute(ggml.mul_mat(v, kq), 0, 2, 1, 3)
        return ggml.cont(cur, cur.ne[0] * cur.ne[1], cur.ne[2] * cur.ne[3])

    # The encoder

    def build_vit(
        self, inp: Tensor, n_pos: int, kind: str, act: str, pos_embd: Tensor | None, add_pos: AddPosition | None = None
    ) -> Tensor:
        """clip_graph::build_vit for one picture."""
        model = self.model
        if pos_embd is not None:
            inp = ggml.add(inp, pos_embd)
        cur = self.norm_if_any(ggml.reshape(inp, self.n_embd, n_pos), f"{model.prefix}.pre_ln", kind)
        for il in range(model.n_layer):
            cur = self._block(cur, il, n_pos, kind, act, add_pos)
        if model.kind in AVERAGE_POOLED:
            cur = ggml.cont(ggml.transpose(cur))
            cur = Tensor("POOL_1D", "f32", (cur.ne[0] // 2, cur.ne[1], cur.ne[2], cur.ne[3]), [cur])
            cur = ggml.cont(ggml.transpose(cur))
        cur = self.norm_if_any(cur, f"{model.prefix}.post_ln", kind)
        return ggml.reshape(cur, self.n_embd, cur.ne[1])

    def _block(self, inp: Tensor, il: int, n_pos: int, kind: str, act: str, add_pos: AddPosition | None) -> Tensor:
        layer = self.model.layer
        cur = self.build_norm(inp, layer(il, "ln1.weight"), layer(il, "ln1.bias"), kind)
        q, k, v = self._fused_qkv(cur, il, n_pos, kind) if layer(il, "attn_qkv.weight") else self._qkv(cur, il, n_pos, kind)
        if add_pos is not None:
            q, k = add_pos(q), add_pos(k)
        if self.model.kind == "gemma4v":
            v = ggml.rms_norm(v)
        cur = self._scaled(self.build_attn(il, q, k, v), il, "ls1")
        cur = self._normed(cur, il, "attn_post_norm", kind)
        inp = ggml.add(cur, inp)
        cur = self.build_norm(inp, layer(il, "ln2.weight"), layer(il, "ln2.bias"), kind)
        cur = self._normed(self.build_ffn(cur, il, act), il, "ffn_post_norm", kind)
        return self._scaled(ggml.add(inp, self._scaled(cur, il, "ls2")), il, "out_scale")

    def _scaled(self, cur: Tensor, il: int, name: str) -> Tensor:
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
        cur = Tensor("UPSCALE", "f32", (self.n_x, self.n_y, self.n_embd, 1), [cur])
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


def im2col_2d(a: Tensor, b: Tensor, stride: int, type: str, pad: int = 0) -> Tensor:  # noqa: A002 - ggml's own name for it
    """ggml_im2col in two dimensions."""
    width, height = ((n + 2 * pad - k) // stride + 1 for n, k in zip(b.ne[:2], a.ne[:2], strict=True))
    return Tensor("IM2COL", type, (a.ne[2] * a.ne[1] * a.ne[0], width, height, b.ne[3]), [a, b])


def conv_2d(a: Tensor, b: Tensor, stride: int) -> Tensor:
    """ggml_conv_2d."""
    columns = im2col_2d(a, b, stride, "f32" if a.type == "bf16" else "f16")
    n = columns.ne
    result = ggml.mul_mat(
        ggml.reshape(columns, n[0], n[3] * n[2] * n[1]), ggml.reshape(a, a.ne[0] * a.ne[1] * a.ne[2], a.ne[3])
    )
    return ggml.cont(ggml.permute(ggml.reshape(result, n[1], n[2], n[3], a.ne[3]), 0, 1, 3, 2))
