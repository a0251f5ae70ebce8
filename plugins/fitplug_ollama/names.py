"""Names of models in Ollama's own grammar (types/model/name.go): [host/][namespace/]model[:tag]."""

import re
from typing import NamedTuple

from fitplug.errors import NotFoundError

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


class Name(NamedTuple):
    """A complete name; what is left out has Ollama's defaults."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """As short as it may be written."""
        host = "" if self.host == "registry.ollama.ai" else f"{self.host}/"
        namespace = "" if not host and self.namespace == "library" else f"{self.namespace}/"
        return f"{host}{namespace}{self.model}:{self.tag}"


def parse_name(text: str) -> Name:
    """A name as a user writes it.

    Raises:
        NotFoundError: no model can be called so; nothing in it can lead out of the store.
    """
    rest, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        rest, tag = text, "latest"
    parts = rest.split("://")[-1].split("/")
    defaults = ["registry.ollama.ai", "library"]
    if len(parts) > 3:
        raise NotFoundError(f"'{text}' is no name of an Ollama model: [host/][namespace/]model[:tag]")
    host, namespace, model = [*defaults[: 3 - len(parts)], *parts]
    right = _HOST.fullmatch(host) and _NAMESPACE.fullmatch(namespace) and _PART.fullmatch(model) and _PART.fullmatch(tag)
    if not right:
        raise NotFoundError(f"'{text}' is no name of an Ollama model: [host/][namespace/]model[:tag]")
    return Name(host, namespace, model, tag)


def name_from(text: str) -> str:
    """A model's name made of any text: what does not fit becomes a dash."""
    plain = re.sub(r"[^a-z0-9_.-]+", "-", text.lower().removesuffix(".gguf")).strip("-.") or "model"
    return plain[:70].rstrip("-.")
