"""GGUF files that hold something else than a language model: what it is, and what is done with it.

`general.type` is how gguf's writers tell (gguf-py/gguf/constants.py, GGUFType); older files and those of other programs are
known by their architecture.
"""

from collections.abc import Mapping

from fitplug.formats.header import Header

_PROJECTOR = "a projector, which shows pictures or sound to a language model: give it as --mmproj beside that model"
_ADAPTER = "a LoRA adapter, not a model: give it as --lora beside the model that it was made for"
_IMATRIX = "an importance matrix, which llama-quantize makes better quants with: not a model"
_VECTOR = "a control vector, not a model"
_IMAGES = "a model that makes pictures or films, for stable-diffusion.cpp or ComfyUI: llama.cpp does not run it"

BY_TYPE: Mapping[str, str] = {"adapter": _ADAPTER, "imatrix": _IMATRIX, "mmproj": _PROJECTOR}
BY_ARCHITECTURE: Mapping[str, str] = {
    "clip": _PROJECTOR,
    "imatrix": _IMATRIX,
    "controlvector": _VECTOR,
    **dict.fromkeys(
        (
            "aura", "chroma", "cosmos", "flux", "hidream", "hyvid", "ltxv", "lumina2", "pig", "qwen_image", "sd1", "sd3",
            "sdxl", "wan",
        ),
        _IMAGES,
    ),
}  # fmt: skip
"""The names of image models are those that the tools of ComfyUI-GGUF write."""


def other_than_model(header: Header) -> str:
    """What a file is that is no language model; empty where nothing says that it is not one."""
    kind, architecture = header.metadata.get("general.type"), header.metadata.get("general.architecture")
    return BY_TYPE.get(str(kind), "") or BY_ARCHITECTURE.get(str(architecture), "")
