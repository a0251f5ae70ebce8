"""Writing files safely: whole or not at all, and never over somebody's work without keeping it."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fitplug.errors import RefusedError
from fitplug.extension import File


def write_whole(path: Path, text: str) -> None:
    """The whole file or nothing: written beside it, then put in its place; the file's mode stays.

    Raises:
        RefusedError: it could not be written; what was there still is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RefusedError(f"{path} could not be written: {error.strerror or error}") from error


def write_files(files: Sequence[File], folder: str) -> list[str]:
    """Every file into one folder, under its own name alone; what stood there with other words is kept beside it.

    Returns:
        What was done, a line each.
    """
    done = []
    for file in files:
        path = Path(folder) / Path(file.path).name
        kept = keep(path, file.text)
        write_whole(path, file.text)
        done.append(f"wrote {path}" + (f", kept what was there as {kept.name}" if kept else ""))
    return done


def keep(path: Path, text: str) -> Path | None:
    """Copy a file that says something else than `text` to NAME.N.bak; None where there is nothing to keep."""
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path} is there and cannot be kept: {error.strerror or error}") from error
    if before == text.encode():
        return None
    for number in range(1, 1000):
        kept = path.with_name(f"{path.name}.{number}.bak")
        try:
            with kept.open("xb") as file:
                file.write(before)
        except FileExistsError:
            continue
        except OSError as error:
            raise RefusedError(f"{path} could not be kept as {kept.name}: {error.strerror or error}") from error
        return kept
    raise RefusedError(f"{path} has a thousand copies beside it: clear them away first")
