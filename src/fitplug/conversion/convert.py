"""What a safetensors model would be as GGUF: convert_hf_to_gguf.py's tensors and keys, then llama-quantize's types.

Names come from the `gguf` package's own tensor maps, keys from `models.ROWS`. The vocabulary is known by its length only, so
the size is that of all tensors, to the byte, without the header (1 to 16 MB, nearly all of it vocabulary).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fitplug.conversion import CONVERTED
from fitplug.conversion.config import Config
from fitplug.conversion.dequantize import unpacked
from fitplug.conversion.models import COMMON, ROWS, Row
from fitplug.conversion.quantize import Facts, Shape, tensor_types
from fitplug.errors import FitplugError
from fitplug.formats.ggml_types import FILE_TYPES, row_size
from fitplug.formats.header import Header, Skipped, Tensor, Value

CUSTOMARY = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
"""Quants that people make."""
ALIGNMENT = 32
_NOT_TEXT = re.compile(
    r"^(mlp|vit\.|vpm\.|siglip2\.|conformer\.|merger\.|resampler\.|sound_encoder\.|sound_projection\.|speech_embeddings\.)|"
    r"visual\.|vision\.|audio\.|talker\.|vision_|audio_|token2wav\.|code2wav\.|projector\.|pre_mm_projector_norm|"
    r"image_newline|view_seperator|patch_embed|patch_merger\.|patch_merge_mlp\.|model\.connector\."
)
"""TextModel.filter_tensors: a projector of its own, converted apart."""
_UNUSED = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(.+)")
_ALWAYS_F32 = (
    "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight", "token_types.weight", "ssm_conv1d.weight",
    "shortconv.conv.weight", "indexer.proj.weight",
)  # fmt: skip
"""ModelBase.prepare_tensors; so are tensors of one dimension, norms, and what is no weight."""


def convert(header: Header) -> Header:
    """The header as convert_hf_to_gguf.py would write it, in the type that most of it has.

    Raises:
        FitplugError: fitplug does not know this class of models, or llama.cpp's converter does not read it.
    """
    config = Config(header)
    row = ROWS.get(config.architecture)
    if row is None:
        what = f"models of the class {config.architecture[:60]}" if config.architecture else "a model without config.json"
        raise FitplugError(f"what llama.cpp would make of {what} is not known; look for a repository with GGUF files")
    n_layer = config.number("num_hidden_layers", "n_layers", "n_layer", "num_layers")
    n_blocks = n_layer + (config.number(row.nextn, default=0) if row.nextn else 0)
    if not 0 < n_blocks <= 4096:
        raise FitplugError(f"config.json has {n_blocks} layers, which cannot be")
    shapes = _split(_stacked(_own(unpacked(header.tensors, config), row, n_blocks)), row, config)
    mapped = list(_extra(config, row)) + list(_mapped(shapes, row, n_blocks))
    type_ = "f16" if any(tensor.type == "f16" for tensor in header.tensors.values()) else "bf16"
    typed = [shape._replace(type=_written(shape, type_)) for shape in mapped]
    if len({shape.name for shape in typed}) != len(typed):
        raise FitplugError("two tensors would have one name as GGUF: the model is not what its config.json says")
    return _header(typed, {**_metadata(config, row, n_blocks), "general.file_type": _file_type(type_.upper())}, type_.upper())


def quantised(header: Header, ftype: str, *, imatrix: bool | None = None) -> Header:
    """A converted header after llama-quantize.

    Args:
        header: of `convert`.
        ftype: "Q4_K_M", …
        imatrix: whether an importance matrix is used; None: as people do, for the IQ types.

    Raises:
        FitplugError: no such file type, or llama-quantize refuses this one.
    """
    with_imatrix = ftype.startswith("IQ") if imatrix is None else imatrix
    shapes = [Shape(tensor.name, tensor.type, tensor.shape) for tensor in header.tensors.values()]
    types = tensor_types(shapes, _facts(header), ftype, imatrix=with_imatrix)
    if any(shape.type == "mxfp4" and types[shape.name] != "mxfp4" for shape in shapes):
        raise FitplugError(
            f"its experts are MXFP4 already, which llama-quantize does not quantise again: no {ftype}, but MXFP4_MOE"
        )
    made = [shape._replace(type=types[shape.name]) for shape in shapes]
    return _header(made, {**header.metadata, "general.file_type": _file_type(ftype)}, ftype)


def customary(header: Header) -> Sequence[str]:
    """The file types that a converted header is worth looking at in."""
    return ("MXFP4_MOE",) if any(tensor.type == "mxfp4" for tensor in header.tensors.values()) else CUSTOMARY


def _facts(header: Header) -> Facts:
    architecture = str(header.metadata["general.architecture"])

    def number(key: str) -> int:
        value = header.metadata.get(f"{architecture}.{key}", 0)
        return int(value) if isinstance(value, (int, float)) else 0

    n_head = number("attention.head_count")
    n_head_kv = number("attention.head_count_kv") if f"{architecture}.attention.head_count_kv" in header.metadata else n_head
    return Facts(architecture, number("block_count"), number("expert_count"), n_head, n_head_kv)


def _own(shapes: Iterable[Shape], row: Row, n_blocks: int) -> Iterable[Shape]:
    """The text model's tensors, under the names that the maps know."""
    drops = re.compile(row.drops) if row.drops else None
    for shape in shapes:
        name = shape.name
        if name.endswith(_UNUSED) or _NOT_TEXT.search(name) or (drops and drops.fullmatch(name)):
            continue
        name = name.replace("language_model.", "").replace("e_score_correction_bias", "e_score_correction.bias")
        for pattern, replacement in row.renames:
            name = re.sub(pattern, replacement, name)
        layer = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
        if layer is None or int(layer[1]) < n_blocks:
            yield shape._replace(name=name)


