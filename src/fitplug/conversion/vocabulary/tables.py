"""What llama.cpp's converter and transformers have by name, made by fixtures/conversion/vocabulary_tables.py."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def tables() -> Mapping[str, Any]:
    """Tokenizer's class → its own special tokens, type of model → class, template → length, classes of models that pool."""
    found: Mapping[str, Any] = json.loads((files(__package__) / "tables.json").read_text("utf-8"))
    return found


@cache
def owners() -> Mapping[str, str]:
    """Class of models → class of the converter that defines its set_vocab."""
    lines = (files(__package__) / "owners.txt").read_text("utf-8").splitlines()
    return {name: owner for owner, *names in map(str.split, lines) for name in names}


@cache
def pre_tokenizers() -> Mapping[str, str]:
    """Hash of a known text's tokens → name of the pre-tokenizer."""
    lines = (files(__package__) / "pretokenizers.txt").read_text("utf-8").splitlines()
    return dict(map(str.split, lines))
