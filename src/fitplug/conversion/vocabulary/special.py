"""Merges, special tokens and the chat template: gguf.SpecialVocab (gguf-py/gguf/vocab.py)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from string import ascii_letters, digits
from typing import Any, NamedTuple

from fitplug.conversion.vocabulary.beside import Beside
from fitplug.conversion.vocabulary.pairs import Pairs

TYPES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
KEYS = {
    **{kind: kind for kind in ("bos", "eos", "mask", "eot", "eom")}, "unk": "unknown", "sep": "seperator", "pad": "padding",
}  # fmt: skip
"""What the writer has a key for (add_…_token_id); it calls them otherwise here and there."""
_ADDED = ("bos", "eos", "sep")
"""What it has a flag for (add_add_…_token)."""


class Merges(NamedTuple):
    """How many there are, and their bytes together."""

    n: int
    n_bytes: int


class SpecialVocab:
    """As the converter's, with lengths in the place of merges."""

    def __init__(
        self, beside: Beside, *, load_merges: bool = False, types: Sequence[str] = TYPES, n_vocab: int | None = None
    ) -> None:
        self.types, self.n_vocab = tuple(types), n_vocab
        self.ids: dict[str, int] = {}
        self.adds: dict[str, Any] = {}
        self.merges = Merges(0, 0)
        self.template: Any = None
        self.normalizer: dict[str, Any] = {}
        self._beside = beside
        self._config = dict(beside.tokenizer_config)
        """With what the post-processor tells of it."""
        tokenizer = beside.json_or_empty("tokenizer.json")
        if load_merges:
            self.merges = _merges(tokenizer)
        if tokenizer:
            self._normalizer(tokenizer.get("normalizer") or {})
            self._processors(tokenizer)
        if beside.has("tokenizer_config.json"):
            self._tokens(tokenizer.get("added_tokens") or ())
        self._from_config()
        if load_merges and not self.merges.n and beside.has("merges.txt"):
            lines = list(_merges_text(beside.text("merges.txt")))
            self.merges = Merges(len(lines), len("".join(lines).encode()))

    def set(self, kind: str, number: Any) -> None:
        """_set_special_token: the first one counts."""
        if not isinstance(number, int):
            return
        if number < 0:
            raise ValueError(kind)
        if (self.n_vocab is None or number < self.n_vocab) and kind not in self.ids:
            self.ids[kind] = number

    def write(self, pairs: Pairs) -> None:
        """add_to_gguf."""
        pairs.lengths("tokenizer.ggml.merges", *self.merges)
        for kind, number in self.ids.items():
            if kind in KEYS:
                pairs.number(f"tokenizer.ggml.{KEYS[kind]}_token_id", int(number))
        for kind, value in self.adds.items():
            if kind in _ADDED:
                pairs.flag(f"tokenizer.ggml.add_{kind}_token", value)
        if self.template is not None:
            write_template(pairs, self.template)
        for key, value in self.normalizer.items():
            if value is not None:
                pairs.flag(f"tokenizer.ggml.normalizer.{key}", value)

    def _normalizer(self, settings: Mapping[str, Any]) -> None:
        kind = settings.get("type")
        if kind == "Lowercase":
            self.normalizer["lowercase"] = True
        elif kind == "StripAccents":
            self.normalizer["strip_accents"] = True
        elif kind == "BertNormalizer":
            self.normalizer |= {key: settings[key] for key in ("lowercase", "strip_accents") if key in settings}
        elif kind == "Sequence":
            for part in settings.get("normalizers", ()):
                self._normalizer(part)

    def _processors(self, tokenizer: Mapping[str, Any]) -> None:
        config = self._config
        if config:
            for first, other in (("bos", "cls"), ("eos", "sep")):
                if not config.get(f"{first}_token") and config.get(f"{other}_token"):
                    config[f"{first}_token"] = config[f"{other}_token"]
        processor = tokenizer.get("post_processor")
        for step in processor.get("processors", [processor]) if processor else ():
            kind = step.get("type")
            if kind == "ByteLevel":
                self.adds.setdefault("bos", False)
                self.adds.setdefault("eos", False)
            elif kind == "RobertaProcessing":
                self.adds |= {"bos": True, "eos": True, "sep": True}
                if config:
                    for key, other in (("cls", "bos"), ("sep", "eos")):
                        if not config.get(f"{key}_token"):
                            config[f"{key}_token"] = step.get(key, [config.get(f"{other}_token")])[0]
            elif kind == "TemplateProcessing":
                self._template_processing(step)

    def _template_processing(self, step: Mapping[str, Any]) -> None:
        """What stands first and last in a text, and between two."""
        config, single = self._config, step.get("single", [])
        special = {key: config.get(f"{key}_token") for key in ("bos", "cls", "eos", "sep")}
        first = last = None
        if len(single) > 1:
            first, last = _special(single[0]), _special(single[-1])
            if first:
                if not config:
                    special["bos"] = first
                elif first not in (special["bos"], special["cls"]):
                    for key in ("bos", "cls"):
                        if not special[key]:
                            config[f"{key}_token"] = special[key] = first
                self.adds["bos"] = first in (special["bos"], special["cls"])
            if last:
                if config and last != special["eos"]:
                    self._move_eos(special["eos"])
                    config["eos_token"] = last
                special["eos"] = last
                self.adds["eos"] = True
        self._pair(step.get("pair", []), first, last, special)

    def _move_eos(self, old: Any) -> None:
        """The end of text that the settings name becomes the end of turn, or of message, where a text ends otherwise."""
        for kind in ("eot", "eom"):
            if kind not in self.types:
                self.types = (*self.types, kind)
                self._config[f"{kind}_token"] = old
                return

    def _pair(self, pair: Sequence[Any], first: Any, last: Any, special: Mapping[str, Any]) -> None:
        if not pair:
            return
        start = 1 if first and _special(pair[0]) == first else 0
        stop = -1 if last and _special(pair[-1]) == last else None
        pair = pair[start:stop]
        if not pair or pair[0].get("Sequence", {}).get("id") != "A" or pair[-1].get("Sequence", {}).get("id") != "B":
            return
        between = pair[1:-1]
        if not between:
            return
        ends = (special["sep"], special["eos"])
        entry = _special(between[0])
        adds = bool(entry and entry in ends and not last)
        if len(between) == 2 and (second := _special(between[1])) and second in ends:
            adds = True
        self.adds["sep"] = adds
        if adds and not special["sep"] and self._config:
            self._config["sep_token"] = special["eos"]

    def _tokens(self, added: Iterable[Mapping[str, Any]]) -> None:
        """Those that tokenizer_config.json names, by the added tokens of the tokenizer."""
        config = self._config
        if not config:
            return
        template = config.get("chat_template", _template_file(self._beside))
        self.template = template if isinstance(template, str | list) else None
        numbers: dict[Any, Any] = {}
        for one in added:
            numbers.setdefault(one.get("content"), one.get("id"))
        for kind in self.types:
            adds = config.get(f"add_{kind}_token")
            if isinstance(adds, bool):
                self.adds.setdefault(kind, adds)
            entry = config.get(f"{kind}_token")
            content = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(content, str):
                self.set(kind, numbers.get(content))

    def _from_config(self) -> None:
        config = self._beside.json_or_empty("config.json")
        for kind in self.types:
            number = config.get(f"{kind}_token_id")
            if number is None and "text_config" in config:
                number = config["text_config"].get(f"{kind}_token_id")
            self.set(kind, number)


