"""The ways in which the converter's TextModel makes a vocabulary (_set_vocab_… in conversion/base.py)."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fitplug.conversion.config import Config
from fitplug.conversion.vocabulary import sentencepiece
from fitplug.conversion.vocabulary.autotokenizer import Tokenizer
from fitplug.conversion.vocabulary.beside import Beside, UnreadError
from fitplug.conversion.vocabulary.decoding import decoded
from fitplug.conversion.vocabulary.fingerprint import name_of
from fitplug.conversion.vocabulary.pairs import Pairs
from fitplug.conversion.vocabulary.sentencepiece import Sentences
from fitplug.conversion.vocabulary.special import TYPES, SpecialVocab
from fitplug.conversion.vocabulary.tables import pre_tokenizers, tables
from fitplug.formats.header import Skipped

SPM = "tokenizer.model"
MAX_TOKENS = 1 << 20
_SPECIAL = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


class Words(NamedTuple):
    """Tokens, and the numbers of those that steer the model (TokenType.CONTROL)."""

    texts: list[str]
    control: frozenset[int]


class Maker:
    """One checkpoint's files, its settings, and the keys that they become."""

    def __init__(self, beside: Beside, config: Config, architecture: str) -> None:
        self.beside, self.config, self.architecture = beside, config, architecture
        self.pairs = Pairs()
        self.n_vocab = self._number("vocab_size")
        """Of config.json, or what a class makes of it."""

    def tokenizer(self, *, own_code: bool = False) -> Tokenizer:
        """What AutoTokenizer reads.

        Args:
            own_code: whether the converter lets code that lies beside the checkpoint run.
        """
        if own_code and "AutoTokenizer" in str(self.beside.tokenizer_config.get("auto_map", "")):
            raise UnreadError("its tokenizer is code of its own")
        return Tokenizer(self.beside, str(self.config.get("model_type")))

    def words(self, tokenizer: Tokenizer, *, decode: bool = True) -> Words:
        """get_vocab_base: every number up to the size of the vocabulary, the missing ones filled up."""
        words = tokenizer.words()
        n = self.n_vocab if self.n_vocab is not None else len(words)
        if max(words, default=0) >= n:
            raise UnreadError(f"its tokenizer has the number {max(words)}, config.json but {n}: the converter refuses that")
        texts = [words.get(i, f"[PAD{i}]") for i in range(n)]
        control = set()
        for number, token in tokenizer.added.items():
            text = texts[number]
            if decode and not token.normalized:
                text = decoded(text, tokenizer.json.get("decoder"), clean_up=tokenizer.clean_up)
            if token.special or (decode and looks_special(text)):
                control.add(number)
            elif decode:
                text = text.replace("▁", " ")
            texts[number] = text
        return Words(texts, frozenset(control))

    def gpt2(
        self, words: Words | None = None, tokenizer: Tokenizer | None = None, *, types: Sequence[str] = TYPES,
        special: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """_set_vocab_gpt2, with special tokens that a class finds by their words (_set_special_token)."""
        tokenizer = tokenizer or self.tokenizer()
        self.write("gpt2", (words or self.words(tokenizer)).texts)
        self.pre(tokenizer)
        vocab = SpecialVocab(self.beside, load_merges=True, types=types)
        for kind, word in (special or {}).items():
            vocab.set(kind, tokenizer.ids[word])
        vocab.write(self.pairs)

    def pre(self, tokenizer: Tokenizer) -> None:
        """The pre-tokenizer's name; one of those that there are where it is not found out."""
        name = name_of(tokenizer)
        lengths = [len(one) for one in pre_tokenizers().values()]
        self.pairs["tokenizer.ggml.pre"] = name or Skipped("char", max(lengths), n_bytes=min(lengths))

    def write(self, model: str, words: Sequence[str] | Sequence[bytes], *, scores: bool = False, pre: str = "") -> None:
        """add_tokenizer_model, add_tokenizer_pre, add_token_list, add_token_scores, add_token_types."""
        pairs = self.pairs
        pairs.text("tokenizer.ggml.model", model)
        pairs.text("tokenizer.ggml.pre", pre)
        n_bytes = len(b"".join(words) if isinstance(words[0], bytes) else "".join(words).encode())  # type: ignore[arg-type]
        pairs.lengths("tokenizer.ggml.tokens", len(words), n_bytes)
        if scores:
            pairs.numbers("tokenizer.ggml.scores", len(words), "float32")
        pairs.numbers("tokenizer.ggml.token_type", len(words))

    def read_sentences(self, *names: str) -> Sentences:
        """The first SentencePiece model of these that is there."""
        name = next((one for one in names if self.beside.has(one)), names[-1])
        return sentencepiece.read(self.beside.raw(name), name)

    def pieces(self, sentences: Sentences, n: int | None, *, added: bool = True, strict: bool = False) -> list[bytes]:
        """The pieces and fillers up to n, added_tokens.json's over them.

        Args:
            sentences: the model.
            n: size of the vocabulary; None: as many as there are.
            added: whether added_tokens.json counts.
            strict: whether more pieces than that are refused, not left out.
        """
        n = len(sentences.pieces) if n is None else n
        if n > MAX_TOKENS or (strict and len(sentences.pieces) > n):
            raise UnreadError(f"config.json has a vocabulary of {n}, the tokenizer {len(sentences.pieces)}")
        found = [*sentences.pieces[:n], *(f"[PAD{i}]".encode() for i in range(len(sentences.pieces), n))]
        for text, number in self.beside.json_or_empty("added_tokens.json").items() if added else ():
            if number < n:
                found[number] = text.encode()
        return found

    def decoder_tokens(self) -> Iterator[tuple[int, dict[str, object]]]:
        """added_tokens_decoder of tokenizer_config.json."""
        for number, entry in self.beside.tokenizer_config.get("added_tokens_decoder", {}).items():
            yield int(number), entry

    def create_sentencepiece(self) -> list[bytes]:
        """_create_vocab_sentencepiece."""
        sentences = self.read_sentences(SPM)
        found = self.pieces(sentences, self._number("vocab_size_per_layer_input") or self.n_vocab or None)
        for number, entry in self.decoder_tokens():
            text = str(entry["content"])
            if number < len(found):
                special = entry.get("special") or looks_special(text)
                found[number] = (text if special else text.replace("▁", " ")).encode()
        return found

    def sentencepiece(self) -> None:
        """_set_vocab_sentencepiece."""
        words = self.create_sentencepiece()
        self.write("llama", words, scores=True, pre="default")
        SpecialVocab(self.beside, n_vocab=len(words)).write(self.pairs)

    def sentencepiece_or_gpt2(self) -> None:
        """The one, or where there is no tokenizer.model the other."""
        if self.beside.has(SPM):
            self.sentencepiece()
        else:
            self.gpt2()

    def is_llama_hf(self) -> bool:
        """Whether gguf.LlamaHfVocab takes the tokenizer."""
        if not self.beside.has("tokenizer.json"):
            return False
        tokenizer = self.beside.json("tokenizer.json")
        model, decoder = tokenizer["model"], tokenizer.get("decoder")
        if model["type"] != "BPE" or not model.get("byte_fallback", False):
            return False
        return decoder is not None and decoder["type"] == "Sequence"

    def llama_hf_words(self) -> list[str]:
        """gguf.LlamaHfVocab: the model's words and what was added after them; nothing is filled up."""
        if not self.is_llama_hf():
            raise UnreadError("its tokenizer is none that the converter takes for this class")
        tokenizer = self.tokenizer()
        words = tokenizer.words()
        if any(i not in words for i in range(tokenizer.n_base)):
            raise UnreadError("its tokenizer leaves numbers out, which the converter refuses")
        after = (number for number in sorted(tokenizer.added) if number >= tokenizer.n_base)
        return [*(words[i] for i in range(tokenizer.n_base)), *(words[i] for i in after)]

    def llama_hf(self) -> None:
        """_set_vocab_llama_hf."""
        words = self.llama_hf_words()
        self.write("llama", words, scores=True, pre="default")
        SpecialVocab(self.beside, n_vocab=len(words)).write(self.pairs)

    def own_template(self, name: str) -> None:
        """A template of llama.cpp's own (models/templates), of which only the length is known here."""
        n = tables()["templates"][name]
        self.pairs["tokenizer.chat_template"] = Skipped("char", n, n_bytes=n)

    def refuse(self) -> None:
        """What needs code of the checkpoint, or a tokenizer's own package."""
        raise UnreadError("its tokenizer is made by code of its own")

    def none(self) -> None:
        """_set_vocab_none."""
        self.pairs.text("tokenizer.ggml.model", "none")

    def pad_vocabulary(self, multiple: int) -> None:
        """Round the size of the vocabulary up."""
        if not self.n_vocab:
            raise UnreadError("config.json has no vocab_size")
        self.n_vocab = -(-self.n_vocab // multiple) * multiple

    def _number(self, name: str) -> int | None:
        value = self.config.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
            raise UnreadError(f"config.json gives no usable {name}")
        return value


def looks_special(text: str) -> bool:
    """TextModel.does_token_look_special."""
    return (
        text in _SPECIAL
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )
