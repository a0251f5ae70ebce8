"""What drafts of whole blocks add: convolutions along a block, a Markov head, a selector (src/models/dflash.cpp)."""

from collections.abc import Callable

from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.context import GraphContext
from fitplug.memory.graph.tensor import Tensor


def build_block_conv(g: GraphContext, cur: Tensor, name: str, il: int) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """build_dflash2_conv before a block of layer `il`, and the function that does it again after that block."""
    proj = g.w(f"{name}_conv_proj", il).weight
    if proj is None:
        return cur, None
    dynamic, base = g.build_lora_mm(proj, cur), g.needed_tensor(f"blk.{il}.{name}_conv_base")
    return _conv(g, cur, dynamic, base, 0), lambda t: _conv(g, t, dynamic, base, 1)


def _conv(g: GraphContext, hidden: Tensor, dynamic: Tensor, base: Tensor, side: int) -> Tensor:
    n_embd, n_tokens, n_blocks = hidden.ne[0], hidden.ne[1], g.n_seqs
    kernel, group = g.model.get_int("conv_kernel_size"), g.model.get_int("conv_group_size")
    n_groups, n_block = n_embd // group, n_tokens // n_blocks
    blocks = ggml.reshape(hidden, n_embd, n_block, n_blocks)
    coeffs = ggml.reshape(dynamic, n_groups, kernel, 2, n_tokens)
    coeffs = ggml.cont(ggml.view_3d(coeffs, n_groups, kernel, n_tokens, coeffs.nb[1], coeffs.nb[3], side * coeffs.nb[2]))
    coeffs = ggml.repeat_4d(ggml.reshape(coeffs, 1, n_groups, kernel, n_tokens), group, n_groups, kernel, n_tokens)
    fixed = ggml.reshape(ggml.view_1d(base, n_embd * kernel, side * base.nb[2]), group, n_groups, kernel)
    weights = ggml.add(coeffs, fixed)
    result: Tensor | None = None
    for tap in range(min(kernel, n_block)):
        values = blocks
        if tap:
            values = ggml.view_3d(blocks, n_embd, n_block - tap, n_blocks, blocks.nb[1], blocks.nb[2])
            values = ggml.pad_ext(values, 0, tap)
        values = ggml.reshape(values, n_embd, n_tokens)
        nb = weights.nb
        weight = ggml.view_4d(weights, group, n_groups, 1, n_tokens, nb[1], nb[2], nb[3], tap * nb[2])
        term = ggml.mul(ggml.reshape(ggml.cont(weight), n_embd, n_tokens), values)
        result = term if result is None else ggml.add(result, term)
    return g.need(result)


class MarkovHead:
    """build_dspark_markov_head: each drafted token's logits are shifted by the one before it."""

    def __init__(self, g: GraphContext, tokens: Tensor, state: Tensor) -> None:
        """`state` is what the confidence head looks at."""
        self.g, self.tokens, self.state = g, tokens, state
        self.conf_proj = g.w("conf_proj")
        self.n_blocks, self.n_drafts = g.n_seqs, g.n_tokens // g.n_seqs
        self.conf: Tensor | None = None

    def __call__(self, base: Tensor) -> Tensor:
        """The logits, shifted; batches longer than a block are left alone."""
        g, n_blocks, n_drafts = self.g, self.n_blocks, self.n_drafts
        if n_drafts > g.hparam("dflash_block_size"):
            return base
        n_vocab, stride = base.ne[0], n_drafts * base.nb[1]
        tokens = self.tokens
        prev = ggml.cont(ggml.view_2d(tokens, 1, n_blocks, n_drafts * tokens.nb[0]), n_blocks)
        from_anchor = g.get_bool("sample_from_anchor", default=True)
        out: Tensor | None = None
        if not from_anchor:
            out = ggml.cont(ggml.view_2d(base, n_vocab, n_blocks, stride))
            if self.conf_proj.weight is not None:
                self.conf = ggml.sigmoid(ggml.cont(ggml.view_2d(base, 1, n_blocks, stride)))
        for i in range(0 if from_anchor else 1, n_drafts):
            w1_prev = ggml.get_rows(g.needed("markov_w1"), prev)
            bias = g.build_lora_mm(g.w("markov_w2").weight, w1_prev, g.tensor("markov_w2.scale"))
            bias = self._to_target_vocabulary(bias, n_vocab)
            column = ggml.add(ggml.view_2d(base, n_vocab, n_blocks, stride, i * base.nb[1]), bias)
            out = column if out is None else ggml.concat(out, column, 1)
            self._confide(w1_prev, i)
            if i + 1 < n_drafts:
                prev = ggml.argmax(column)
        return self._in_batch_order(g.need(out))

    def _to_target_vocabulary(self, bias: Tensor, n_vocab: int) -> Tensor:
        d2t = self.g.tensor("d2t")
        if d2t is None:
            return bias
        n_draft, n_blocks = bias.ne[0], self.n_blocks
        whole = ggml.fill(ggml.new_tensor("f32", 1, n_vocab, n_blocks))
        whole = ggml.set_rows(whole, ggml.reshape(bias, 1, n_draft, n_blocks), ggml.reshape(d2t, n_draft, 1, 1))
        return ggml.reshape(whole, n_vocab, n_blocks)

    def _confide(self, w1_prev: Tensor, i: int) -> None:
        """How sure the draft is of its token `i`."""
        if self.conf_proj.weight is None:
            return
        state = self.state
        seen = ggml.view_2d(state, state.ne[0], self.n_blocks, self.n_drafts * state.nb[1], i * state.nb[1])
        conf = ggml.mul_mat(self.conf_proj.weight, ggml.concat(ggml.cont(seen), w1_prev, 0))
        if self.conf_proj.bias is not None:
            conf = ggml.add(conf, self.conf_proj.bias)
        conf = ggml.sigmoid(conf)
        self.conf = conf if self.conf is None else ggml.concat(self.conf, conf, 1)

    def _in_batch_order(self, out: Tensor) -> Tensor:
        n, n_tokens = out.ne[0], self.g.n_tokens
        out = ggml.cont(ggml.permute(ggml.reshape(out, n, self.n_blocks, self.n_drafts), 0, 2, 1, 3))
        out = ggml.reshape(out, n, n_tokens)
        if self.conf is not None:
            conf = ggml.cont(ggml.permute(ggml.reshape(self.conf, 1, self.n_blocks, self.n_drafts), 0, 2, 1, 3))
            conf = ggml.repeat(ggml.reshape(conf, 1, n_tokens), self.state)
            conf.is_output = True
            self.g.expand(conf)
        self.g.expand(out)
        return out


