"""What a safetensors model would be as GGUF: convert_hf_to_gguf.py's tensors and keys, then llama-quantize's types.

Tensors' names come from gguf-py's own tensor maps (`names`), what a class of models does besides from its row (`classes`).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from fitplug.conversion import CONVERTED
from fitplug.conversion.classes import REFUSED, ROWS
from fitplug.conversion.common import COMMON, rope_scaling, text_name
from fitplug.conversion.config import MAX_LAYERS, Config
from fitplug.conversion.dequantize import unpacked
from fitplug.conversion.layout import ALIGNMENT, NOT_CONVERTED, header_length
from fitplug.conversion.names import TensorNames
from fitplug.conversion.quantize import Facts, Shape, tensor_types
from fitplug.conversion.row import MOVED, Row, Step, keys_of
from fitplug.conversion.words import cut_to_words, with_words
from fitplug.errors import FitplugError
from fitplug.formats.ggml_types import FILE_TYPES, row_size
from fitplug.formats.header import Header, Skipped, Tensor, Value

CUSTOMARY = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K")
"""Quants that people make."""
KEPT = {"mxfp4": "MXFP4_MOE", "nvfp4": "NVFP4"}
"""Types that the converter leaves as they are, and what it calls a file of them."""
_EXPERT = re.compile(r"(.*(?:experts|\.moe))\.(\d+)\.(.+)")
_ALWAYS_F32 = tuple(f"{name}.weight" for name in (
    "ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "time_mix_first",
    "time_mix_w1", "time_mix_w2", "time_mix_decay_w1", "time_mix_decay_w2", "time_mix_lerp_fused", "altup_correct_coef",
    "altup_predict_coef", "ssm_conv1d_q", "ssm_conv1d_k", "ssm_conv1d_v", "indexer.proj",
))  # fmt: skip
"""ModelBase.prepare_tensors; so are tensors of one dimension, norms, and what is no weight."""
_FURTHER = {"graniteswitch": 1}
"""Layers that have a cache and no block (src/models/granite-switch.cpp, load_arch_hparams)."""
NO_MTP = "its blocks for multi-token prediction have no tensors here, so that llama.cpp loads only what --no-mtp converts"
"""The note on a checkpoint that lost them, as finetuning does, and whose config.json counts them all the same."""
_NUMBERS = ("i32", "i64")
"""Types of tables, which are no weights: written as they are."""
_OWN = ("tokenizer.", "xielu.", "diffusion.")
"""Keys without the architecture's name."""

IMATRIX: Mapping[str, Value] = {
    "quantize.imatrix.file": Skipped("char", 127, n_bytes=1), "quantize.imatrix.dataset": Skipped("char", 127, n_bytes=1),
    "quantize.imatrix.entries_count": 0, "quantize.imatrix.chunks_count": 0,
}  # fmt: skip
"""What llama-quantize writes down of an importance matrix, whose names nobody knows yet (tools/quantize/quantize.cpp)."""


def convert(header: Header) -> Header:
    """The header as convert_hf_to_gguf.py would write it, in the type that most of it has.

    Raises:
        FitplugError: fitplug does not know this class of models, or llama.cpp's converter does not read it.
    """
    config = Config(header)
    row = _row(config)
    names = [name for name in (_own_name(tensor.name, row) for tensor in header.tensors.values()) if name is not None]
    n_own = (row.blocks or (lambda config: config.n_layer))(config)
    n_blocks = n_own + _n_nextn(row, config, names)
    if not 0 < n_blocks <= MAX_LAYERS:
        raise FitplugError(f"config.json has {n_blocks} layers, which cannot be")
    config.n_blocks = n_blocks
    own = row.stored(config, header.tensors) if row.stored else None
    shapes: Iterable[Shape] = _stacked(_text(unpacked(header, config, own), row))
    for step in row.steps:
        shapes = [made for shape in shapes for made in _stepped(step, shape, config)]
    type_ = _guessed(header)
    mapped = [*(shape for extra in row.extra for shape in extra(config)), *_mapped(shapes, row, n_blocks)]
    typed: Sequence[Shape] = [shape._replace(type=_written(shape, type_, row)) for shape in mapped]
    if len({shape.name for shape in typed}) != len(typed):
        raise FitplugError("two tensors would have one name as GGUF: the model is not what its config.json says")
    ftype = next((KEPT[shape.type] for shape in typed if shape.type in KEPT), type_.upper())
    typed = cut_to_words(header, config, typed)
    metadata = {**_metadata(config, row, n_blocks), **({"general.file_type": _file_type(ftype)} if row.labelled else {})}
    found, note = with_words(header, config, row.architecture, typed, metadata)
    notes = [*row.notes, *([note] if note else []), *([NO_MTP] if _lacks_further(typed, n_own, n_blocks) else [])]
    return _header(typed, found, ftype, notes)


