"""What AutoTokenizer.from_pretrained makes of tokenizer.json and the settings beside it, as far as its words go.

transformers 4.57, which the converter pins: PreTrainedTokenizerBase._from_pretrained and PreTrainedTokenizerFast.__init__ put
together tokenizer.json's own added tokens, those of tokenizer_config.json (or, where it lists none, of special_tokens_map.json
and added_tokens.json), and the special tokens that the class has by itself. A tokenizer without tokenizer.json, or with code of
its own, is not worked out here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fitplug.conversion.vocabulary.beside import Beside, UnreadError
from fitplug.conversion.vocabulary.tables import tables

ATTRIBUTES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""SPECIAL_TOKENS_ATTRIBUTES, but for additional_special_tokens."""
_MORE = "additional_special_tokens"
MODELS = ("BPE", "WordPiece", "Unigram", "WordLevel")


class Added(NamedTuple):
    """tokenizers.AddedToken."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class Tokenizer:
    """A fast tokenizer's words."""

    def __init__(self, beside: Beside, model_type: str) -> None:
        self.json = beside.json("tokenizer.json")
        self.config = dict(beside.tokenizer_config)
        self.kind = _class_of(beside, self.config, model_type)
        self.model: Mapping[str, Any] = self.json["model"]
        if self.model.get("type", "BPE") not in MODELS:
            raise UnreadError(f"tokenizer.json has a model of the kind {str(self.model.get('type'))[:40]}")
        self.base: Mapping[str, int] = _words(self.model)
        """The model's own words."""
        self.n_base = len(self.model["vocab"])
        """How many there are (vocab_size)."""
        self.added: dict[int, Added] = {}
        self.ids: dict[str, int] = {}
        """Of the added tokens."""
        for entry in self.json.get("added_tokens") or ():
            self._add(_token(entry))
        listed = self._listed(beside)
        self.special = self._special(listed)
        self._complete(listed)

    @property
    def clean_up(self) -> bool:
        """clean_up_tokenization_spaces."""
        return bool(self.config.get("clean_up_tokenization_spaces", False))

    def words(self) -> dict[int, str]:
        """Id → word, the added ones among them.

        Raises:
            UnreadError: two words have one id, so that it is chance which one is written.
        """
        found = {number: word for word, number in self.base.items()}
        if len(found) != self.n_base:
            raise UnreadError("tokenizer.json gives two words one number")
        for number, token in self.added.items():
            if number in found and found[number] != token.content:
                raise UnreadError("tokenizer.json gives two words one number")
            found[number] = token.content
        return found

    def number(self, word: str) -> int | None:
        """token_to_id."""
        return self.ids.get(word, self.base.get(word))

    def token(self, attribute: str) -> str | None:
        """bos_token and its like."""
        found = self.special.get(attribute)
        return found.content if isinstance(found, Added) else found if isinstance(found, str) else None

    def _add(self, token: Added) -> None:
        """AddedVocabulary::add_tokens (tokenizers/src/tokenizer/added_vocabulary.rs)."""
        there = self.ids.get(token.content)
        if not token.content or (there is not None and self.added[there] == token):
            return
        number = self.number(token.content)
        if number is None:
            most = max(self.ids.values(), default=None)
            number = self.n_base if most is None or 0 < self.n_base > most else most + 1
        self.ids[token.content] = number
        self.added[number] = token

    def _listed(self, beside: Beside) -> dict[int, Added]:
        """added_tokens_decoder as _from_pretrained puts it together; where it is not given, older files count."""
        given = self.config.get("added_tokens_decoder")
        if given is not None:
            return {int(number): _token(entry) for number, entry in given.items()}
        for key, value in beside.json_or_empty("special_tokens_map.json").items():
            self.config[key] = self._from_map(key, value)
        found: dict[int, Added] = {}
        special = {text for _, text in self._named()}
        for text, number in beside.json_or_empty("added_tokens.json").items():
            found[number] = Added(text, normalized=text not in special, special=text in special)
        return found | {entry["id"]: _token(entry) for entry in self.json["added_tokens"]}

    def _from_map(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _token(value | {"special": True})
        if key != _MORE or not isinstance(value, list):
            return value
        found = list(self.config.get(_MORE) or ())
        for entry in value:
            one = _token(entry | {"special": True}) if isinstance(entry, dict) else entry
            if one not in found:
                found.append(one)
        return found

    def _named(self) -> Iterator[tuple[str, str]]:
        for key in (*ATTRIBUTES, _MORE):
            value = self.config.get(key)
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    yield key, _content(one)

    def _special(self, listed: Mapping[int, Added]) -> dict[str, "str | Added | Sequence[str | Added]"]:
        """Attribute → token, the class's own where no file says another (SpecialTokensMixin.__init__)."""
        by_text = {token.content: token for token in listed.values()}
        own = tables()["classes"][self.kind]
        given: dict[str, Any] = {}
        for key in ATTRIBUTES:
            value = self.config[key] if key in self.config else own.get(key)
            if value is None:
                continue
            one = _converted(value)
            given[key] = by_text.get(_content(one), one)
        padding = self.json.get("padding")
        if padding is not None and "pad_token" not in self.config and "pad_token" not in own:
            given["pad_token"] = padding["pad_token"]
        given[_MORE] = [_converted(one) for one in self.config.get(_MORE) or ()]
        extra = self.config.get("extra_special_tokens")
        return given | {key: _converted(one) for key, one in (extra if isinstance(extra, dict) else {}).items()}

    def _complete(self, listed: Mapping[int, Added]) -> None:
        """The end of PreTrainedTokenizerFast.__init__: what is listed or special and not there yet is added."""
        there = set(self.added.values())
        wanted: list[Added | str] = [token for _, token in sorted(listed.items()) if token not in there]
        known = {*self.ids, *(_content(token) for token in wanted)}
        special: dict[str, Added | str] = {}
        for value in self.special.values():
            for one in value if isinstance(value, list | tuple) and not isinstance(value, Added) else [value]:
                if _content(one):
                    special.setdefault(_content(one), one)  # type: ignore[arg-type]  # a list of tokens is taken apart
        wanted += [token for text, token in special.items() if text not in known]
        for token in wanted:
            if isinstance(token, str):
                self._add(Added(token, special=True, normalized=False))
            else:
                self._add(token._replace(special=token.special or token.content in special))


def _token(entry: Any) -> Added:
    """AddedToken(**entry): one that is not special is normalised unless it says otherwise."""
    special = bool(entry.get("special", False))
    flags = {key: bool(entry[key]) for key in ("single_word", "lstrip", "rstrip") if key in entry}
    if not isinstance(entry["content"], str):
        raise TypeError("content")
    return Added(entry["content"], normalized=bool(entry.get("normalized", not special)), special=special, **flags)


def _converted(value: Any) -> "str | Added":
    """convert_added_tokens: an object is a token where it says so; anything but a text is refused otherwise."""
    if isinstance(value, str | Added):
        return value
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return _token(value)
    raise UnreadError("tokenizer_config.json has a special token that transformers refuses")


def _content(token: Any) -> str:
    if isinstance(token, dict):
        return str(token["content"])
    return token.content if isinstance(token, Added) else str(token)


def _words(model: Mapping[str, Any]) -> Mapping[str, int]:
    words = model["vocab"]
    if isinstance(words, list):  # Unigram: pairs of a word and its score
        return {word: number for number, (word, _) in enumerate(words)}
    if not all(type(number) is int for number in words.values()):
        raise TypeError("vocab")
    found: Mapping[str, int] = words
    return found


def _class_of(beside: Beside, config: Mapping[str, Any], model_type: str) -> str:
    """The tokenizer's class: by its settings, by config.json, by the type of model (AutoTokenizer.from_pretrained)."""
    name = config.get("tokenizer_class") or beside.json_or_empty("config.json").get("tokenizer_class")
    if name is None:
        name = tables()["types"].get(model_type, "")
    kind = str(name).removesuffix("Fast").removesuffix("Tokenizer")
    if kind not in tables()["classes"]:
        raise UnreadError(f"what the tokenizer's class {str(name)[:60] or 'of this model'} does is not known")
    if kind == "Llama" and config.get("add_prefix_space") is not None:
        raise UnreadError("its settings have transformers make the tokenizer anew from another file")
    return kind