def build_selector(g: GraphContext, tokens: Tensor, logits: Tensor, state: Tensor) -> None:
    """build_dflash2_selector: the best candidates of each place in a block, and how well each follows the ones before."""
    n_blocks, n_tokens = g.n_seqs, g.n_tokens
    top_k, per_block = g.model.get_int("selector_top_k"), n_tokens // n_blocks
    n_places = min(per_block, g.hparam("dflash_block_size"))
    candidates = ggml.top_k(logits, top_k)
    rows = ggml.reshape(logits, 1, logits.ne[0], n_tokens)
    unary = ggml.reshape(ggml.get_rows(rows, candidates), top_k, n_tokens)
    gate = g.build_lora_mm(g.w("selector_hidden").weight, state)
    lattice = _Lattice(g, *(ggml.reshape(t, t.ne[0], per_block, n_blocks) for t in (candidates, unary, gate)))
    packed = ggml.fill(ggml.new_tensor("f32", g.n_embd, 1, n_blocks))
    if n_places > 1:
        anchors = ggml.cont(ggml.view_2d(tokens, 1, n_blocks, per_block * tokens.nb[0]), n_blocks)
        packed = ggml.concat(packed, lattice.scores(1, 1, anchors), 1)
    if n_places > 2:
        cand, n = lattice.candidates, n_places - 2
        before = ggml.cont(ggml.view_3d(cand, top_k, n, n_blocks, cand.nb[1], cand.nb[2], cand.nb[1]))
        packed = ggml.concat(packed, lattice.scores(2, n, ggml.reshape(before, top_k * n * n_blocks)), 1)
    packed = ggml.reshape(packed, g.n_embd, n_places * n_blocks)
    packed.is_output = True
    g.expand(packed)


class _Lattice:
    """Candidates, their logits and gates as [.., place in the block, block]."""

    def __init__(self, g: GraphContext, candidates: Tensor, unary: Tensor, gate: Tensor) -> None:
        self.g, self.candidates, self.unary, self.gate = g, candidates, unary, gate

    def scores(self, first: int, n: int, before: Tensor) -> Tensor:
        """The rows of `n` places from `first` on; `before` are the tokens that may precede them."""
        g, top_k, rank, n_blocks = self.g, self.candidates.ne[0], self.gate.ne[0], self.g.n_seqs
        cand, unary, gate = (
            ggml.cont(ggml.view_3d(t, t.ne[0], n, n_blocks, t.nb[1], t.nb[2], first * t.nb[1]))
            for t in (self.candidates, self.unary, self.gate)
        )
        n_before = before.ne[0] // (n * n_blocks)
        after = ggml.get_rows(g.needed("selector_successor"), ggml.reshape(cand, top_k * n * n_blocks))
        after = ggml.reshape(after, rank, top_k, n, n_blocks)
        prior = ggml.reshape(ggml.get_rows(g.needed("selector_predecessor"), before), rank, n_before, n, n_blocks)
        gated = ggml.mul(prior, ggml.repeat(ggml.reshape(gate, rank, 1, n, n_blocks), prior))
        score = ggml.mul_mat(after, gated)
        if n_before == 1:
            score = ggml.repeat_4d(score, top_k, top_k, n, n_blocks)
        score = ggml.add(score, ggml.repeat(ggml.reshape(unary, top_k, 1, n, n_blocks), score))
        row = ggml.concat(ggml.cast(cand, "f32"), ggml.reshape(score, top_k * top_k, n, n_blocks), 0)
        return ggml.pad(row, g.n_embd - top_k - top_k * top_k)