def write_template(pairs: Pairs, template: Any) -> None:
    """GGUFWriter.add_chat_template: one, or several by their names."""
    if isinstance(template, str):
        pairs.text("tokenizer.chat_template", template)
        return
    default, names = None, set()
    for choice in template:
        name = "".join(c if c in ascii_letters + digits else "_" for c in choice.get("name", ""))
        text = choice.get("template")
        if name == "default" and text is not None:
            default = text
        elif name and text is not None:
            names.add(name)
            pairs.text(f"tokenizer.chat_template.{name}", text)
    pairs.texts("tokenizer.chat_templates", sorted(names))
    if default is not None:
        pairs.text("tokenizer.chat_template", default)


def _special(entry: Mapping[str, Any]) -> Any:
    return entry.get("SpecialToken", {}).get("id")


def _merges(tokenizer: Mapping[str, Any]) -> Merges:
    """Pairs are joined by a space; one within them becomes a character of two bytes."""
    merges = tokenizer.get("model", {}).get("merges")
    if not isinstance(merges, list) or not merges:
        return Merges(0, 0)
    if isinstance(merges[0], str):
        return Merges(len(merges), len("".join(merges).encode()))
    text = "".join(chain.from_iterable(merges))
    return Merges(len(merges), len(text.encode()) + text.count(" ") + len(merges))


def _merges_text(text: str) -> Iterator[str]:
    lines = text.split("\n")
    for line in lines[1:] if lines[0].strip().startswith("#") else lines:
        parts = line.split(None, 3)
        if len(parts) == 2:
            yield f"{parts[0]} {parts[1]}"


def _template_file(beside: Beside) -> Any:
    if beside.has("chat_template.jinja"):
        template = beside.text("chat_template.jinja")
        more = beside.names("additional_chat_templates/", ".jinja")
        if not more:
            return template
        others = [{"name": name.rpartition("/")[2].removesuffix(".jinja"), "template": beside.text(name)} for name in more]
        return [{"name": "default", "template": template}, *others]
    return beside.json_or_empty("chat_template.json").get("chat_template")
