"""How long a token takes: pure arithmetic over what each device has to do for it, with coefficients by kind of hardware.

Writing (generation) is bound by memory: each token reads all weights that it uses and the whole cache, at a share of the
device's bandwidth that depends on the kind of hardware and on how costly the weights' type is to unpack, and pays a fixed
time for each layer's kernels. Reading (the prompt) is bound by arithmetic: two operations for each weight in use, at a
share of the device's matrix throughput; weights that stay on the CPU are copied to the GPU once for each micro-batch.
The coefficients are in `planner.speed_table`, which fixtures/speed/calibrate.py writes from public measurements.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

TYPE_GROUPS = {
    "f32": "f16", "f16": "f16", "bf16": "f16", "q8_0": "q8_0", "q4_0": "q4_0", "q4_1": "q4_0", "q5_0": "q4_0", "q5_1": "q4_0",
    "iq4_nl": "q4_0", "mxfp4": "q4_0", "nvfp4": "q4_0", "q4_K": "q4_K", "q5_K": "q4_K", "q6_K": "q4_K",
}  # fmt: skip
"""Types that take about as long to unpack; all others are "iq"."""


class Kind(NamedTuple):
    """Coefficients of one kind of hardware under one backend."""

    bandwidth: float
    """Share of the nominal bandwidth that reading weights reaches."""
    per_layer: float
    """Seconds a layer for a token, whatever its size: launching kernels, waiting for one another."""
    throughput: float | None
    """Share of the nominal 16-bit matrix throughput that a prompt reaches; None: nobody measured it."""
    spread: float
    """Four of five measurements of generation lie within the prediction times and divided by this."""
    prompt_spread: float
    n_rows: int
    """How many measurements are behind it."""


class Backend(NamedTuple):
    """Coefficients of one backend on all of its hardware."""

    per_moe_layer: float
    """More seconds for a layer with experts."""
    cache: float
    """Reading the cache takes so many times longer than its bytes would at the weights' rate."""
    reading: Mapping[str, float]
    """The same for weights of a type group."""
    experts: float
    """Share of the prompt's throughput that is left with experts."""
    unpacking: Mapping[str, float]
    """Factor on the prompt's throughput by type group."""
    attention: float
    """Factor on the operations of attention."""
    per_layer_prompt: float
    """Seconds a layer for a micro-batch, whatever its size."""


class Work(NamedTuple):
    """What one device does for one token."""

    kind: Kind
    backend: Backend
    bandwidth: float
    """Bytes per second, nominal."""
    throughput: float | None
    """Operations per second on 16-bit matrices, nominal; None where it is not known."""
    weights: Mapping[str, float]
    """Bytes read for a token by type group."""
    cache: float
    """Bytes of cache and state read for a token."""
    n_layers: int
    n_moe_layers: int
    parameters: Mapping[str, float]
    """Weights in use for a token by type group, experts as many as are used."""
    attention: float
    """Operations of attention for one token of the prompt."""


def generation_seconds(work: Sequence[Work], hop: float) -> float:
    """Seconds for one token; the devices work one after the other, and `hop` is what each step between them costs."""
    return sum(map(_generation, work)) + (len(work) - 1) * hop


def _generation(work: Work) -> float:
    kind, backend = work.kind, work.backend
    n_bytes = sum(n * backend.reading.get(group, 1.0) for group, n in work.weights.items()) + work.cache * backend.cache
    layers = work.n_layers * kind.per_layer + work.n_moe_layers * backend.per_moe_layer
    return n_bytes / (work.bandwidth * kind.bandwidth) + layers


def prompt_seconds(work: Sequence[Work], n_ubatch: int, pipeline: float) -> float | None:
    """Seconds for one token of a long prompt; None where a device's throughput is not known.

    Args:
        work: By device.
        n_ubatch: Tokens of one micro-batch.
        pipeline: With several devices at work at once, the power of their number that is gained.
    """
    seconds = [_prompt(each, n_ubatch) for each in work]
    known = [s for s in seconds if s is not None]
    return sum(known) / len(known) ** pipeline if known and len(known) == len(seconds) else None


def _prompt(work: Work, n_ubatch: int) -> float | None:
    kind, backend = work.kind, work.backend
    if work.throughput is None or kind.throughput is None:
        return None
    share = kind.throughput * (backend.experts if work.n_moe_layers else 1.0)
    n = sum(2 * n / backend.unpacking.get(group, 1.0) for group, n in work.parameters.items())
    operations = n + work.attention * backend.attention
    return operations / (work.throughput * share) + work.n_layers * backend.per_layer_prompt / n_ubatch
