"""The output buffer in host memory, which llama.cpp counts nowhere: llama_context::output_reserve (src/llama-context.cpp)."""

from fitplug.memory.records import Resolved
from fitplug.memory.targets import Taps
from fitplug.model.records import Model

VALUE = 4
"""Bytes of a number, and of a token."""


def output_bytes(model: Model, resolved: Resolved, taps: Taps) -> int:
    """As large as it gets once a whole batch has been worked on: logits, states, and what the device picks tokens from."""
    n = max(_rows(resolved, taps), resolved.n_seq_max)
    values = model.n_vocab * n
    if resolved.pooling is not None:
        values += (model.n_embd_out or model.n_embd) * n
    if taps.nextn != "none":
        values += (model.n_embd_out or model.n_embd) * (resolved.n_batch if taps.nextn == "all" else n)
    values += len(taps.inputs) * model.n_embd * resolved.n_batch
    if taps.sampled:  # logits, probabilities and candidates of each row, and its token
        values += (3 * model.n_vocab + 1) * n
    return values * VALUE


def _rows(resolved: Resolved, taps: Taps) -> int:
    """How many tokens have an output: an encoder's all have one, and so have all whose embeddings are asked for."""
    if resolved.pooling is not None:
        return resolved.n_batch
    return resolved.n_ubatch if taps.encodes else min(resolved.n_outputs_max, resolved.n_seq_max * taps.rows)
