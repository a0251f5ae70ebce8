"""Small text files of /proc and /sys, read below a root that can be a recorded tree. For detectors on Linux."""

import os
from collections.abc import Iterable, Iterator

_MAX_FILES = 2048
_MAX_CHARS = 16 << 10


def read_tree(patterns: Iterable[str], root: str = "/") -> dict[str, str]:
    """Path → stripped text of all readable files that match; `*` stands for (a part of) one name.

    A file that cannot be read, as sysfs has them, counts as absent. Long ones are cut.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        for path in _expand(root.rstrip("/"), pattern.split("/")[1:], ""):
            if len(found) >= _MAX_FILES:
                return found
            text = _read(root.rstrip("/") + path)
            if text is not None:
                found[path] = text
    return found


def _expand(root: str, parts: list[str], path: str) -> Iterator[str]:
    if not parts:
        yield path
    elif "*" not in parts[0]:
        yield from _expand(root, parts[1:], f"{path}/{parts[0]}")
    else:
        try:
            names = sorted(os.listdir(f"{root}{path}"))  # noqa: PTH208 - no pathlib on the start path
        except OSError:
            return
        head, _, tail = parts[0].partition("*")
        for name in names:
            if name.startswith(head) and name.endswith(tail):
                yield from _expand(root, parts[1:], f"{path}/{name}")


def _read(path: str) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no pathlib on the start path
            data = file.read(_MAX_CHARS)
    except OSError:
        return None
    return data.decode("utf-8", "replace").replace("\0", "").strip()