def _stacked(shapes: Iterable[Shape]) -> Iterable[Shape]:
    """Experts that lie one by one become one tensor with a third dimension."""
    experts: dict[str, list[Shape]] = {}
    for shape in shapes:
        match = _EXPERT.fullmatch(shape.name)
        if match is None:
            yield shape
            continue
        experts.setdefault(f"{match[1]}.{match[3]}", []).append(shape)
    for name, group in experts.items():
        if len({shape.shape for shape in group}) != 1:
            raise FitplugError(f"the experts of {name[:80]} differ in shape")
        merged = re.sub(r"^model\.(layers\.\d+)\.block_sparse_moe\.experts", r"\1.feed_forward.experts", name)
        yield group[0]._replace(name=merged, shape=(*group[0].shape, len(group)))


def _split(shapes: Iterable[Shape], row: Row, config: Config) -> Iterable[Shape]:
    """What the converter takes apart: gate_up of stacked experts, kv_b of latent attention."""
    for shape in shapes:
        name = shape.name
        if row.mla and name.endswith("kv_b_proj.weight"):
            yield from _latent(shape, config)
        elif ".experts." in name and re.search(r"\.(gate_up|down)_proj(\.weight|\.bias)?$", name):
            yield from _expert_pair(shape, row)
        else:
            yield shape


def _latent(shape: Shape, config: Config) -> Iterable[Shape]:
    n_head, rank = config.number("num_attention_heads"), shape.shape[0]
    nope, value = config.number("qk_nope_head_dim"), config.number("v_head_dim")
    if shape.shape[1] != n_head * (nope + value):
        raise FitplugError(f"{shape.name[:80]} is not as wide as config.json says")
    yield shape._replace(name=shape.name.replace("kv_b_proj", "k_b_proj"), shape=(nope, rank, n_head))
    yield shape._replace(name=shape.name.replace("kv_b_proj", "v_b_proj"), shape=(rank, value, n_head))


