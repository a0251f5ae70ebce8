"""Which GPUs HIP shows: ROCR_VISIBLE_DEVICES first, then HIP_VISIBLE_DEVICES or, without it, CUDA_VISIBLE_DEVICES.

Source: ROCm documentation, "GPU isolation techniques": indices or UUIDs ("GPU-" and the unique id); the second list counts
within what the first one leaves.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar


class _HasUuid(Protocol):
    @property
    def uuid(self) -> str: ...


G = TypeVar("G", bound=_HasUuid)


def visible(gpus: Sequence[G], env: Mapping[str, str]) -> list[G]:
    """The GPUs that the environment leaves, in its order."""
    shown = list(gpus)
    second = "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in env else "CUDA_VISIBLE_DEVICES"
    for name in ("ROCR_VISIBLE_DEVICES", second):
        if name in env:
            shown = _chosen(shown, env[name])
    return shown


def _chosen(gpus: Sequence[G], text: str) -> list[G]:
    """What a list names; the first word that names nothing ends it."""
    chosen: list[G] = []
    for word in [word.strip() for word in text.split(",")]:
        if word.isascii() and word.isdigit() and len(word) < 6 and int(word) < len(gpus):
            chosen.append(gpus[int(word)])
        elif named := [gpu for gpu in gpus if len(word) > 4 and gpu.uuid.lower() == word.lower()]:
            chosen.append(named[0])
        else:
            break
    return list(dict.fromkeys(chosen))
