"""What runs beside the model: a projector that sees or hears, a draft model for speculative decoding.

Reading their files is the caller's business: it hands in a projector's header and a draft that is already described.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from fitplug.formats.header import Header
from fitplug.machine.backends import CPU_ALIGNMENT, backend
from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Basis, Estimate, Kind, Part, Resolved
from fitplug.memory.sizes import row_padding_bytes
from fitplug.model.records import Model
from fitplug.settings import Settings
from fitplug.units import pad

F32, F16 = 4, 2
DEFAULT_IMAGE, DEFAULT_PATCH = 336, 14
"""Supposed where a projector's header does not say; those of CLIP's large model."""


class Companions(NamedTuple):
    """What was opened beside the model."""

    projector: Header | None = None
    draft: Model | None = None


def projector_parts(header: Header, machine: Machine, settings: Settings) -> list[Part]:
    """Weights and compute buffer of a projector (clip_ctx, tools/mtmd/clip.cpp).

    Its tensors lie in one buffer of the first GPU, or of the CPU; the compute buffer is that of the widest block for the
    largest picture that is tried at the start, by formula.
    """
    names = machine.device_names()
    on_gpu = bool(names) and settings.mmproj_offload
    row = backend(machine.devices[0]) if on_gpu else None
    alignment, padding = (row.alignment, row.row_padding) if row else (CPU_ALIGNMENT, 0)
    weights = sum(
        pad(t.n_bytes + row_padding_bytes(t.type, t.shape[0] if t.shape else 1, padding), alignment)
        for t in header.tensors.values()
    )
    device = names[0] if on_gpu else HOST
    return [
        Part(device, Kind.MODEL, weights, Basis.MODELLED, "projector's weights"),
        Part(device, Kind.COMPUTE, _projector_compute(header), Basis.MODELLED, "projector's compute, by formula"),
    ]


def _projector_compute(header: Header) -> int:
    """One transformer block over all patches, and the patches' pixels."""

    def number(key: str, default: int) -> int:
        for prefix in ("clip.vision.", "clip.audio."):
            value = header.metadata.get(prefix + key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20:
                return value
        return default

    patch, image = number("patch_size", DEFAULT_PATCH), number("image_size", DEFAULT_IMAGE)
    n_embd, n_ff = number("embedding_length", 1024), number("feed_forward_length", 4096)
    n_patches = max(1, image // patch) ** 2
    return n_patches * (F32 * (2 * n_embd + max(3 * n_embd, 2 * n_ff)) + (F32 + F16) * 3 * patch * patch)


Estimating = Callable[[Model, Machine, Settings], Estimate]


def draft_parts(draft: Model, machine: Machine, target: Estimate, estimate: Estimating) -> list[Part]:
    """A draft model with a context as long as its target's (common_speculative_init_result, common/speculative.cpp).

    It is loaded after the target and finds the memory that this one leaves.
    """
    left = [
        replace(device, free_bytes=max(0, device.free_bytes - target.n_bytes(name)))
        for name, device in zip(machine.device_names(), machine.devices, strict=True)
    ]
    found = estimate(draft, replace(machine, devices=left), draft_settings(target.settings, target.resolved))
    return [part._replace(source=f"draft's {part.source}") for part in found.parts if part.kind != Kind.OVERHEAD]


def draft_settings(settings: Settings, resolved: Resolved) -> Settings:
    """What a draft takes over from its target: all but cache types and placement (common_base_params_to_speculative)."""
    return replace(
        settings, n_ctx=resolved.n_ctx, type_k="f16", type_v="f16", n_gpu_layers=-1, n_cpu_moe=0, overrides=(), mmproj=None,
        model_draft=None, lora=(),
    )  # fmt: skip
