"""Models in LM Studio's folder, and what it calls them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from fitplug.errors import NotFoundError, RefusedError
from fitplug.extension import ExportRequest
from fitplug.formats.gguf_split import shard_names
from fitplug.formats.header import Blob
from fitplug.sources.local import LocalFile
from fitplug_lmstudio.home import find_home, indexed_models, models_root

_MOST_NAMES = 8


def open_model(reference: str) -> Sequence[Blob]:
    """The file PUBLISHER/REPO/FILE, and the other parts of a split.

    Raises:
        NotFoundError: no such file; the message names some that are there.
    """
    root = models_root(find_home())
    check_identifier(reference)
    path = root.joinpath(*reference.split("/"))
    if not path.is_file():
        there = ", ".join(installed(root)[:_MOST_NAMES])
        raise NotFoundError(f"LM Studio has no {reference} below {root}" + (f"; it has {there}" if there else ""))
    others = [path.with_name(name) for name in shard_names(path.name)]
    return [LocalFile(str(each)) for each in (others if path == others[0] else [path])]


def installed(root: Path) -> list[str]:
    """Every PUBLISHER/REPO/FILE.gguf below the folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*/*.gguf")) if root.is_dir() else []


def check_identifier(identifier: str) -> None:
    """An identifier becomes a path: refuse what would lead elsewhere.

    Raises:
        NotFoundError: it is none.
    """
    parts = identifier.split("/")
    wrong = any(part in ("", ".", "..") or re.search(r'[\x00-\x1f\\:*?"<>|]', part) for part in parts)
    if wrong or not 2 <= len(parts) <= 6:
        raise NotFoundError(f"'{identifier[:100]}' is no model of LM Studio's: write it as PUBLISHER/REPO/FILE")


def identifier_of(request: ExportRequest) -> str | None:
    """What LM Studio calls the model, or None for a file outside its folder.

    An option `key` says it outright: a catalogue's model is loaded under another name than its file.
    """
    told = request.options.get("key")
    scheme, _, rest = request.model_reference.partition(":")
    if told or scheme == "lmstudio":
        identifier = told or rest
        check_identifier(identifier)
        return identifier
    home = find_home()
    try:
        path = Path(os.path.abspath(request.model_path)).relative_to(os.path.abspath(models_root(home)))  # noqa: PTH100 - links stay as they are named
    except ValueError:
        return None
    return _indexed(path.as_posix(), home) or path.as_posix()


def _indexed(file: str, home: Path) -> str | None:
    """The identifier of a split, which is known by its folder: the index says how."""
    if len(shard_names(file.rpartition("/")[2])) < 2:
        return None
    folder = file.rpartition("/")[0]
    return next((model["indexedModelIdentifier"] for model in indexed_models(home)
                 if str(model["indexedModelIdentifier"]).startswith(folder)), None)  # fmt: skip


def other_names(identifier: str) -> list[str]:
    """Catalogue entries that stand for the same file: loaded under one of these, its own settings count."""
    found = []
    for model in indexed_models(find_home()):
        virtual = model.get("virtual")
        if isinstance(virtual, dict) and virtual.get("concreteModelIndexedModelIdentifier") == identifier:
            found.append(str(model["indexedModelIdentifier"]))
    return sorted(set(found) - {identifier})


def import_command(path: str) -> tuple[tuple[str, ...], str]:
    """`lms import` for a file outside LM Studio's folder, linked and not moved; and the identifier that it gets.

    Raises:
        RefusedError: the file's name cannot be part of one.
    """
    name = path.replace("\\", "/").rpartition("/")[2]
    if not name.lower().endswith(".gguf"):
        raise RefusedError(f"LM Studio only takes .gguf files, not {name or path}")
    repository = re.sub(r"[^A-Za-z0-9._-]+", "-", name[: -len(".gguf")]).strip("-.") or "model"
    words = ("lms", "import", path, "--user-repo", f"local/{repository}", "--symbolic-link", "-y")
    return words, f"local/{repository}/{name}"
