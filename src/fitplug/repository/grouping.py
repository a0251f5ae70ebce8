"""From a list of files to the models in it.

Names decide here, since nothing has been read yet; what a header says later wins (`general.type`, `general.architecture`).
The rules of names are llama.cpp's own (common/download.cpp) and what publishers are seen to use.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from fitplug.conversion.quantize import DEFAULT_TYPES
from fitplug.errors import NotFoundError
from fitplug.extension import Entry, Listing
from fitplug.record import record


class Role(StrEnum):
    """What a group of files is for."""

    MODEL = "model"
    PROJECTOR = "projector"
    DRAFT = "draft"
    IMATRIX = "imatrix"
    ADAPTER = "adapter"
    PIECES = "pieces"
    """Raw `.part1of2` cuts: one file once they are joined, and no model before."""


@record
class Candidate:
    """Files that make one model together, the first one first."""

    role: Role
    format: str
    """"gguf" or "safetensors"."""
    label: str
    """The quant as the publisher calls it: "Q4_K_M", "UD-Q4_K_XL"; empty where the name has none."""
    name: str
    """Path of the first file, without the split's number."""
    entries: Sequence[Entry]
    missing: Sequence[str] = ()
    """Shards that should be there and are not."""

    @property
    def n_bytes(self) -> int:
        """Of all its files."""
        return sum(entry.n_bytes for entry in self.entries)


_SPLIT = re.compile(r"(?P<prefix>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_PIECE = re.compile(
    r"(?P<prefix>.+\.gguf)(?:\.part(?P<no>\d{1,4})of(?P<count>\d{1,4})|-split-(?P<letter>[a-z]))", re.IGNORECASE
)
_LABEL = re.compile(
    r"(?:^|[-._/])((?:UD-|i1-)?(?:IQ\d_(?:XXS|XS|S|M|NL(?:_XL)?)|TQ\d_\d|Q\d_K(?:_[A-Z]{1,2})?|Q\d_\d(?:_\d_\d|_X?L)?|"
    r"MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32))(?=$|[-._/])",
    re.IGNORECASE,
)
_DRAFT = re.compile(r"(^|[-_/.])(mtp|eagle3|dflash|dspark|draft)([-_/.]|$)", re.IGNORECASE)
_MAX_NAME = 60
"""Of a file in a message."""
_BESIDE = re.compile(r"consolidated\b|adapter")
"""Of a folder's safetensors those that are its model once more in Mistral's own form, or something put on it."""


def quant_label(path: str) -> str:
    """The publisher's name of the quant, the last one in the path's last part that has one."""
    for part in reversed(path.rsplit(".gguf", 1)[0].split("/")):
        found = _LABEL.findall(part)
        if found:
            label = str(found[-1])
            return label if label.startswith("i1-") else label.upper()
    return ""


def role_of(path: str) -> Role:
    """What a GGUF file is for, by its name."""
    name = path.rpartition("/")[2].lower()
    if "mmproj" in name:
        return Role.PROJECTOR
    if "imatrix" in name:
        return Role.IMATRIX
    if _DRAFT.search(path):
        return Role.DRAFT
    return Role.ADAPTER if re.search(r"(^|[-_.])lora([-_.]|$)", name) else Role.MODEL


def candidates(listing: Listing) -> list[Candidate]:
    """All groups of the listing: models first, then the rest, each by size. Drafts that are alone are its models."""
    found = [*_gguf(listing.entries), *_safetensors(listing.entries)]
    if not any(candidate.role == Role.MODEL for candidate in found):
        found = [replace(candidate, role=Role.MODEL) if candidate.role == Role.DRAFT else candidate for candidate in found]
    order = list(Role)
    return sorted(found, key=lambda c: (order.index(c.role), c.n_bytes, c.name))


