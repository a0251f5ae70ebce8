"""Ollama's store: manifests by name, blobs by digest (server/manifest.go, envconfig.Models)."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fitplug.errors import AccessError, FitplugError, NotFoundError, UnreadableError
from fitplug.formats.header import Blob
from fitplug.quoting import quote_sh
from fitplug.sources.local import LocalFile
from fitplug_ollama.names import Name, parse_name

_MOST = 1 << 20
"""A manifest has some kilobytes."""
_MODEL = "application/vnd.ollama.image.model"
_TENSOR = "application/vnd.ollama.image.tensor"
_BESIDE = {
    "application/vnd.ollama.image.projector": ("a projector", "--mmproj"),
    "application/vnd.ollama.image.adapter": ("an adapter", "--lora"),
}
"""What is loaded with the model, and how fitplug is told to count it."""
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")


def open_model(reference: str) -> Sequence[Blob]:
    """The GGUF of a model that is in the store.

    Raises:
        NotFoundError: no such model; the message lists some that are there.
        UnreadableError: the model is stored as safetensors, or runs elsewhere.
        AccessError: the store belongs to the system's own user.
    """
    name = parse_name(reference)
    layers = _layers(name)
    digests = [layer.get("digest") for layer in layers if layer.get("mediaType") == _MODEL]
    if not digests:
        where = "as safetensors" if any(layer.get("mediaType") == _TENSOR for layer in layers) else "without weights of its own"
        raise UnreadableError(f"{name}: Ollama keeps this model {where}: there is no GGUF to read")
    file = LocalFile(str(blob_path(str(digests[-1]))))
    file.name = f"{name.model}-{name.tag}.gguf"
    return (file,)


def loaded_beside(reference: str) -> Sequence[str]:
    """What Ollama loads with a model, which has files of its own."""
    found = []
    for layer in _layers(parse_name(reference)):
        what, flag = _BESIDE.get(str(layer.get("mediaType")), ("", ""))
        if what:
            with suppress(FitplugError):  # the model itself is there
                path = quote_sh(str(blob_path(str(layer.get("digest")))))
                found.append(f"Ollama loads {what} beside it, which is counted once it is named: {flag} {path}")
    return found


def _layers(name: Name) -> list[dict[str, Any]]:
    listed = read_manifest(name).get("layers")
    return [layer for layer in listed if isinstance(layer, dict)] if isinstance(listed, list) else []


def stores() -> list[Path]:
    """Where models may be: OLLAMA_MODELS alone if it is set, else the user's store and the Linux service's."""
    told = os.environ.get("OLLAMA_MODELS", "").strip().strip("\"'")
    if told:
        return [Path(told)]
    return [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]


def read_manifest(name: Name) -> dict[str, Any]:
    """The manifest of that name; spellings differ in case only, part by part."""
    for store in stores():
        path = _find(store / "manifests", name)
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(_MOST))
        except PermissionError as error:
            raise _denied(path) from error
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{path}: is no manifest of Ollama's") from error
        if not isinstance(found, dict):
            raise UnreadableError(f"{path}: is no manifest of Ollama's")
        return found
    there = ", ".join(sorted(installed())[:8])
    raise NotFoundError(f"Ollama has no model '{name}'" + (f"; it has {there}" if there else ": `ollama pull` it first"))


def _find(folder: Path, name: Name) -> Path | None:
    for part in name:
        folder = next((child for child in _children(folder) if child.name.lower() == part.lower()), folder / part)
    return folder if folder.is_file() else None


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except PermissionError as error:
        raise _denied(folder) from error
    except OSError:
        return []


def _denied(path: Path) -> AccessError:
    return AccessError(f"{path} may not be read: it belongs to Ollama's own user; name the GGUF file, or read it as that user")


def installed() -> list[str]:
    """Short names of all models in the stores."""
    found = []
    for store in stores():
        root = store / "manifests"
        for path in root.glob("*/*/*/*") if root.is_dir() else ():
            host, namespace, model, tag = path.relative_to(root).parts
            found.append(str(Name(host, namespace, model, tag)))
    return found


def blob_path(digest: str) -> Path:
    """The file of a digest; anything else than a SHA-256 has no place in a path."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise UnreadableError(f"'{digest[:80]}' is no digest")
    for store in stores():
        path = store / "blobs" / f"sha256-{match[1].lower()}"
        if path.is_file():
            return path
    raise NotFoundError(f"the blob sha256-{match[1][:12]}… is not in Ollama's store: `ollama pull` the model again")
