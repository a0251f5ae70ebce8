"""Putting settings where LM Studio reads them: merged, what was there kept aside, and taken back on request.

Only the planned keys are touched. A journal in fitplug's own folder holds what each had been; `undo` gives back those that
still have the planned value, so that later changes by the user or by the application stay.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitplug.errors import NotFoundError, UnreadableError
from fitplug.extension import Export
from fitplug.writing import write_whole
from fitplug_lmstudio.home import CONFIGS, find_home, settings_folders
from fitplug_lmstudio.models import check_identifier

_MOST = 1 << 22
_MISSING = {"missing": True}


def install(export: Export) -> Sequence[str]:
    """Merge the export's file into what is there, for every generation of the application.

    Raises:
        NotFoundError: LM Studio is not installed.
        UnreadableError: its file holds something that is no settings: nothing is written.
    """
    home = find_home()
    bases = settings_folders(home)
    if not bases:
        raise NotFoundError(f"LM Studio is not installed here (no {home}): write the file with --output")
    (file,) = export.files
    folder, _, name = file.path.partition("/")
    check_identifier(f"x/{name}")
    paths = [base / CONFIGS / name for base in bases] if folder == CONFIGS else [home / folder / name]
    before = [_read(path) for path in paths]  # all of them, before any is written
    wanted = json.loads(file.text)
    done = []
    for path, (text, found) in zip(paths, before, strict=True):
        merged, changes = merge(found, wanted) if folder == CONFIGS else (wanted, None)
        number = _note({"path": str(path), "before": text, "changes": changes})
        write_whole(path, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
        done.append(f"{'merged into' if text is not None else 'wrote'} {path} (undo {number})")
    return done


def merge(found: dict[str, Any], wanted: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is there with the wanted load fields in it, and what each of them had been.

    Fields that are not ours stay, in their order; one that stands there twice is written once.
    """
    ours = {field["key"]: field["value"] for field in wanted["load"]["fields"]}
    merged = {**{key: wanted[key] for key in ("preset", "operation")}, **found}
    section = found.get("load")
    section = section if isinstance(section, dict) else {}
    fields = _fields(section)
    was: dict[str, Any] = {}
    for field in fields:
        was.setdefault(field["key"], field.get("value"))
    kept = [field for field in fields if field["key"] not in ours]
    merged["load"] = {**section, "fields": kept + [{"key": key, "value": value} for key, value in ours.items()]}
    changes = [
        {"key": key, "planned": value, "was": was.get(key, _MISSING)}
        for key, value in ours.items()
        if key not in was or not same(was[key], value)
    ]
    return merged, changes


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 0 is not false there."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _fields(section: dict[str, Any]) -> list[dict[str, Any]]:
    found = section.get("fields")
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(field, dict) and isinstance(field.get("key"), str) for field in found):
        raise UnreadableError("LM Studio's settings of this model are not as expected: nothing was written")
    return found


def undo() -> Sequence[str]:
    """Take the last installation back.

    Raises:
        NotFoundError: there is none.
    """
    entries = sorted(_journal().glob("[0-9]*.json"))
    if not entries:
        raise NotFoundError("nothing was installed into LM Studio: there is nothing to take back")
    last = entries[-1]
    entry = json.loads(last.read_text(encoding="utf-8"))
    path = Path(entry["path"])
    done = _restore(path, entry)
    last.unlink()
    return [done]


def _restore(path: Path, entry: dict[str, Any]) -> str:
    text, found = _read(path)
    if text is None:
        return f"{path} is gone already"
    if entry["changes"] is None:  # a file of our own, written whole
        _put_back(path, entry["before"])
        return f"restored {path}"
    section = found.get("load")
    if not isinstance(section, dict):
        raise UnreadableError(f"{path} is not as expected: nothing was taken back")
    was = {change["key"]: change for change in entry["changes"]}
    fields = []
    for field in _fields(section):
        change = was.get(field["key"])
        if change is None or not same(field.get("value"), change["planned"]):
            fields.append(field)
        elif change["was"] != _MISSING:
            fields.append({"key": field["key"], "value": change["was"]})
    found["load"] = {**section, "fields": fields}
    nothing_left = entry["before"] is None and not fields and not _fields(found.get("operation") or {})
    _put_back(path, None if nothing_left else json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return f"{'removed' if nothing_left else 'restored'} {path}"


def _put_back(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        write_whole(path, text)


def _read(path: Path) -> tuple[str | None, dict[str, Any]]:
    """A file's text and the object in it; None and nothing where there is no file."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST + 1).decode("utf-8-sig")
        found = json.loads(text)
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path} cannot be read as settings: nothing was written ({error})") from error
    if not isinstance(found, dict):
        raise UnreadableError(f"{path} holds no settings: nothing was written")
    return text, found


def _journal() -> Path:
    from platformdirs import user_state_path

    return user_state_path("fitplug", appauthor=False) / "lmstudio"


def _note(entry: dict[str, Any]) -> str:
    folder = _journal()
    numbers = [int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit()]
    number = f"{max(numbers, default=0) + 1:06d}"
    write_whole(folder / f"{number}.json", json.dumps(entry, indent=2, ensure_ascii=False) + "\n")
    return number
