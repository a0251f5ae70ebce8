"""The classes whose vocabulary comes from SentencePiece's own file, or from another list of pieces with scores."""

import ast
import json
import re
from base64 import b64decode
from collections.abc import Iterable

from fitplug.conversion.vocabulary.beside import UnreadError
from fitplug.conversion.vocabulary.maker import SPM, Maker
from fitplug.conversion.vocabulary.sentencepiece import BPE, UNIGRAM, Sentences
from fitplug.conversion.vocabulary.special import SpecialVocab, write_template

_DRAGON = "🐉"
_MAX_LINE = 4096


def _finish(m: Maker, model: str, words: list[bytes], pre: str = "default", *, scores: bool = True) -> None:
    m.write(model, words, scores=scores, pre=pre)
    SpecialVocab(m.beside, n_vocab=len(words)).write(m.pairs)


def spaceless(m: Maker) -> None:
    """Gemma2Model and its like."""
    m.sentencepiece()
    m.pairs.flag("tokenizer.ggml.add_space_prefix", False)


def gemma(m: Maker) -> None:
    """GemmaModel: an end of turn, and parts to fill in between that have no keys any more."""
    m.sentencepiece()
    special = SpecialVocab(m.beside, types=("eot",))
    special.set("eot", 107)
    special.write(m.pairs)
    m.pairs.flag("tokenizer.ggml.add_space_prefix", False)


def with_prefix(m: Maker) -> None:
    """Ernie4_5Model, PanguEmbeddedModel."""
    m.sentencepiece()
    if "add_prefix_space" in m.beside.tokenizer_config:
        m.pairs.flag("tokenizer.ggml.add_space_prefix", m.beside.tokenizer_config["add_prefix_space"])


def nemotron(m: Maker) -> None:
    """NemotronModel."""
    m.sentencepiece()
    m.pairs.number("tokenizer.ggml.padding_token_id", 0)
    m.pairs.number("tokenizer.ggml.unknown_token_id", 1)


def arctic(m: Maker) -> None:
    """ArcticModel: only tokenizer_config.json's tokens count besides."""
    words = m.pieces(m.read_sentences(SPM), m.n_vocab, added=False, strict=True)
    for number, entry in m.decoder_tokens():
        if number < len(words):
            words[number] = str(entry["content"]).encode()
    _finish(m, "llama", words)


def phi3(m: Maker) -> None:
    """Phi3MiniModel: the fourth Phi has GPT-2's tokenizer."""
    if m.beside.has("tokenizer_config.json") and m.beside.tokenizer_config["tokenizer_class"] == "GPT2Tokenizer":
        m.gpt2()
        return
    words = m.pieces(m.read_sentences(SPM), m.n_vocab, strict=True)
    _overwrite(words, m.decoder_tokens())
    _overwrite(words, ((int(one["id"]), one) for one in m.beside.json_or_empty("tokenizer.json").get("added_tokens", ())))
    _finish(m, "llama", words)


def _overwrite(words: list[bytes], tokens: Iterable[tuple[int, dict[str, object]]]) -> None:
    for number, entry in tokens:
        words[number] = str(entry["content"]).encode()


def internlm2(m: Maker) -> None:
    """InternLM2Model."""
    sentences = m.read_sentences(SPM)
    words = [_DRAGON.encode() if piece == b"\0" else piece for piece in sentences.pieces]
    if m.n_vocab is not None and m.n_vocab > len(words):
        raise UnreadError("config.json has more words than the tokenizer, which the converter refuses")
    words = words[: m.n_vocab]
    words += [text.encode() for text in m.beside.json_or_empty("added_tokens.json")]
    tokens = [
        *m.decoder_tokens(),
        *((int(one["id"]), one) for one in m.beside.json_or_empty("tokenizer.json").get("added_tokens", ())),
    ]
    _overwrite(words, tokens)
    m.write("llama", words, scores=True, pre="default")
    m.pairs.flag("tokenizer.ggml.add_space_prefix", sentences.dummy_prefix)
    special = SpecialVocab(m.beside, n_vocab=len(words))
    ends = [number for number, entry in tokens if entry["content"] == "<|im_end|>"]
    special.ids["eos"] = ends[-1] if ends else special.ids["eos"]
    special.write(m.pairs)


def internlm3(m: Maker) -> None:
    """InternLM3Model."""
    words = m.create_sentencepiece()
    m.write("llama", words, scores=True, pre="default")
    special = SpecialVocab(m.beside, n_vocab=len(words))
    if "add_prefix_space" in m.beside.tokenizer_config:
        m.pairs.flag("tokenizer.ggml.add_space_prefix", m.beside.tokenizer_config["add_prefix_space"])
    special.write(m.pairs)


