"""The page of `fitplug show`, and the same as JSON."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fitplug.errors import FitplugError
from fitplug.extension import Architecture
from fitplug.formats.header import Header, Skipped, Value
from fitplug.model.describe import describe
from fitplug.model.records import Model
from fitplug.render.page import Block, Line, Pairs, Points, Table, Title
from fitplug.render.text import one_line, shortened
from fitplug.render.words import format_params
from fitplug.units import format_bytes

if TYPE_CHECKING:
    from fitplug.conversion.sizes import Size

_MAX_VALUE = 60
_IMATRIX = "a file made with an importance matrix also holds the names of the matrix and of its texts, which nobody knows yet"


def understood(header: Header, architectures: Sequence[Architecture]) -> Model | str:
    """The model, or why it is none."""
    try:
        return describe(header, architectures)
    except FitplugError as error:
        return str(error)


def page(header: Header, model: Model | str, *, everything: bool) -> Sequence[Block]:
    """The model in words, its tensors by type and by place, and on request every key and tensor.

    A header without an architecture that can be understood (an adapter, a broken conversion) is shown all the same.
    """
    blocks: list[Block] = [_title(header, model)]
    if isinstance(model, Model):
        blocks.append(Pairs("model", _model_pairs(model)))
    blocks += [Pairs("file", _file_pairs(header)), _types_table(header), _places_table(header)]
    tokenizer = _tokenizer_pairs(header)
    if tokenizer:
        blocks.append(Pairs("tokenizer", tokenizer))
    files = _as_gguf(header, model)
    if files:
        blocks.append(_gguf_table(files))
    if everything:
        blocks += [
            Pairs("keys", [(one_line(key), _value(value)) for key, value in header.metadata.items()]),
            Table("every tensor", ("tensor", "type", "shape", ">bytes"), [
                (one_line(t.name), t.type, " x ".join(map(str, t.shape)), f"{t.n_bytes:,}") for t in header.tensors.values()
            ]),
        ]  # fmt: skip
    notes = [*(model.assumptions if isinstance(model, Model) else [model]), *header.notes, *_doubts(model, files)]
    if notes:
        blocks.append(Points("notes", list(map(one_line, notes))))
    if not everything:
        blocks.append(Line(f"{len(header.metadata)} keys and {len(header.tensors)} tensors: --all shows them", "quiet"))
    return blocks


def header_json(header: Header, model: Model | str, *, everything: bool) -> dict[str, Any]:
    """The same for scripts; keys and tensors one by one with `everything`."""
    from fitplug.render.json import model_json

    files = _as_gguf(header, model)
    shown: dict[str, Any] = {
        "model": model_json(model) | {"layers": _layers_json(model)} if isinstance(model, Model) else None,
        "format": header.format,
        "version": header.version,
        "byte_order": header.byte_order,
        "files": list(header.shards),
        "n_bytes": header.n_bytes,
        "header_bytes": header.header_bytes,
        "n_tensors": len(header.tensors),
        "bits_per_weight": _bits_per_weight(header),
        "types": [
            {"type": kind, "n_tensors": n, "n_elements": elements, "n_bytes": n_bytes}
            for kind, (n, elements, n_bytes) in _by_type(header).items()
        ],
        "tokenizer": dict(_tokenizer_pairs(header)),
        "chat_template": template if isinstance(template := header.metadata.get("tokenizer.chat_template"), str) else None,
        "as_gguf": _gguf_json(files),
        "notes": [*([] if isinstance(model, Model) else [model]), *header.notes, *_doubts(model, files)],
    }
    if everything:
        shown["metadata"] = {key: _value_json(value) for key, value in header.metadata.items()}
        shown["tensors"] = [
            {"name": t.name, "type": t.type, "shape": list(t.shape), "n_bytes": t.n_bytes, "file": t.shard}
            for t in header.tensors.values()
        ]
    return shown


def _title(header: Header, model: Model | str) -> Title:
    if isinstance(model, Model):
        facts = (model.architecture, model.file_type, format_params(model.n_params), format_bytes(model.n_bytes))
        return Title(shortened(model.name or model.architecture, 70), [one_line(fact) for fact in facts if fact])
    return Title(shortened(header.shards[0] if header.shards else header.format, 70), [format_bytes(header.n_bytes)])


def _model_pairs(model: Model) -> list[tuple[str, str]]:
    kinds = Counter(
        "recurrent" if la.is_recurrent else "window" if la.is_swa else "full" for la in model.layers[: model.n_layer]
    )
    layers = f"{model.n_layer}" + (f" and {model.n_layer_nextn} for multi-token prediction" if model.n_layer_nextn else "")
    if len(kinds) > 1 or "full" not in kinds:
        words = {"full": "with full attention", "window": f"with a window of {model.n_swa}", "recurrent": "recurrent"}
        layers += f": {', '.join(f'{n} {words[kind]}' for kind, n in kinds.most_common())}"
    pairs = [("layers", layers), ("trained context", f"{model.n_ctx_train:,} tokens"), ("embedding", f"{model.n_embd:,}")]
    heads = _span(la.n_head for la in model.layers), _span(la.n_head_kv for la in model.layers)
    pairs.append(("heads", f"{heads[0]}, {heads[1]} for K and V" if heads[0] != heads[1] else heads[0]))
    pairs.append(("vocabulary", f"{model.n_vocab:,} tokens" + (", tied to the output" if model.tied_output else "")))
    if model.n_expert:
        pairs.append(("experts", f"{model.n_expert}, {_span(la.n_expert_used for la in model.layers)} used for a token"))
    pairs.append(("cache", model.memory))
    return pairs


def _span(values: Any) -> str:
    found = sorted(set(values))
    return "0" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _file_pairs(header: Header) -> list[tuple[str, str]]:
    version = f" {header.version}" if header.version else ""
    order = "" if header.byte_order == "little" else f", {header.byte_order} endian"
    pairs = [
        ("format", f"{header.format}{version}{order}"),
        ("size", f"{header.n_bytes:,} bytes" + (f" in {len(header.shards)} files" if len(header.shards) > 1 else "")),
        ("header", format_bytes(header.header_bytes)),
    ]
    bits = _bits_per_weight(header)
    return [*pairs, ("bits per weight", f"{bits:.2f}")] if bits else pairs


def _bits_per_weight(header: Header) -> float | None:
    from fitplug.conversion.stored import bits_per_parameter

    return round(bits_per_parameter(header), 4) or None


def _by_type(header: Header) -> dict[str, tuple[int, int, int]]:
    """Type → tensors, elements, bytes; the heaviest first."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in header.tensors.values():
        row = found[tensor.type]
        row[0], row[1], row[2] = row[0] + 1, row[1] + tensor.n_elements, row[2] + tensor.n_bytes
    ordered = sorted(found.items(), key=lambda item: -item[1][2])
    return {kind: (n, elements, n_bytes) for kind, (n, elements, n_bytes) in ordered}