def _expert_pair(shape: Shape, row: Row) -> Iterable[Shape]:
    """gate_up_proj and down_proj of all experts at once; transposed ones are turned, but for biases and MXFP4."""
    name, suffix = shape.name, ".bias" if shape.name.endswith(".bias") else ".weight"
    base = name.removesuffix(suffix)
    n = shape.shape
    if row.fused == "columns" and suffix == ".weight" and shape.type != "mxfp4":
        n = (n[1], n[0], *n[2:])
    if base.endswith("down_proj"):
        yield shape._replace(name=base + suffix, shape=n)
        return
    half = (n[0] // 2, *n[1:]) if suffix == ".bias" else (n[0], n[1] // 2, *n[2:])
    for part in ("gate_proj", "up_proj"):
        yield shape._replace(name=base.replace("gate_up_proj", part) + suffix, shape=half)


def _mapped(shapes: Iterable[Shape], row: Row, n_blocks: int) -> Iterable[Shape]:
    names = _tensor_map(row.architecture, n_blocks)
    for shape in shapes:
        name = names.get_name(key=shape.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise FitplugError(
                f"llama.cpp has no place for the tensor {shape.name[:80]} in a model of the kind {row.architecture}"
            )
        yield shape._replace(name=name)


def _tensor_map(architecture: str, n_blocks: int) -> Any:
    import gguf  # with numpy: half a second, only for those who ask

    arch = next((arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if arch is None:
        raise FitplugError(f"the installed gguf package does not know {architecture}: update it")
    return gguf.get_tensor_name_map(arch, n_blocks)


def _extra(config: Config, row: Row) -> Iterable[Shape]:
    """generate_extra_tensors: rope factors."""
    if config.rope_type == "llama3":
        yield Shape("rope_freqs.weight", "f32", (config.head_dim // 2,))
    if row.architecture == "phi3":
        factors = config.rope("long_factor")
        n = len(factors) if isinstance(factors, tuple) and not isinstance(factors, Skipped) else 0
        if n:
            yield Shape("rope_factors_long.weight", "f32", (n,))
            yield Shape("rope_factors_short.weight", "f32", (n,))


def _written(shape: Shape, type_: str) -> str:
    """ModelBase.prepare_tensors."""
    name = shape.name
    if shape.type == "mxfp4":
        return shape.type
    if len(shape.shape) <= 1 or name.endswith(("_norm.weight", *_ALWAYS_F32)) or not name.endswith(".weight"):
        return "f32"
    return type_


def _metadata(config: Config, row: Row, n_blocks: int) -> Mapping[str, Value]:
    keys: dict[str, Value] = {"block_count": n_blocks}
    for key, names in COMMON.items():
        value = config.get(*names)
        if value is not None:
            keys[key] = value
    for derive in row.derive:
        keys |= derive(config)
    if row.nextn and config.number(row.nextn, default=0):
        keys["nextn_predict_layers"] = config.number(row.nextn)
    n_vocab = config.number("vocab_size")
    return {
        "general.architecture": row.architecture,
        **({"general.name": name} if isinstance(name := config.get("_name_or_path"), str) and name else {}),
        **{f"{row.architecture}.{key}": value for key, value in keys.items()},
        f"{row.architecture}.vocab_size": n_vocab,
        "tokenizer.ggml.model": "not converted",
        "tokenizer.ggml.tokens": Skipped("string", n_vocab),
    }


def _header(shapes: Sequence[Shape], metadata: Mapping[str, Value], ftype: str) -> Header:
    tensors, offset = {}, 0
    for shape in shapes:
        n_rows = 1
        for n in shape.shape[1:]:
            n_rows *= n
        n_bytes = row_size(shape.type, shape.shape[0]) * n_rows
        tensors[shape.name] = Tensor(shape.name, shape.type, shape.shape, n_bytes, offset)
        offset += -(-n_bytes // ALIGNMENT) * ALIGNMENT
    return Header(
        format="gguf", metadata=metadata, tensors=tensors, n_bytes=offset,
        shards=(f"model-{ftype}.gguf",), version=3, data_offsets=(0,), notes=(CONVERTED,),
    )  # fmt: skip


def _file_type(name: str) -> int:
    return next((number for number, known in FILE_TYPES.items() if known == name), 1)
