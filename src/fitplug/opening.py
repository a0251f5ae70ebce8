"""From what a user calls a model to its header: the source by its scheme, the format by its bytes."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fitplug.errors import FitplugError, NotFoundError, UnreadableError
from fitplug.formats import sniff
from fitplug.formats.header import Blob, Header

if TYPE_CHECKING:
    from fitplug.extension import Source
    from fitplug.memory.companions import Companions
    from fitplug.registry import Registry
    from fitplug.settings import Settings

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.DOTALL)
"""At least two letters, or C:\\models would be one."""
_URL = ("https", "http")


def split_reference(reference: str) -> tuple[str, str]:
    """Scheme and rest of a MODEL: a URL is its own rest, what has no scheme is a path ("file")."""
    match = _SCHEME.fullmatch(reference)
    if match is None:
        return "file", reference
    if match[1] in _URL and match[2].startswith("//"):
        return match[1], reference
    return match[1], match[2]


def as_reference(text: str, registry: "Registry") -> str:
    """What the address of a hub's page is as a MODEL or REPO; everything else as it is."""
    if split_reference(text)[0] not in _URL:
        return text
    from fitplug.repository.pages import reference_of

    found = ((item.record.scheme, reference_of(text, item.record.pages)) for item in registry.sources)
    return next((f"{scheme}:{reference}" for scheme, reference in found if reference is not None), text)


def open_blobs(reference: str, registry: "Registry") -> Sequence[Blob]:
    """The files of one model.

    Raises:
        NotFoundError: nothing of that name, or no source of that scheme.
        FitplugError: whatever the source says.
    """
    scheme, rest = split_reference(reference)
    known = {item.record.scheme: item.record for item in registry.sources}
    if scheme not in known:
        if scheme in _URL or "file" not in known:
            registry.source(scheme)
        try:  # a file may have a colon in its name
            return known["file"].open(reference)
        except NotFoundError:
            return registry.source(scheme).open(rest)
    try:
        return known[scheme].open(rest)
    except NotFoundError as error:
        raise NotFoundError(f"{error}{_hubs_words(rest, registry) if scheme == 'file' else ''}") from None


def _hubs_words(name: str, registry: "Registry") -> str:
    """How to write what is no file and may be a repository."""
    from fitplug.repository.reference import is_repository

    hubs = [item.record.scheme for item in registry.sources if item.record.list is not None]
    if not hubs or name.endswith((".gguf", ".safetensors")) or not is_repository(name.partition(":")[0]):
        return ""
    return f"; of a hub it is {' or '.join(f'{hub}:{name}' for hub in hubs)}"


def read_header(blobs: Sequence[Blob], registry: "Registry") -> Header:
    """What the first format that recognises the files reads in them."""
    for item in registry.formats:
        if item.record.recognises(blobs):
            return item.record.read(blobs)
    known = " or ".join(item.record.name for item in registry.formats)
    what = sniff.describe(blobs[0].read(0, sniff.N_BYTES)) if blobs else None
    name = blobs[0].name if blobs else "the model"
    raise UnreadableError(f"{name}: {what or f'is no model that fitplug reads ({known})'}")


def open_model(reference: str, registry: "Registry") -> Header:
    """The header of a MODEL: a path, `scheme:rest` or an https URL."""
    return _opened(reference, registry).header


class _Opened(NamedTuple):
    header: Header
    first: Blob
    """The model's first file."""


def _opened(reference: str, registry: "Registry") -> _Opened:
    scheme, rest = split_reference(reference)
    for item in registry.sources:
        if item.record.scheme == scheme and item.record.list is not None and item.record.open_file is not None:
            return _from_hub(item.record, rest, registry)
    blobs = open_blobs(reference, registry)
    header = _read_and_close(blobs, registry)
    notes = next((item.record.notes for item in registry.sources if item.record.scheme == scheme), None)
    return _Opened(header if notes is None else replace(header, notes=(*header.notes, *notes(rest))), blobs[0])