def _gguf(entries: Iterable[Entry]) -> Iterable[Candidate]:
    groups: dict[tuple[str, int], dict[int, Entry]] = {}
    pieces: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        piece = _PIECE.fullmatch(entry.path)
        split = _SPLIT.fullmatch(entry.path)
        if piece:
            pieces.setdefault(piece["prefix"], {})[(piece["no"] or piece["letter"]).rjust(4, "0")] = entry
        elif split:
            groups.setdefault((split["prefix"], int(split["count"])), {})[int(split["no"])] = entry
        elif entry.path.lower().endswith((".gguf", ".gguf_file")):
            groups[entry.path, 1] = {1: entry}
    for (prefix, count), parts in groups.items():
        yield _split_candidate(prefix, count, parts)
    for prefix, cuts in pieces.items():
        yield Candidate(
            role=Role.PIECES, format="gguf", label=quant_label(prefix), name=prefix, entries=[cuts[no] for no in sorted(cuts)]
        )  # fmt: skip


def _split_candidate(prefix: str, count: int, parts: dict[int, Entry]) -> Candidate:
    wanted = range(1, min(count, len(parts) + 1000) + 1) if count > 1 else range(1, 2)
    return Candidate(
        role=role_of(prefix),
        format="gguf",
        label=quant_label(prefix),
        name=prefix,
        entries=[parts[no] for no in sorted(parts)],
        missing=[f"{prefix}-{no:05d}-of-{count:05d}.gguf" for no in wanted if no not in parts],
    )


def _safetensors(entries: Iterable[Entry]) -> Iterable[Candidate]:
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.path.endswith(".safetensors"):
            folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    for folder, there in folders.items():
        files = [entry for entry in there if not _BESIDE.search(entry.path.rpartition("/")[2])] or there
        adapter = all("adapter" in entry.path for entry in files)
        yield Candidate(
            role=Role.ADAPTER if adapter else Role.MODEL,
            format="safetensors",
            label="",
            name=folder or ".",
            entries=sorted(files, key=lambda entry: entry.path),
        )


def select(listing: Listing, wanted: str) -> Candidate:
    """The one candidate that `wanted` names: a path, a file's name, or a quant in any case; empty: the only model there is.

    A quant that could be made of safetensors may stand behind their path: "folder/model.safetensors:Q4_K_M".

    Raises:
        NotFoundError: none does, or several do; the message lists what there is.
    """
    path, _, quant = wanted.rpartition(":")
    if quant.upper() in DEFAULT_TYPES and path and not path.lower().endswith(".gguf"):
        wanted = path
    all_of_them = candidates(listing)
    models = [c for c in all_of_them if c.role == Role.MODEL]
    if not wanted:
        if len(models) == 1:
            return models[0]
        several = "holds several models: name one (fitplug check says which fit)"
        raise NotFoundError(_choices(listing, models, several if models else "holds no model"))
    by_path = [c for c in all_of_them if wanted == c.name or any(wanted == e.path for e in c.entries)]
    by_file = [c for c in all_of_them if any(wanted == e.path.rpartition("/")[2] for e in c.entries)]
    labelled = by_path or by_file or [c for c in models if c.label.lower() == wanted.lower()]
    if not labelled and wanted.upper() in DEFAULT_TYPES:  # a quant that could be made
        labelled = [c for c in models if c.format == "safetensors"]
    if len(labelled) == 1:
        return labelled[0]
    problem = f"has nothing called '{wanted}'" if not labelled else f"has several files for '{wanted}'"
    raise NotFoundError(_choices(listing, labelled or models, problem))


def _choices(listing: Listing, models: Sequence[Candidate], problem: str) -> str:
    names = [c.label or c.name for c in models]
    names = names if len(set(names)) == len(names) else [c.name for c in models]
    shown = ", ".join(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…" for name in names[:12])
    shown += f" and {len(names) - 12} more" if len(names) > 12 else ""
    note = f" ({listing.notes[0]})" if listing.notes else ""
    return f"{listing.repository} {problem}" + (f"; there is: {shown}" if names else "") + note
