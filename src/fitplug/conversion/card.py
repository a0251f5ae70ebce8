"""What a converted model says of itself under general.*: gguf.Metadata (gguf-py/gguf/metadata.py).

In this order: the model card, config.json's _name_or_path, the name of the folder; the first that says something counts.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from fitplug.conversion.model_name import Parts, parts_of, title
from fitplug.conversion.quantize import Shape
from fitplug.conversion.vocabulary.beside import Beside, UnreadError
from fitplug.conversion.vocabulary.pairs import Pairs

MAX_CARD = 256 << 10
"""Bytes of a card's front matter that are taken apart."""
_SAMPLING = {
    "sequence": "sequence", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold", "temp": "temperature", "penalty_last_n": "penalty_last_n", "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip
_TEXTS = {
    "name": ("name", "model_name"), "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"), "organization": ("organization", "model_organization"),
    "description": ("description", "model_description"),
    "finetune": ("finetune", "model_finetune"), "basename": ("basename", "model_basename", "model_type"),
    "size_label": ("size_label", "model_size_label"), "source.url": ("url", "model_url"), "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"), "source.repo_url": ("repo_url", "model_repo_url"), "license": ("license",),
    "license.name": ("license_name",), "license.link": ("license_link",),
}  # fmt: skip
"""Key → the card's names for it; the first that is there and not null counts."""
_LISTS: Mapping[str, tuple[str, ...]] = {"tags": ("tags", "pipeline_tag"), "languages": ("languages", "language")}
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "base_model": ("base_model", "base_models", "base_model_sources"), "dataset": ("datasets", "dataset", "dataset_sources"),
}  # fmt: skip
_ENTRY = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_NAMES = frozenset(name for group in (_TEXTS, _LISTS, _SOURCES) for names in group.values() for name in names)
_ENTRY_START = re.compile(r"([A-Za-z_][\w-]*)\s*:(?:\s|$)")
_HUB = re.compile(r"https?://huggingface.co/([^/]+/[^/]+)$")


def card(beside: Beside, shapes: Iterable[Shape]) -> Pairs:
    """The keys.

    Args:
        beside: the checkpoint's small files.
        shapes: the tensors as GGUF has them.

    Raises:
        UnreadError: the card is not what it should be.
    """
    pairs = Pairs()
    total, label = _parameters(shapes)
    try:
        said = _front_matter(beside)
        _sampling(pairs, beside)
        _names(pairs, _texts(said), beside, total, label)
        for key, names in _SOURCES.items():
            _sources(
                pairs, key, next((said[name] for name in names if name in said), None), any(n in said for n in names), total
            )
        for key, names in _LISTS.items():
            _list(pairs, key, [said.get(name) for name in names])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        raise UnreadError("its card has entries that the converter does not take") from None  # any shape of YAML may have come
    return pairs


def _front_matter(beside: Beside) -> Mapping[str, Any]:
    """Metadata.load_model_card."""
    if not beside.has("README.md"):
        return {}
    lines = beside.text("README.md").splitlines()
    if not lines or lines[0] != "---":
        return {}
    end = next((i for i, line in enumerate(lines) if i and line == "---"), len(lines))
    text = ("\n".join(_wanted(lines[1:end])) + "\n").replace("- no\n", '- "no"\n').replace("\t", "  ")
    if len(text) > MAX_CARD:
        raise UnreadError("README.md begins with more than any card")
    import yaml  # type: ignore[import-untyped]  # whose hints are a package of their own

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UnreadError("README.md begins with what is no YAML") from None
    return found if isinstance(found, dict) else {}


def _wanted(lines: Iterable[str]) -> Iterator[str]:
    """The lines of what is looked at: some cards have half a megabyte of measurements besides."""
    wanted = True
    for line in lines:
        match = _ENTRY_START.match(line)
        if match:
            wanted = match[1] in _NAMES
        if wanted:
            yield line