def _from_hub(source: "Source", rest: str, registry: "Registry") -> _Opened:
    """One model of a repository, with its tokenizer: whoever names one wants to know it exactly."""
    from fitplug.repository.reference import choose
    from fitplug.sources.fetched import MOST_BYTES, with_beside
    from fitplug.sources.headers import default_cache, read_headers

    assert source.list is not None and source.open_file is not None  # noqa: S101, PT018 - _opened chose it for them
    listing, chosen = choose(rest, source.list)
    read = partial(read_header, registry=registry)
    ((_, header),) = read_headers(listing, [chosen], source.open_file, read, default_cache())
    if isinstance(header, FitplugError):
        raise header
    return _Opened(
        with_beside(header, listing, chosen, source.open_file, MOST_BYTES), source.open_file(listing, chosen.entries[0])
    )


def _read_and_close(blobs: Sequence[Blob], registry: "Registry") -> Header:
    try:
        return read_header(blobs, registry)
    finally:
        for blob in blobs:
            close = getattr(blob, "close", None)  # not all have something to give back
            if close is not None:
                close()


def as_gguf(reference: str, header: Header) -> Header:
    """Safetensors as the quant that the reference asks for ("hf:OWNER/NAME:Q4_K_M"); everything else as it is."""
    wanted = reference.rpartition(":")[2].upper()
    if header.format != "safetensors":
        return header
    from fitplug.conversion.convert import convert, quantised
    from fitplug.conversion.quantize import DEFAULT_TYPES

    return quantised(convert(header), wanted) if wanted in DEFAULT_TYPES else header


def open_companions(settings: "Settings", registry: "Registry") -> "tuple[Companions, Settings]":
    """The projector, the draft and the adapters that settings name, each a MODEL of its own.

    Returns:
        What was opened, and the settings with every name made one that other programs understand: a path, or a file's URL.

    Raises:
        NotFoundError: nothing of that name, or no source of that scheme.
        FitplugError: whatever the source or the format says.
    """
    from fitplug.memory.companions import Companions
    from fitplug.model.describe import describe

    names = {"mmproj": settings.mmproj, "model_draft": settings.model_draft}
    opened = {setting: _placed(name, registry) for setting, name in names.items() if name is not None}
    adapters = [_placed(adapter.name, registry) for adapter in settings.adapters]
    draft, architectures = opened.get("model_draft"), [item.record for item in registry.architectures]
    companions = Companions(
        projector=opened["mmproj"].header if "mmproj" in opened else None,
        draft=None if draft is None else describe(draft.header, architectures, settings.kv_overrides),
        adapters=tuple(adapter.header for adapter in adapters),
        idle=frozenset(i for i, adapter in enumerate(settings.adapters) if adapter.scale == 0),
    )
    places: dict[str, Any] = {setting: one.place for setting, one in opened.items()}
    n = len(settings.lora)
    scaled = zip(adapters[n:], settings.lora_scaled, strict=True)
    return companions, replace(
        settings, **places, lora=tuple(adapter.place for adapter in adapters[:n]),
        lora_scaled=tuple(asked._replace(name=adapter.place) for adapter, asked in scaled),
    )  # fmt: skip


class _Placed(NamedTuple):
    header: Header
    place: str


def _placed(reference: str, registry: "Registry") -> _Placed:
    """A companion's header, and where a program that knows no schemes finds it."""
    scheme, rest = split_reference(reference)
    header, first = _opened(reference, registry)
    header = as_gguf(reference, header)
    if scheme in ("file", *_URL):
        return _Placed(header, rest)
    return _Placed(header, str(getattr(first, "path", None) or getattr(first, "url", reference)))


def local_path(reference: str, registry: "Registry") -> str:
    """A path that a program can open: of a model that another program keeps on this disk too; else the reference itself."""
    scheme, path = split_reference(reference)
    if scheme == "file":
        return path
    source = next((item.record for item in registry.sources if item.record.scheme == scheme), None)
    if source is None or source.list is not None or scheme in _URL:
        return reference
    return str(getattr(open_blobs(reference, registry)[0], "path", reference))
