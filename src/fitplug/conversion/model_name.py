"""What the parts of a model's name say: Metadata.get_model_id_components and id_to_title (gguf-py/gguf/metadata.py)."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
_TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_FINETUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_UNTITLED = re.compile(r"^(v\d+(?:\.\d+)*|\d.*)$")


class Parts(NamedTuple):
    """Of "meta-llama/Llama-3.1-8B-Instruct"."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def title(name: str) -> str:
    """Words in small letters get a capital, but for versions."""
    words = name.strip().replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not _UNTITLED.match(word) else word for word in words)


def parts_of(name: str, n_parameters: int) -> Parts:
    """Take a name apart."""
    if " " in name:
        return Parts(name)
    organization: str | None
    organization, full = name.split("/", 1) if "/" in name else (None, name)
    if organization and organization[0] == ".":
        organization = None
    words = [word for word in full.split("-") if word]
    kinds: list[set[str]] = []
    for i, word in enumerate(words):
        words[i], kind = _kind(word, i, n_parameters)
        kinds.append({kind} if kind else set())
    _settle(words, kinds)
    found = {kind: [word for word, its in zip(words, kinds, strict=True) if kind in its] for kind in ("basename", "finetune")}
    sizes = "-".join(dict.fromkeys(word for word, its in zip(words, kinds, strict=True) if "size_label" in its)) or None
    version = (
        "-".join(word for word, its in zip(words, kinds, strict=True) if "version" in its and "basename" not in its) or None
    )
    finetune = "-".join(found["finetune"]) or None
    basename = "-".join(found["basename"]) or None
    if sizes is None and finetune is None and version is None:
        basename = None  # too little to go by
    return Parts(full, organization, basename, finetune, version, sizes)


def _kind(word: str, i: int, n_parameters: int) -> tuple[str, str]:
    """The word as it is written, and what it is; empty where it is nothing that is known."""
    if _VERSION.fullmatch(word):
        return word, "version"
    if _TYPE.fullmatch(word):
        return word.upper(), "type"
    if i > 0 and _SIZE.fullmatch(word):
        return _size(word.replace("_", "."), n_parameters)
    if i > 0 and _FINETUNE.fullmatch(word):
        return word, "finetune"
    return word, ""


def _size(word: str, n_parameters: int) -> tuple[str, str]:
    if word[-1].isdecimal():  # bloom's 7b1
        word = f"{word[:-2]}.{word[-1]}{word[-2]}"
    if len(word) > 1 and word[-2].isdecimal() and word[-1] in "kmbt":
        word = word[:-1] + word[-1].upper()
    if n_parameters != 0:
        try:
            said = float(word[:-1]) * pow(1000, " KMBT".find(word[-1]))
        except ValueError:
            return word, "size_label"
        if abs(said - n_parameters) > 7 * n_parameters // 8:  # more likely the length of a context
            return word[:-1] + word[-1].lower(), "finetune"
    return word, "size_label"


def _settle(words: Sequence[str], kinds: Sequence[set[str]]) -> None:
    """What is left over is the name itself at the start, and what was tuned later on."""
    pairs = list(zip(words, kinds, strict=True))
    if any(character.isdecimal() for word, its in pairs if "size_label" in its for character in word):
        for word, its in pairs:
            if "size_label" in its and word.isalpha():
                its.remove("size_label")
    at_start = True
    for word, its in pairs:
        if at_start and ((not its and word[0].isalpha()) or "version" in its):
            its.add("basename")
        else:
            at_start = False
            if not its:
                its.add("finetune")
    for _, its in reversed(pairs):
        if "basename" not in its or len(its) == 1:
            break
        its.remove("basename")