def _lacks_further(shapes: Sequence[Shape], n_own: int, n_blocks: int) -> bool:
    """Whether there are to be blocks for multi-token prediction, and none of their tensors is there."""
    blocks = (re.match(r"blk\.(\d+)\.", shape.name) for shape in shapes)
    return n_blocks > n_own and all(int(block[1]) < n_own for block in blocks if block)


def _stepped(step: Step, shape: Shape, config: Config) -> Iterable[Shape]:
    try:
        return list(step(shape, config))
    except (IndexError, ArithmeticError):
        raise FitplugError(f"{shape.name[:80]} has other dimensions than such a tensor of {config.architecture} has") from None


def quantised(header: Header, ftype: str, *, imatrix: bool | None = None) -> Header:
    """A converted header after llama-quantize.

    Args:
        header: of `convert`.
        ftype: "Q4_K_M", …
        imatrix: whether an importance matrix is used; None: as people do, for the IQ types.

    Raises:
        FitplugError: no such file type, or llama-quantize refuses this one.
    """
    if any(tensor.type == "nvfp4" for tensor in header.tensors.values()):
        if ftype == "NVFP4":
            return header
        raise FitplugError(f"it is NVFP4 already, which llama-quantize does not quantise again: no {ftype}, but NVFP4")
    with_imatrix = ftype.startswith("IQ") if imatrix is None else imatrix
    shapes = [Shape(tensor.name, tensor.type, tensor.shape) for tensor in header.tensors.values()]
    types = tensor_types(shapes, facts_of(header.metadata), ftype, imatrix=with_imatrix)
    if any(shape.type == "mxfp4" and types[shape.name] != "mxfp4" for shape in shapes):
        raise FitplugError(
            f"its experts are MXFP4 already, which llama-quantize does not quantise again: no {ftype}, but MXFP4_MOE"
        )
    made = [shape._replace(type=types[shape.name], shape=_trimmed(shape.shape)) for shape in shapes]
    doubt = header_length(header.metadata, header.tensors.values()).doubt
    keys = {**header.metadata, "general.file_type": _file_type(ftype), **(IMATRIX if with_imatrix else {})}
    return _header(made, keys, ftype, [note for note in header.notes if note not in (CONVERTED, doubt)])


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without dimensions of one at the end, as ggml counts them (ggml_n_dims)."""
    n = max((i + 1 for i, size in enumerate(shape) if size > 1), default=1)
    return shape[:n]


def customary(header: Header) -> Sequence[str]:
    """The file types that a converted header is worth looking at in."""
    return next(((KEPT[tensor.type],) for tensor in header.tensors.values() if tensor.type in KEPT), CUSTOMARY)


def _row(config: Config) -> Row:
    found = ROWS.get(config.architecture)
    if config.architecture in REFUSED:
        raise FitplugError(f"{config.architecture}: {REFUSED[config.architecture]}")
    if found is None:
        what = f"models of the class {config.architecture[:60]}" if config.architecture else "a model without config.json"
        raise FitplugError(f"what llama.cpp would make of {what} is not known; look for a repository with GGUF files")
    return found if isinstance(found, Row) else found(config)


def facts_of(metadata: Mapping[str, Value]) -> Facts:
    """What of a GGUF's keys decides its tensors' types."""
    architecture = str(metadata["general.architecture"])

    def number(key: str) -> int:
        value = metadata.get(f"{architecture}.{key}", 0)
        value = value[0] if isinstance(value, tuple) and not isinstance(value, Skipped) and value else value
        return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0

    n_head = number("attention.head_count")
    n_head_kv = number("attention.head_count_kv") if f"{architecture}.attention.head_count_kv" in metadata else n_head
    n_layer_all = number("block_count") * max(1, number("num_loops"))  # looped blocks count each time they run
    n_layer_all += _FURTHER.get(architecture, 0)
    return Facts(architecture, n_layer_all, number("expert_count"), n_head, n_head_kv)


def _n_nextn(row: Row, config: Config, names: Iterable[str]) -> int:
    """Blocks for multi-token prediction: what config.json says, or as many as there are."""
    if isinstance(row.nextn, int):
        return row.nextn
    if not row.nextn:
        return 0
    given, *patterns = row.nextn
    n = config.number(given, default=0)
    there = [
        int(match[1]) for pattern in patterns for name in names if (match := re.search(rf"{re.escape(pattern)}\.(\d+)\.", name))
    ]
    return n or max((i + 1 for i in there), default=0)


def _own_name(name: str, row: Row) -> str | None:
    """What the class itself sees; None for what is not its own."""
    return text_name(name.removeprefix(row.prefix)) if name.startswith(row.prefix) else None


def _text(shapes: Iterable[Shape], row: Row) -> Iterable[Shape]:
    """The text model's tensors."""
    for shape in shapes:
        name = _own_name(shape.name, row)
        if name is not None:
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
        yield group[0]._replace(name=name, shape=(*group[0].shape, len(group)))


