"""What the address of a page that a browser shows is as a reference: people copy addresses."""

from collections.abc import Sequence
from urllib.parse import unquote

from fitplug.repository.reference import is_repository

_VIEWS = ("tree", "blob", "resolve", "raw", "view")
"""Parts of an address that a revision and a path follow."""
_BRANCHES = ("main", "master")
_NO_OWNERS = ("api", "collections", "datasets", "docs", "papers", "spaces")


def reference_of(address: str, pages: Sequence[str]) -> str | None:
    """OWNER/NAME[@REVISION][:PATH] of a repository's page, or of a file's.

    Args:
        address: https://…, of a page or anything else.
        pages: what those of a hub begin with.

    Returns:
        None where it is none of that hub's repositories.
    """
    rest = next((address[len(page) :] for page in pages if address.lower().startswith(page)), None)
    if rest is None:
        return None
    owner, *parts = unquote(rest.partition("?")[0].partition("#")[0]).strip("/").split("/")
    repository = f"{owner}/{parts[0]}" if parts else ""
    if owner in _NO_OWNERS or not is_repository(repository):
        return None
    view = parts[2:] if parts[1:3] == ["file", "view"] else parts[1:]
    if len(view) < 2 or view[0] not in _VIEWS:
        return repository
    revision, path = view[1], "/".join(view[2:])
    return repository + ("" if revision in _BRANCHES else f"@{revision}") + (f":{path}" if path else "")
