"""A projector's weights and compute buffer: clip_ctx and its loader (tools/mtmd/clip.cpp)."""

from fitplug.formats.header import Header
from fitplug.machine.backends import CPU_ALIGNMENT, backend
from fitplug.machine.records import Machine
from fitplug.memory.records import HOST, Basis, Kind, Part
from fitplug.memory.sizes import row_padding_bytes
from fitplug.settings import Settings
from fitplug.units import pad

F32, F16 = 4, 2
DEFAULT_IMAGE, DEFAULT_PATCH = 336, 14
"""Supposed where a projector's header does not say; those of CLIP's large model."""


def projector_parts(header: Header, machine: Machine, settings: Settings) -> list[Part]:
    """Weights and compute buffer of a projector.

    Its tensors lie in one buffer of the first GPU, or of the CPU; the compute buffer is that of the widest block for the
    largest picture that is tried at the start, by formula.
    """
    device = projector_device(machine, settings)
    row = backend(machine.devices[machine.device_names().index(device)]) if device != HOST else None
    alignment, padding = (row.alignment, row.row_padding) if row else (CPU_ALIGNMENT, 0)
    weights = sum(
        pad(t.n_bytes + row_padding_bytes(t.type, t.shape[0] if t.shape else 1, padding), alignment)
        for t in header.tensors.values()
    )
    return [
        Part(device, Kind.MODEL, weights, Basis.MODELLED, "projector's weights"),
        Part(device, Kind.COMPUTE, _projector_compute(header), Basis.MODELLED, "projector's compute, by formula"),
    ]


def projector_device(machine: Machine, settings: Settings) -> str:
    """The first GPU that the backends register, an integrated one only without another (clip_ctx's constructor)."""
    if not settings.mmproj_offload or not machine.devices:
        return HOST
    names = machine.device_names()
    ranks = [(d.backend == "rpc", d.kind == "igpu", i) for i, d in enumerate(machine.devices)]
    return names[min(ranks)[2]]


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
