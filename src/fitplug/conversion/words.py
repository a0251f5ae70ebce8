"""A converted model's metadata with its vocabulary and its card, where the files that hold them lie beside the weights."""

from collections.abc import Mapping, Sequence

from fitplug.conversion.card import card
from fitplug.conversion.config import Config
from fitplug.conversion.layout import UNREAD
from fitplug.conversion.quantize import Shape
from fitplug.conversion.vocabulary.beside import Beside, UnreadError
from fitplug.conversion.vocabulary.kinds import vocabulary
from fitplug.conversion.vocabulary.tables import owners
from fitplug.formats.header import Header, Skipped, Value

_UNNAMED = (
    "its tokenizer splits words in a way that fitplug does not recognise: llama.cpp's converter may not know it, and refuse"
)
_CUT = ("Gemma3Model", "Gemma4Model")
"""Whose embeddings end where the words of tokenizer.json do (Gemma3Model.modify_tensors)."""


def cut_to_words(header: Header, config: Config, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """The tensors without rows of the embeddings that no word has, where the class leaves them out."""
    beside = Beside(header.beside, header.folder)
    if owners().get(config.architecture) not in _CUT or beside.has("tokenizer.model") or not beside.has("tokenizer.json"):
        return shapes
    try:
        tokenizer = beside.json("tokenizer.json")
        n = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    except (UnreadError, TypeError, KeyError):
        return shapes
    return [
        shape._replace(shape=(shape.shape[0], min(n, shape.shape[1]))) if shape.name == "token_embd.weight" else shape
        for shape in shapes
    ]


def with_words(
    header: Header, config: Config, architecture: str, shapes: Sequence[Shape], metadata: Mapping[str, Value]
) -> tuple[Mapping[str, Value], str]:
    """The keys as the converter writes them all; or as they were, and why.

    Args:
        header: of the checkpoint.
        config: its config.json.
        architecture: llama.cpp's.
        shapes: the tensors as GGUF has them.
        metadata: the hyper-parameters, with the vocabulary unread.
    """
    if not header.beside:
        return metadata, ""
    beside = Beside(header.beside, header.folder)
    try:
        known = {key: value for key, value in metadata.items() if key not in UNREAD and key != "general.name"}
        words: dict[str, Value] = {"general.type": "model", "general.quantization_version": 2}
        found = {**words, **known, **card(beside, shapes), **vocabulary(beside, config, architecture)}
        return found, _UNNAMED if isinstance(found.get("tokenizer.ggml.pre"), Skipped) else ""
    except UnreadError as error:
        return metadata, f"how long its vocabulary is remains unknown: {error}"
