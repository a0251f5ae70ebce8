"""From a header to a `Model`: llama.cpp's load_hparams (src/llama-model.cpp), then what the architecture's row changes.

`describe` is the only entry. Everything that the memory arithmetic and the graphs need of a header is on the `Model` and
its `Layer`s under llama.cpp's names; further whole numbers are in `Model.extra` (read them with `Model.hparam`), and
`Model.get` reaches the raw metadata. What the architecture does by kind is on `Model.row`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from fitplug.conversion import CONVERTED
from fitplug.errors import UnreadableError
from fitplug.extension import Architecture
from fitplug.formats.ggml_types import BY_NAME
from fitplug.formats.header import Header
from fitplug.model.architectures import TABLE, UNKNOWN, Row
from fitplug.model.file_types import file_type
from fitplug.model.hparams import read_hparams
from fitplug.model.hparams_record import Hparams
from fitplug.model.layers import build_layers, memory_kind
from fitplug.model.loader import refusal
from fitplug.model.other_files import other_than_model
from fitplug.model.overridden import overridden
from fitplug.model.reading import Keys
from fitplug.model.records import Model
from fitplug.settings import KvOverride

_SEPARATE_EXPERT = re.compile(r"blk\.\d+\.ffn_(gate|down|up)\.\d+\.weight", re.ASCII)


def describe(header: Header, extra: Sequence[Architecture] = (), overrides: Sequence[KvOverride] = ()) -> Model:
    """Understand a header.

    Args:
        header: of any format, with llama.cpp's keys in its metadata.
        extra: architectures of plugins; they win over the table.
        overrides: metadata that is taken in place of the file's (--override-kv).

    Raises:
        UnreadableError: it does not say what it is, or a count is impossible.
    """
    if header.format == "safetensors":
        from fitplug.conversion.convert import convert

        header = convert(header)
    model = _described(overridden(header, overrides) if overrides else header, extra)
    return replace(model, assumptions=(*model.assumptions, CONVERTED)) if CONVERTED in header.notes else model


def _described(header: Header, extra: Sequence[Architecture]) -> Model:
    name = header.metadata.get("general.architecture")
    for plugin in extra:
        if name in plugin.names:
            return plugin.describe(header)
    if other := other_than_model(header):
        raise UnreadableError(f"this file is {other}")
    if not isinstance(name, str) or not name:
        raise UnreadableError(f"the {header.format} header does not name an architecture (general.architecture)")
    row = TABLE.get(name)
    keys = Keys(header, name)
    return _unknown(name, header) if row is None else _model(keys, row, ())


def _unknown(name: str, header: Header) -> Model:
    """As the known architecture that it is most like, else as a plain transformer."""
    from fitplug.model.nearest import candidates

    if f"{name}.block_count" not in header.metadata:
        raise UnreadableError(f"llama.cpp knows no architecture '{name}', and the file does not say what language models say")
    for family, row in candidates(header):
        supposed = f"the architecture '{name}' is not known: caches and graph are supposed to be those of '{family}'"
        model = _model(Keys(header, name), row, (supposed, "weights are placed by their names; compute buffers are rounded up"))
        if not model.refusals:
            return replace(model, family=family)
    assumptions = (
        f"the architecture '{name}' is not known: a plain transformer with attention and a cache in every layer is supposed",
        "weights are placed by their names; compute buffers follow a general formula",
    )
    return _model(Keys(header, name), UNKNOWN._replace(name=name), assumptions)


def _model(keys: Keys, row: Row, assumptions: tuple[str, ...]) -> Model:
    if not row.loadable:
        keys.refuse(f"llama.cpp has no model class for the architecture '{row.name}'")
    _check_tensors(keys)
    h = read_hparams(keys, row)
    header = keys.header
    if header.format == "gguf" and header.tensors and not assumptions and not keys.refusals:
        unloadable = refusal(row.name, header, h)
        if unloadable is not None:
            keys.refuse(unloadable)
    name = header.metadata.get("general.name")
    return Model(
        architecture=row.name, name=name if isinstance(name, str) else row.name, header=header, known=not assumptions,
        row=row, memory=memory_kind(h, row), layers=build_layers(h, row), n_layer_nextn=h.n_layer_nextn, n_embd=h.n_embd,
        n_vocab=h.n_vocab, n_ctx_train=h.n_ctx_train, n_swa=h.n_swa, n_expert=h.n_expert, is_mla=h.is_mla,
        causal=h.causal and not row.not_causal,
        tied_output=_tied(header, row), has_output=row.output != "none", has_encoder=row.encoder,
        flash_attn_forced="off" if row.flash_attn_off else None, swa_type=h.swa_type,
        n_embd_head_k_mla=h.n_embd_head_k_mla, n_embd_head_v_mla=h.n_embd_head_v_mla, n_embd_inp=h.n_embd_inp,
        n_embd_out=h.n_embd_out, n_pos_per_embd=_positions(h, row),
        n_params=sum(t.n_elements for t in header.tensors.values()),
        n_bytes=sum(t.n_bytes for t in header.tensors.values()),
        file_type=file_type(header), assumptions=assumptions, refusals=tuple(keys.refusals), extra=h.extra,
    )  # fmt: skip


def _check_tensors(keys: Keys) -> None:
    """gguf_init_from_file and the loader's own checks of what the file holds."""
    for type_ in {tensor.type for tensor in keys.header.tensors.values()}:
        found = BY_NAME.get(type_)
        if found is None or found.removed:
            keys.refuse(f"ggml has no tensor type '{type_[:40]}' (any more)")
    if any(_SEPARATE_EXPERT.match(name) for name in keys.header.tensors):
        keys.refuse("its experts are stored one by one, as old files do; llama.cpp no longer reads that")


def _tied(header: Header, row: Row) -> bool:
    """Whether token_embd.weight is multiplied with as the output matrix."""
    if row.output == "tied":
        return True
    return row.output == "optional" and "output.weight" not in header.tensors


def _positions(h: Hparams, row: Row) -> int:
    """llama_hparams::n_pos_per_embd, llama_model_rope_type."""
    if row.rope in ("mrope", "imrope"):
        return 4 if row.window is None or row.window.layers != "draft" or any(h.sections) else 1
    return 4 if row.rope.startswith("mrope_or_") and h.sections[0] > 0 and h.sections[1] > 0 else 1