def _texts(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, names in _TEXTS.items():
        value = next((said[name] for name in names if said.get(name) is not None), None)
        if value is not None:
            found[key] = value
    return found


def _sampling(pairs: Pairs, beside: Beside) -> None:
    try:
        said = beside.json_or_empty("generation_config.json")
    except UnreadError:
        return  # so does the converter
    values = {key: said.get(name) for key, name in _SAMPLING.items()}
    values["penalty_repeat"] = said.get("penalty_repeat", said.get("repetition_penalty"))
    for key, value in values.items():
        if value is not None and key != "sequence":
            pairs.number(f"general.sampling.{key}", value)
        elif value is not None:
            pairs.text("general.sampling.sequence", value)


def _names(pairs: Pairs, found: dict[str, Any], beside: Beside, total: int, label: str) -> None:
    said = beside.json_or_empty("config.json").get("_name_or_path")
    for name in (said if said is not None and said.count("/") <= 1 else None, beside.folder):
        if name is not None:
            _fill(found, parts_of(name, total))
    found.setdefault("name", beside.folder)
    if label:
        found.setdefault("size_label", label)
    if isinstance(found.get("license"), list):
        found["license"] = ",".join(found["license"])
    for key, value in found.items():
        pairs.text(f"general.{key}", value)


def _fill(found: dict[str, Any], parts: Parts) -> None:
    titled = {"name": parts.name, "organization": parts.organization}
    for key, value in titled.items():
        if value is not None:
            found.setdefault(key, title(value))
    others = {"basename": parts.basename, "finetune": parts.finetune, "version": parts.version, "size_label": parts.size_label}
    for key, value in others.items():
        if value is not None:
            found.setdefault(key, value)


def _sources(pairs: Pairs, key: str, value: Any, there: bool, total: int) -> None:
    """Models that this one is made of, or what it was trained on."""
    if not there:
        return
    entries = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    pairs.number(f"general.{key}.count", len(entries))
    for i, entry in enumerate(entries):
        for name, text in _source(entry, total).items():
            if name in _ENTRY:
                pairs.text(f"general.{key}.{i}.{name}", text)


def _source(entry: Any, total: int) -> Mapping[str, Any]:
    if isinstance(entry, dict):
        return entry
    if not isinstance(entry, str):
        return {}
    is_url = entry.startswith(("http://", "https://", "ssh://"))
    match = _HUB.match(entry) if is_url and "huggingface.co" in entry else None
    found = {"repo_url": entry} if is_url else {}
    if is_url and not match:
        return found
    parts = parts_of(match[1] if match else entry, total)
    if parts.name is not None:
        found["name"] = title(parts.name)
    if parts.organization is not None:
        found["organization"] = title(parts.organization)
    if parts.version is not None:
        found["version"] = parts.version
    if not is_url and parts.organization is not None and parts.name is not None:
        found["repo_url"] = f"https://huggingface.co/{parts.organization}/{parts.name}"
    return found


def _list(pairs: Pairs, key: str, values: Sequence[Any]) -> None:
    found: list[str] = []
    for value in values:
        found += [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if not all(isinstance(one, str) for one in found):
        raise TypeError(key)
    pairs.texts(f"general.{key}", found)


def _parameters(shapes: Iterable[Shape]) -> tuple[int, str]:
    """All parameters, and the label of the size (get_total_parameter_count, size_label)."""
    total = shared = expert = n_experts = n_tensors = 0
    for shape in shapes:
        size = prod(shape.shape)
        total += size
        if "_exps." in shape.name and len(shape.shape) >= 3:
            count = shape.shape[1 if ".bias" in shape.name else 2]
            expert, n_experts, n_tensors = expert + size // count, n_experts + count, n_tensors + 1
        else:
            shared += size
    if not total:
        return 0, ""
    count = n_experts // n_tensors if n_tensors else 0
    return total, f"{count}x{_rounded(shared + expert)}" if count else _rounded(total)


def _rounded(n: int) -> str:
    """model_weight_count_rounded_notation (gguf-py/gguf/utility.py)."""
    scales = ((1e12, 1e-12, "T"), (1e9, 1e-9, "B"), (1e6, 1e-6, "M"))
    scale, suffix = next(((scale, suffix) for most, scale, suffix in scales if n > most), (1e-3, "K"))
    scaled = n * scale
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{suffix}"
