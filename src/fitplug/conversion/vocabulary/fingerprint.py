"""The name of a pre-tokenizer: llama.cpp's converter has a known text tokenised and looks its numbers' hash up.

TextModel.get_vocab_base_pre (conversion/base.py). The hash proves itself: a text that was tokenised otherwise than by the
tokenizer would have a hash that no list knows, and the name stays unknown.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from fitplug.conversion.vocabulary.autotokenizer import Added, Tokenizer
from fitplug.conversion.vocabulary.beside import UnreadError
from fitplug.conversion.vocabulary.merging import model_of
from fitplug.conversion.vocabulary.splitting import normalized, pieces
from fitplug.conversion.vocabulary.tables import pre_tokenizers, tables

TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天\uff5e "
    "------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? "
    "'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)
"""chktxt."""


def name_of(tokenizer: Tokenizer) -> str | None:
    """tokenizer.ggml.pre, or None where it is not found out."""
    try:
        return pre_tokenizers().get(fingerprint(tokenizer))
    except UnreadError:
        return None


def fingerprint(tokenizer: Tokenizer) -> str:
    """The hash, chkhsh.

    Raises:
        UnreadError: the tokenizer does something that is not followed.
    """
    return sha256(str(encoded(tokenizer, TEXT)).encode()).hexdigest()


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text's numbers with the special tokens around it (tokenizers' Tokenizer::encode).

    Raises:
        UnreadError: the tokenizer does something that is not followed.
    """
    model = model_of(tokenizer.model, tokenizer.base)
    splitter = _pre_tokenizer(tokenizer)
    normalizer = tokenizer.json.get("normalizer")
    raw = {token.content: token for token in tokenizer.added.values() if not token.normalized}
    later = {normalized(token.content, normalizer): token for token in tokenizer.added.values() if token.normalized}
    found: list[int] = []
    first = True
    for part, token in _apart(text, raw):
        if token is not None:
            found.append(tokenizer.ids[token.content])
            first = False
            continue
        for inner, other in _apart(normalized(part, normalizer), later):
            if other is not None:
                found.append(tokenizer.ids[other.content])
            else:
                found += [number for piece in pieces(inner, splitter, first=first) for number in model(piece)]
            first = False
    before, after = _around(tokenizer)
    return [*before, *found, *after]


def _pre_tokenizer(tokenizer: Tokenizer) -> Mapping[str, Any] | None:
    """tokenizer.json's, with the settings' add_prefix_space (the end of PreTrainedTokenizerFast.__init__)."""
    settings: Mapping[str, Any] | None = tokenizer.json.get("pre_tokenizer")
    if settings is None or "add_prefix_space" not in settings or tokenizer.kind == "Llama":
        return settings
    return {**settings, "add_prefix_space": bool(tokenizer.config.get("add_prefix_space", False))}


def _apart(text: str, tokens: Mapping[str, Added]) -> Iterator[tuple[str, Added | None]]:
    """Added tokens and what lies between: the leftmost first, of several the longest (AddedVocabulary::find_matches)."""
    starts: dict[str, list[str]] = {}
    for content in sorted((one for one in tokens if one), key=len, reverse=True):
        starts.setdefault(content[0], []).append(content)
    done = at = 0
    while at < len(text):
        content = next((one for one in starts.get(text[at], ()) if text.startswith(one, at)), "")
        if not content:
            at += 1
            continue
        token, start, end = tokens[content], at, at + len(content)
        at = end
        if token.single_word and (_in_word(text[start - 1 : start]) or _in_word(text[end : end + 1])):
            continue
        if token.lstrip:
            start = max(done, len(text[:start].rstrip()))
        if token.rstrip:
            end += len(text[end:]) - len(text[end:].lstrip())
        if start > done:
            yield text[done:start], None
        yield text[start:end], token
        done = end
    if done < len(text):
        yield text[done:], None


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Numbers before and after a single text."""
    own = tables()["classes"][tokenizer.kind]
    if "add_bos_token" in own:
        wanted = [tokenizer.token(f"{one}_token") if tokenizer.config.get(f"add_{one}_token", own[f"add_{one}_token"]) else None
            for one in ("bos", "eos")]  # fmt: skip
        before, after = ([number] if word and (number := tokenizer.number(word)) is not None else [] for word in wanted)
        return before, after
    before, after = [], []
    processor = tokenizer.json.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        kind = step.get("type")
        if kind in ("BertProcessing", "RobertaProcessing"):
            before, after = [step["cls"][1], *before], [*after, step["sep"][1]]
        elif kind == "TemplateProcessing":
            single = step["single"]
            middle = next(i for i, one in enumerate(single) if "Sequence" in one)
            ids = [step["special_tokens"][one["SpecialToken"]["id"]]["ids"] for one in single if "SpecialToken" in one]
            before = [number for some in ids[:middle] for number in some] + before
            after += [number for some in ids[middle:] for number in some]
        elif kind not in (None, "ByteLevel"):
            raise UnreadError(f"the tokenizer has a post-processor of the kind {str(kind)[:40]}")
    return before, after
