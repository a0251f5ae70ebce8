"""PARAMETERs that Ollama knows, and what each may be (api/types.go, Options and Runner; as the command line checks them)."""

import re
from typing import Literal, TypeAlias

from fitplug.errors import RefusedError

Type: TypeAlias = Literal["int", "float", "bool", "string"]

PARAMETERS: dict[str, Type] = {
    "num_ctx": "int", "num_batch": "int", "num_gpu": "int", "main_gpu": "int", "use_mmap": "bool", "num_thread": "int",
    "draft_num_predict": "int", "num_keep": "int", "seed": "int", "num_predict": "int", "top_k": "int", "top_p": "float",
    "min_p": "float", "typical_p": "float", "repeat_last_n": "int", "temperature": "float", "repeat_penalty": "float",
    "presence_penalty": "float", "frequency_penalty": "float", "stop": "string",
}  # fmt: skip
PLANNED = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap"})
"""Those that the plan itself decides."""

_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?")
_BOOL = frozenset({"1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"})
"""Go's strconv.ParseBool."""


def check(name: str, value: str) -> None:
    """Refuse what `ollama create` would refuse.

    Raises:
        RefusedError: an unknown parameter, or a value that is none for it.
    """
    type_ = PARAMETERS.get(name)
    if type_ is None:
        raise RefusedError(f"Ollama has no parameter '{name}'; it has {', '.join(sorted(PARAMETERS))}")
    right = {
        "int": _INT.fullmatch(value) is not None,
        "float": _FLOAT.fullmatch(value) is not None,
        "bool": value in _BOOL,
        "string": True,
    }[type_]
    if not right:
        raise RefusedError(f"'{value}' is no {type_}, which Ollama's parameter {name} takes")
