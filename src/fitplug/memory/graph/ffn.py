"""Feed-forward blocks, dense and with experts (src/llama-graph.cpp, build_ffn and build_moe_ffn)."""

from typing import Literal, NamedTuple

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.base import ABSENT, GraphBase, Linear
from fitplug.memory.graph.tensor import PREC_F32, Tensor, summed_in_f32

# llm_ffn_op_type
SILU, GELU, RELU, RELU_SQR = "silu", "gelu", "relu", "relu_sqr"
SWIGLU, GEGLU, REGLU, SWIGLU_OAI_MOE, SITU = "swiglu", "geglu", "reglu", "swiglu_oai_moe", "situ"
# llm_ffn_gate_type
SEQ, PAR = "seq", "par"
# llama_expert_gating_func_type
SOFTMAX, SIGMOID, SOFTMAX_WEIGHT, SQRT_SOFTPLUS = "softmax", "sigmoid", "softmax_weight", "sqrt_softplus"
GATING_FUNCS = {1: SOFTMAX, 2: SIGMOID, 3: SOFTMAX_WEIGHT, 4: SQRT_SOFTPLUS}
"""`{arch}.expert_gating_func`."""

FUSED_GATE = {SILU: "swiglu", GELU: "geglu", RELU: "reglu", SWIGLU_OAI_MOE: "swiglu_oai"}
WHOLE_ROW = {SWIGLU: "swiglu", GEGLU: "geglu", REGLU: "reglu"}
EPS = 1e-6


class Experts(NamedTuple):
    """The tensors of one layer's experts; `gate_up` instead of gate and up where the file merges them."""

    gate_inp: Linear
    up: Linear
    gate: Linear
    down: Linear
    gate_up: Linear = ABSENT
    exp_probs_b: Tensor | None = None