def _mapped(shapes: Iterable[Shape], row: Row, n_blocks: int) -> Iterable[Shape]:
    names = TensorNames(row.architecture)
    for shape in shapes:
        name = _place(names, shape.name)
        block = re.match(r"(?:blk|model\.layers)\.(\d+)\.", name or shape.name)
        if block and int(block[1]) >= n_blocks and (row.trunk_only or name is None):
            continue
        if name is None or (block and int(block[1]) >= n_blocks):
            raise FitplugError(
                f"llama.cpp has no place for the tensor {shape.name[:80]} in a model of the kind {row.architecture}"
            )
        yield shape._replace(name=name, shape=shape.shape or (1,))


def _place(names: TensorNames, name: str) -> str | None:
    """Where a tensor goes, by its own name or by what the converter calls it once its experts are stacked."""
    if name.startswith("blk."):  # a step has named it, some of them as no map does
        return name
    scale = re.search(r"\.(scale|input_scale)$", name)
    if scale and names.find(name) is None:  # of a weight in NVFP4
        found = _place(names, name.removesuffix(scale[0]) + ".weight")
        return found and found.removesuffix(".weight") + scale[0]
    others = [name]
    experts = re.fullmatch(r"(?:\w+\.)*layers\.(\d+)\.(?:\w+\.)*experts\.(\w+)\.weight", name)
    if experts:
        others.append(f"layers.{experts[1]}.feed_forward.experts.{experts[2]}.weight")
        others.append(f"model.layers.{experts[1]}.mlp.experts.{experts[2]}.weight")
    return next((found for other in others if (found := names.find(other)) is not None), None)


def _guessed(header: Header) -> str:
    """The type of a conversion without --outtype: that of the first matrix in 16 bits (ModelBase.__init__)."""
    for tensor in header.tensors.values():
        if len(tensor.shape) > 1 and tensor.type in ("bf16", "f16") and text_name(tensor.name) is not None:
            return tensor.type
    return "f16"


def _written(shape: Shape, type_: str, row: Row) -> str:
    """ModelBase.prepare_tensors."""
    name = shape.name
    if shape.type in KEPT:
        return shape.type
    forced = next((kind for pattern, kind in row.forced if re.search(pattern, name)), row.types.get(shape.type))
    if forced in _NUMBERS:
        return forced
    if len(shape.shape) <= 1 or name.endswith("_norm.weight"):
        return "f32"
    if forced is not None:
        return type_ if forced == "written" else forced
    if (name.endswith(_ALWAYS_F32) and shape.type != MOVED) or not name.endswith((".weight", ".lora_a", ".lora_b")):
        return "f32"
    return type_


def _metadata(config: Config, row: Row, n_blocks: int) -> Mapping[str, Value]:
    keys: dict[str, Value] = {"block_count": n_blocks}
    if row.common:
        keys |= {**keys_of(COMMON, config), **rope_scaling(config)}
    keys = {key: value for key, value in keys.items() if key not in row.without} | keys_of(row.keys, config)
    for derive in row.derive:
        keys |= derive(config)
    if row.nextn and n_blocks > config.n_layer:
        keys["nextn_predict_layers"] = n_blocks - config.n_layer
    n_vocab = row.n_words(config) if row.n_words else config.number("vocab_size", "padded_vocab_size")
    return {
        "general.architecture": row.architecture,
        **({"general.name": name} if isinstance(name := config.get("_name_or_path"), str) and name else {}),
        **{key if key.startswith(_OWN) else f"{row.architecture}.{key}": value for key, value in keys.items()},
        "tokenizer.ggml.model": NOT_CONVERTED,
        "tokenizer.ggml.tokens": Skipped("string", n_vocab),
    }


def _header(shapes: Sequence[Shape], metadata: Mapping[str, Value], ftype: str, notes: Sequence[str]) -> Header:
    tensors, offset = {}, 0
    for shape in shapes:
        n_rows = 1
        for n in shape.shape[1:]:
            n_rows *= n
        n_bytes = row_size(shape.type, shape.shape[0]) * n_rows
        tensors[shape.name] = Tensor(shape.name, shape.type, shape.shape, n_bytes, offset)
        offset += -(-n_bytes // ALIGNMENT) * ALIGNMENT
    length = header_length(metadata, tensors.values())
    return Header(
        format="gguf", metadata=metadata, tensors=tensors, n_bytes=length.likely + offset, header_bytes=length.likely,
        shards=(f"model-{ftype}.gguf",), version=3, data_offsets=(length.likely,),
        notes=(CONVERTED, *notes, *([length.doubt] if length.doubt else [])),
    )  # fmt: skip


def _file_type(name: str) -> int:
    return next((number for number, known in FILE_TYPES.items() if known == name), 1)