def t5(m: Maker) -> None:
    """T5Model, T5EncoderModel: a unigram model with its normalizer."""
    sentences = m.read_sentences(SPM, "spiece.model")
    if sentences.model_type == BPE and m.beside.has(SPM):
        m.sentencepiece()
        return
    if sentences.model_type != UNIGRAM:
        m.refuse()
    words = m.pieces(sentences, m.n_vocab, strict=True)
    m.pairs.flag("tokenizer.ggml.add_space_prefix", sentences.dummy_prefix)
    m.pairs.flag("tokenizer.ggml.remove_extra_whitespaces", sentences.extra_spaces)
    m.pairs.raw("tokenizer.ggml.precompiled_charsmap", sentences.charsmap)
    _finish(m, "t5", words)


def xlm_roberta(m: Maker) -> None:
    """_xlmroberta_set_vocab, in BertModel."""
    name = "sentencepiece.bpe.model"
    if m.beside.has(name):
        sentences = m.read_sentences(name)
        if sentences.model_type != UNIGRAM:
            m.refuse()
        words, charsmap = _realigned(m, sentences), sentences.charsmap
    else:
        words, charsmap = _unigram(m)
    for flag in ("add_space_prefix", "remove_extra_whitespaces"):
        m.pairs.flag(f"tokenizer.ggml.{flag}", True)  # whichever it is, it takes one byte
    m.pairs.number("tokenizer.ggml.token_type_count", m.config.number("type_vocab_size", default=1))
    m.pairs.raw("tokenizer.ggml.precompiled_charsmap", charsmap)
    _finish(m, "t5", words)


def _realigned(m: Maker, sentences: Sentences) -> list[bytes]:
    """SentencePiece's numbers as fairseq counts them: four special tokens, and all others one further."""
    words = m.pieces(sentences, max(m.n_vocab or 0, len(sentences.pieces)), added=False)
    words = [b"<s>", b"<pad>", b"</s>", b"<unk>", *words[3:-1]]
    if m.architecture == "nomic-bert-moe":
        words[250001] = b"<mask>"
    return words


def _unigram(m: Maker) -> tuple[list[bytes], int]:
    tokenizer = m.tokenizer()
    words = tokenizer.words()
    charsmap = len(b64decode(tokenizer.json["normalizer"]["precompiled_charsmap"]))
    n = max(m.n_vocab or 0, tokenizer.n_base)
    return [words[i].encode() if i < tokenizer.n_base and i in words else f"[PAD{i}]".encode() for i in range(n)], charsmap


def xverse(m: Maker) -> None:
    """XverseModel."""
    words = m.tokenizer().words()
    n = m.n_vocab if m.n_vocab is not None else len(words)
    if max(words) >= n:
        raise UnreadError("its tokenizer has more words than config.json says")
    _finish(m, "llama", [b"<b'\\x00'>" if words[i] == "\0" else words[i].encode() for i in range(n)], scores=False)


def plamo2(m: Maker) -> None:
    """_set_vocab_plamo: a list of JSON lines."""
    words = [json.loads(line)[0].encode() for line in m.beside.text("tokenizer.jsonl").split("\n") if line.strip()]
    words += [f"[PAD{i}]".encode() for i in range(1, (m.n_vocab or 0) - len(words) + 1)]
    m.write("plamo2", words, scores=True, pre="default")
    config = m.beside.json("tokenizer_config.json")
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("sep", "seperator"), ("unk", "unknown")):
        if config.get(f"{kind}_token") is not None:
            m.pairs.number(f"tokenizer.ggml.{key}_token_id", words.index(config[f"{kind}_token"].encode()))
    m.pairs.number("tokenizer.ggml.eot_token_id", 4)
    m.pairs.flag("tokenizer.ggml.add_space_prefix", False)


def plamo3(m: Maker) -> None:
    """Plamo3Model: with a template."""
    plamo2(m)
    template = m.beside.tokenizer_config.get("chat_template")
    if m.beside.has("chat_template.jinja"):
        template = m.beside.text("chat_template.jinja")
    if template:
        write_template(m.pairs, template)


def rwkv(m: Maker) -> None:
    """_set_vocab_rwkv_world: a list of Python's own literals."""
    n = m.n_vocab if m.n_vocab is not None else 65536
    words = [b"<s>"]
    for line in m.beside.text("rwkv_vocab_v20230424.txt").split("\n"):
        if not line:
            continue
        parts = line.split(" ")
        literal = " ".join(parts[1:-1])
        if len(literal) > _MAX_LINE or re.match(r"b?['\"]", literal) is None:
            raise UnreadError("rwkv_vocab_v20230424.txt has a line that is no word")
        token = ast.literal_eval(literal)
        token = token.encode() if isinstance(token, str) else token
        words.append(repr(token)[2:-1].encode())
    if len(words) > n:
        raise UnreadError("config.json has fewer words than the tokenizer, which the converter refuses")
    m.write("rwkv", [*words, *(f"[PAD{i}]".encode() for i in range(len(words), n))])
    special = SpecialVocab(m.beside)
    special.set("eot", 261)
    special.ids |= {"bos": 0, "eos": 0}
    special.write(m.pairs)
    if special.template is None:
        m.own_template("llama-cpp-rwkv-world.jinja")
