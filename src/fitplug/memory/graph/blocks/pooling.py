"""What --embeddings adds to a graph: one vector of each sequence, a classifier's head, dense layers.

build_pooling and build_dense_out (src/llama-graph.cpp).
"""

from fitplug.errors import RefusedError
from fitplug.memory.graph import ops as ggml
from fitplug.memory.graph.context import LLM_NORM, GraphContext
from fitplug.memory.graph.tensor import Tensor
from fitplug.model.pooling import POOLINGS
from fitplug.settings import Pooling

GELU_HEADS = frozenset(("modern-bert",))
"""Whose classifier's first layer is not followed by tanh."""
PROBABILITIES = frozenset(("qwen3", "qwen3vl"))
"""Rerankers whose scores are made probabilities."""


def build_embeddings(g: GraphContext, pooling: Pooling) -> None:
    """What llama_model::build_graph adds to an architecture's graph."""
    cur = _build_dense_out(g, _build_pooling(g, pooling))
    cur.is_output = True


def _build_pooling(g: GraphContext, pooling: Pooling) -> Tensor:
    if g.t_embd is None:
        raise RefusedError(f"--embeddings: llama.cpp aborts, since '{g.arch}' makes none")
    cur = g.t_embd
    by_classifier = pooling == "rank"
    if pooling == "mean" or (by_classifier and _classifies_means(g)):
        if cur.ne[1] != g.n_tokens:  # what is reserved is made a multiple of the sequences, the outputs are not
            raise RefusedError(
                f"--pooling mean: llama.cpp aborts where -np {g.n_seqs} does not divide a micro-batch of {cur.ne[1]} tokens; "
                "choose another -ub"
            )
        cur = ggml.mul_mat(ggml.cont(ggml.transpose(cur)), ggml.new_input("f32", g.n_tokens, g.n_seqs))
    elif pooling != "none":
        cur = ggml.get_rows(cur, ggml.new_input("i32", g.n_seqs))
    if by_classifier:
        cur = _classified(g, cur)
    g.expand(cur)
    return cur


def _build_dense_out(g: GraphContext, cur: Tensor) -> Tensor:
    """After pooling, in files that have such layers."""
    second, third = g.w("dense_2"), g.w("dense_3")
    if second.weight is not None:
        cur = ggml.mul_mat(second.weight, cur)
    if second.bias is not None:
        cur = ggml.add(cur, second.bias)
    if third.weight is not None:
        cur = ggml.mul_mat(third.weight, cur)
    g.expand(cur)
    return cur


def _classifies_means(g: GraphContext) -> bool:
    """hparams.pooling_type_cls, which ModernBERT's loader sets where the file does not."""
    found = g.model.get("classifier.pooling_type")
    if not isinstance(found, int):
        return g.arch in GELU_HEADS
    return POOLINGS.get(found) == "mean"


def _classified(g: GraphContext, cur: Tensor) -> Tensor:
    first, last, norm = g.w("cls"), g.w("cls.output"), g.w("cls.norm")
    if first.weight is not None:
        cur = ggml.mul_mat(first.weight, cur)
        if first.bias is not None:
            cur = ggml.add(cur, first.bias)
        cur = ggml.gelu(cur) if g.arch in GELU_HEADS else ggml.tanh(cur)
        if norm.weight is not None:
            cur = g.build_norm(cur, norm, LLM_NORM)
    if last.weight is not None:
        cur = ggml.mul_mat(last.weight, cur)
        if last.bias is not None:
            cur = ggml.add(cur, last.bias)
    return ggml.soft_max(cur) if g.arch in PROBABILITIES else cur