class FeedForward(GraphBase):
    """build_ffn and build_moe_ffn."""

    def ffn(self, cur: Tensor, il: int, act: str = SILU, gate: str = PAR, suffix: str = "") -> Tensor:
        """build_ffn with this layer's ffn_up, ffn_gate and ffn_down; `suffix` "_shexp" for shared experts."""
        act_scales = self.tensor(f"blk.{il}.ffn.act.scales")
        up, gate_, down = (self.w(f"ffn_{name}{suffix}", il) for name in ("up", "gate", "down"))
        return self.build_ffn(cur, up, gate_, down, act, gate, il, act_scales)

    def build_ffn(
        self,
        cur: Tensor,
        up: Linear,
        gate: Linear,
        down: Linear,
        type_op: str,
        type_gate: str,
        il: int,
        act_scales: Tensor | None = None,
    ) -> Tensor:
        """llm_graph_context::build_ffn."""
        tmp = self._scaled(up, cur) if up.weight is not None else cur
        parallel = gate.weight is not None and type_gate == PAR
        cur = tmp if gate.weight is None else self._scaled(gate, cur if parallel else tmp)
        if parallel and type_op in FUSED_GATE:
            cur = self._gated(cur, tmp, type_op, il)
        else:
            cur = self._activated(cur, type_op, act_scales)
            if parallel:
                cur = ggml.mul(cur, tmp)
        if down.weight is None:
            return cur
        cur = self._scaled(down, cur)
        return summed_in_f32(cur) if self.quirks.summed_in_f32 else cur

    def _scaled(self, linear: Linear, cur: Tensor) -> Tensor:
        """Product, bias, scale: in a feed-forward block the scale comes last."""
        cur = self.build_lora_mm(linear.weight, cur)
        if linear.bias is not None:
            cur = ggml.add(cur, linear.bias)
        return ggml.mul(cur, linear.scale) if linear.scale is not None else cur

    def _gated(self, gate: Tensor, up: Tensor, type_op: str, il: int) -> Tensor:
        if type_op == SILU and il >= 0 and self.swiglu_limit(il, "swiglu_clamp_shexp") > EPS:
            if self._clamps(self.quirks.clamped_ffn):
                return ggml.glu(gate, up, "swiglu_clamp")
            return self._limited(gate, up)
        return ggml.glu(gate, up, FUSED_GATE[type_op])

    def _clamps(self, when: Literal["never", "always", "hyper_connections"]) -> bool:
        return when == "always" or (when == "hyper_connections" and self.hparam("dsv4_hc_mult") > 0)

    def swiglu_limit(self, il: int, key: str) -> float:
        """hparams.swiglu_clamp_exp[il], swiglu_clamp_shexp[il]; 0 is no limit."""
        value = self.model.get(key)
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, tuple) and hasattr(value, "__getitem__") and il < len(value):
            entry = value[il]
            return float(entry) if isinstance(entry, (int, float)) else 0.0
        return 0.0

    @staticmethod
    def _limited(gate: Tensor, up: Tensor) -> Tensor:
        up = ggml.clamp(up)
        return ggml.mul(ggml.clamp(ggml.silu(gate)), up)

    @staticmethod
    def _activated(cur: Tensor, type_op: str, act_scales: Tensor | None) -> Tensor:
        if type_op in WHOLE_ROW:
            return ggml.glu(cur, None, WHOLE_ROW[type_op])
        if type_op == RELU_SQR:
            return ggml.sqr(ggml.relu(cur))
        cur = ggml.unary(cur, type_op)
        return ggml.div(cur, act_scales) if type_op == GELU and act_scales is not None else cur

    # Experts

    def experts(self, il: int, suffix: str = "exps", probs_b: str = "exp_probs_b") -> Experts:
        """This layer's experts under their usual names."""
        bias = self.w(probs_b, il)
        up, gate, down, gate_up = (self.w(f"ffn_{name}_{suffix}", il) for name in ("up", "gate", "down", "gate_up"))
        if not self.quirks.scaled_experts:
            up, gate, down = up._replace(scale=None), gate._replace(scale=None), down._replace(scale=None)
        probs = bias.bias if bias.bias is not None else bias.weight
        return Experts(self.w("ffn_gate_inp", il), up, gate, down, gate_up, probs)

    def build_moe_ffn(
        self,
        cur: Tensor,
        e: Experts,
        il: int,
        *,
        n_expert: int = 0,
        n_expert_used: int = 0,
        type_op: str = SILU,
        norm_w: bool = True,
        w_scale: float = 0.0,
        gating_op: str = SOFTMAX,
        probs_in: Tensor | None = None,
        selected_experts_in: Tensor | None = None,
    ) -> Tensor:
        """llm_graph_context::build_moe_ffn; without numbers the model's own experts."""
        n_expert = n_expert or self.n_expert
        n_expert_used = n_expert_used or self.n_expert_used
        n_embd, n_tokens = cur.ne[0], cur.ne[1]
        logits = probs_in if probs_in is not None else self.build_lora_mm(e.gate_inp.weight, cur)
        if e.gate_inp.bias is not None:
            logits = ggml.add(logits, e.gate_inp.bias)
        probs = self._expert_probs(logits, gating_op)
        selected = selected_experts_in
        if selected is None:
            selected = ggml.argsort_top_k(self._selection(logits, probs, e, n_expert), n_expert_used)
        selected, weights = self._expert_weights(probs, selected, n_expert, n_expert_used, gating_op, norm_w, w_scale)
        self.expand(weights)
        cur = ggml.reshape(cur, n_embd, 1, n_tokens)
        if self.quirks.weights_first:
            cur = ggml.mul(ggml.repeat_4d(cur, n_embd, n_expert_used, n_tokens, 1), weights)
        cur = self._expert_ffn(cur, e, selected, type_op, il)
        if not self.quirks.weights_first:
            cur = ggml.mul(cur, weights)
        return self._sum_experts(cur, self.hparams(il).n_expert_used, n_embd, n_tokens)

    @staticmethod
    def _expert_probs(logits: Tensor, gating_op: str) -> Tensor:
        if gating_op == SOFTMAX:
            return ggml.soft_max(logits)
        if gating_op == SIGMOID:
            return ggml.sigmoid(logits)
        return logits if gating_op == SOFTMAX_WEIGHT else ggml.sqrt(ggml.softplus(logits))

    def _selection(self, logits: Tensor, probs: Tensor, e: Experts, n_expert: int) -> Tensor:
        """What the experts are chosen by."""
        selection = probs if e.exp_probs_b is None else ggml.add(probs, e.exp_probs_b)
        if self.quirks.selection == "logits":
            selection = logits
        if self.quirks.selection == "sigmoid":
            selection = ggml.sigmoid(logits)
        n_groups = self.hparam("n_expert_groups")
        return self._group_mask(selection, n_expert, n_groups) if n_groups > 1 else selection

    def _group_mask(self, selection: Tensor, n_expert: int, n_groups: int) -> Tensor:
        """Keep the best groups of experts only (DeepSeek V3)."""
        n_tokens = selection.ne[1]
        groups = ggml.reshape(selection, n_expert // n_groups, n_groups, n_tokens)
        scores = ggml.argsort_top_k(groups, 2)
        scores = ggml.get_rows(ggml.reshape(groups, 1, *groups.ne[:3]), scores)
        scores = ggml.sum_rows(ggml.reshape(scores, *scores.ne[1:]))
        scores = ggml.reshape(scores, scores.ne[1], scores.ne[2])
        chosen = ggml.argsort_top_k(scores, self.hparam("n_group_used"))
        selection = ggml.get_rows(groups, chosen)
        selection = ggml.set_rows(ggml.fill(groups), selection, chosen)
        return ggml.reshape(selection, n_expert, n_tokens)

    def _expert_weights(
        self, probs: Tensor, selected: Tensor, n_expert: int, n_used: int, gating_op: str, norm_w: bool, w_scale: float
    ) -> tuple[Tensor, Tensor]:
        n_tokens = probs.ne[1]
        if self.quirks.adjugate_experts and n_expert != self.n_expert:
            selected = ggml.cast(ggml.scale(ggml.cast(selected, "f32")), "i32")
            n_expert = self.n_expert
        weights = ggml.get_rows(ggml.reshape(probs, 1, n_expert, n_tokens), selected)
        if gating_op == SOFTMAX_WEIGHT:
            weights = ggml.soft_max(ggml.reshape(weights, n_used, n_tokens))
            weights = ggml.reshape(weights, 1, n_used, n_tokens)
        if norm_w:
            weights = ggml.reshape(weights, n_used, n_tokens)
            weights = ggml.div(weights, ggml.clamp(ggml.sum_rows(weights)))
            weights = ggml.reshape(weights, 1, n_used, n_tokens)
        if w_scale not in (0.0, 1.0):
            weights = ggml.scale(weights)
        return selected, weights

    def _mm_id(
        self, linear: Linear, cur: Tensor, selected: Tensor, *, scale: Tensor | None = None, exact: bool = False
    ) -> Tensor:
        """Product, scale, bias; `exact` asks for sources in full precision, which CUDA does not do (ggml_prec_set_src)."""
        cur = self.build_lora_mm_id(linear.weight, cur, selected, scale if scale is not None else linear.scale)
        if exact and cur.op == "MUL_MAT_ID":
            cur.param = PREC_F32
        return ggml.add_id(cur, linear.bias, selected) if linear.bias is not None else cur

    def _expert_ffn(self, cur: Tensor, e: Experts, selected: Tensor, type_op: str, il: int) -> Tensor:
        if e.gate_up.weight is not None:
            gate_up = self._mm_id(e.gate_up, cur, selected, scale=e.up.scale)
            n_ff, n_used, n_tokens, _ = gate_up.ne
            _, nb1, nb2, _ = gate_up.nb
            gate = ggml.view_3d(gate_up, n_ff // 2, n_used, n_tokens, nb1, nb2)
            up = ggml.view_3d(gate_up, n_ff // 2, n_used, n_tokens, nb1, nb2, n_ff // 2 * gate_up.nb[0])
        else:
            up = self._mm_id(e.up, cur, selected)
            gate = up if e.gate.weight is None else self._mm_id(e.gate, cur, selected)
        cur = self._expert_act(gate, up, e, type_op, il)
        return self._mm_id(e.down, cur, selected, exact=self.quirks.exact_down)

    def _expert_act(self, gate: Tensor, up: Tensor, e: Experts, type_op: str, il: int) -> Tensor:
        if type_op == SILU and e.gate.weight is not None and self.swiglu_limit(il, "swiglu_clamp_exp") > EPS:
            if self._clamps(self.quirks.clamped_experts):
                return ggml.glu(gate, up, "swiglu_clamp")
            return self._limited(gate, up)
        if type_op == SITU:
            act = ggml.scale(ggml.tanh(ggml.scale(gate)))
            act = ggml.mul(act, ggml.sigmoid(gate))
            if self.get_float("activation.situ_linear_beta") > 0:
                up = ggml.scale(ggml.tanh(ggml.scale(up)))
            return ggml.mul(act, up)
        if type_op == SWIGLU_OAI_MOE or (type_op in FUSED_GATE and gate is not up):
            return ggml.glu(gate, up, FUSED_GATE[type_op])
        return self._activated(gate, type_op, None)

    def _sum_experts(self, experts: Tensor, n_used: int, n_embd: int, n_tokens: int) -> Tensor:
        """All views before all sums."""
        self.expand(experts)
        views = []
        for i in range(n_used):
            views.append(ggml.view_2d(experts, n_embd, n_tokens, experts.nb[2], i * experts.nb[1]))
            self.expand(views[-1])
        out = views[0]
        for view in views[1:]:
            out = ggml.add(out, view)
            self.expand(out)
        return ggml.cont(out) if n_used == 1 else out