def _types_table(header: Header) -> Table:
    total = sum(t.n_bytes for t in header.tensors.values()) or 1
    rows = [
        (one_line(kind), f"{n}", f"{elements:,}", format_bytes(n_bytes), f"{8 * n_bytes / elements:.2f}" if elements else "",
         f"{100 * n_bytes / total:.1f}%")
        for kind, (n, elements, n_bytes) in _by_type(header).items()
    ]  # fmt: skip
    return Table("tensors by type", ("type", ">tensors", ">weights", ">memory", ">bits", ">share"), rows)


def _as_gguf(header: Header, model: Model | str) -> "Sequence[Size]":
    """The files that llama.cpp's tools make of safetensors."""
    if header.format != "safetensors" or isinstance(model, str):
        return ()
    from fitplug.conversion.sizes import sizes

    return sizes(model.header)


def _gguf_table(files: "Sequence[Size]") -> Table:
    rows = [
        (one.file_type, f"{one.n_bytes:,}" if one.exact else f"about {one.n_bytes:,}", format_bytes(one.n_bytes),
         "" if one.exact else f"{max(one.high - one.n_bytes, one.n_bytes - one.low):,}")
        for one in files
    ]  # fmt: skip
    return Table("as GGUF", ("file type", ">bytes", ">size", ">give or take"), rows)


def _doubts(model: Model | str, files: "Sequence[Size]") -> list[str]:
    """Why the size as GGUF is not known to the byte."""
    if isinstance(model, str) or all(one.exact for one in files):
        return []
    return [note for note in model.header.notes if note not in model.assumptions] or [_IMATRIX]


def _gguf_json(files: "Sequence[Size]") -> list[dict[str, Any]]:
    return [
        {"file_type": one.file_type, "n_bytes": one.n_bytes, "low_bytes": one.low, "high_bytes": one.high, "exact": one.exact}
        for one in files
    ]


def _places_table(header: Header) -> Table:
    sizes: Counter[str] = Counter()
    for tensor in header.tensors.values():
        sizes[_place(tensor.name)] += tensor.n_bytes
    return Table("tensors by place", ("place", ">memory"), [(place, format_bytes(n)) for place, n in sizes.most_common() if n])


def _place(name: str) -> str:
    if name.startswith(("blk.", "model.layers.")):
        return "experts" if "_exps" in name or ".experts." in name else "attention" if "attn" in name else "other layer weights"
    return "embeddings and output"


def _tokenizer_pairs(header: Header) -> list[tuple[str, str]]:
    names = {"model": "tokenizer.ggml.model", "pre": "tokenizer.ggml.pre", "bos": "tokenizer.ggml.bos_token_id",
             "eos": "tokenizer.ggml.eos_token_id"}  # fmt: skip
    pairs = [(name, _value(header.metadata[key])) for name, key in names.items() if key in header.metadata]
    length = header.length("tokenizer.ggml.tokens")
    if length is not None:
        pairs.append(("tokens", f"{length:,}"))
    template = header.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        pairs.append(("chat template", f"{len(template):,} characters"))
    return pairs


def _layers_json(model: Model) -> list[dict[str, Any]]:
    sizes: Counter[int] = Counter()
    for tensor in model.tensors.values():
        head, _, rest = tensor.name.partition(".")
        number = rest.partition(".")[0]
        if head == "blk" and number.isdecimal():
            sizes[int(number)] += tensor.n_bytes
    return [
        {"index": i, "n_bytes": sizes[i], "n_head": layer.n_head, "n_head_kv": layer.n_head_kv,
         "n_swa": model.n_swa if layer.is_swa else 0, "recurrent": layer.is_recurrent}
        for i, layer in enumerate(model.layers)
    ]  # fmt: skip


def _value(value: Value) -> str:
    if isinstance(value, Skipped):
        return f"{value.length:,} x {value.item_type}"
    if isinstance(value, tuple):
        head = ", ".join(map(str, value[:8]))
        return shortened(f"[{head}{', …' if len(value) > 8 else ''}]", _MAX_VALUE)
    return shortened(str(value), _MAX_VALUE)


def _value_json(value: Value) -> Any:
    if isinstance(value, Skipped):
        return {"array": value.item_type, "length": value.length}
    return list(value) if isinstance(value, tuple) else value
