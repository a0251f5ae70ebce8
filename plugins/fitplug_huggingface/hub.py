"""The hub's REST interface, its errors, and its own package for tokens, cache and downloads.

Listing and ranges go through fitplug's own HTTP layer: the package's listing has no time-out of its own, and its file system
fetches 5 MiB for the first byte. Where the package does the job it is used: token, endpoint, cache, download.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from fitplug.errors import AccessError, FitplugError, NetworkError, NotFoundError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob
from fitplug.repository.reference import Reference, open_reference, parse_reference, stays_inside
from fitplug.sources.headers import fetched_ahead
from fitplug.sources.http import Http, host_of, origin_of
from fitplug.sources.http_blob import HttpBlob
from fitplug.sources.kept import blob_name, kept_listing

if TYPE_CHECKING:
    from requests import Response

MAX_ENTRIES = 200_000
DEFAULT_REVISION = "main"


def endpoint() -> str:
    """HF_ENDPOINT, or the hub itself; mirrors speak the same interface. Without a scheme it is https."""
    told = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").strip().rstrip("/")
    return told if re.match(r"https?://", told, re.IGNORECASE) else f"https://{told}"


def _connect() -> Http:
    from huggingface_hub import get_token

    return _conversation(endpoint(), get_token())


@lru_cache
def _conversation(base: str, token: str | None) -> Http:
    """One for all files, so that they share connections."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return Http(origin=origin_of(base), headers=headers, explain=_explain)


def list_files(text: str) -> Listing:
    """Every file of a repository at one revision, with sizes and what names the content: sha256 or git's name.

    Offline, or where the hub cannot be asked, what of it was downloaded.
    """
    reference = parse_reference(text)
    try:
        return _asked(reference)
    except NetworkError as error:
        revision = reference.revision or DEFAULT_REVISION
        return kept_listing(reference.repository, revision, _snapshot(reference.repository, revision), error)


def _asked(reference: Reference) -> Listing:
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise NetworkError(f"HF_HUB_OFFLINE is set, so {reference.repository} cannot be looked up")
    http, revision = _connect(), reference.revision or DEFAULT_REVISION
    url: str | None = f"{_api(reference)}/tree/{quote(revision, safe='')}?recursive=true"
    entries: list[Entry] = []
    while url is not None:
        page, headers = http.get_json(url)
        if not isinstance(page, list):
            raise NetworkError(f"{host_of(url)} lists {reference.repository} in a form that is not its own")
        entries += _entries(page)
        if len(entries) > MAX_ENTRIES:
            raise NetworkError(f"{reference.repository} lists more than {MAX_ENTRIES} files")
        url = _next_page(headers, url)
    return Listing(repository=reference.repository, revision=revision, entries=tuple(entries))


def _api(reference: Reference) -> str:
    return f"{endpoint()}/api/models/{quote(reference.repository)}"


def _entries(page: Sequence[Any]) -> Iterator[Entry]:
    for item in page:
        if not isinstance(item, dict) or item.get("type") != "file":
            continue
        path, size, lfs = item.get("path"), item.get("size"), item.get("lfs")
        sha256, git_oid = None, item.get("oid")
        if isinstance(lfs, dict):  # git's name is that of the pointer then
            sha256, size, git_oid = lfs.get("oid"), lfs.get("size", size), None
        if isinstance(path, str) and stays_inside(path) and isinstance(size, int) and size >= 0:
            yield Entry(path=path, n_bytes=size, sha256=_text(sha256), git_oid=_text(git_oid))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _next_page(headers: Mapping[str, str], url: str) -> str | None:
    """The Link header's "next". A mirror may hand on the hub's own address: the page is asked for where the first one was."""
    from requests.utils import parse_header_links

    for link in parse_header_links(headers.get("Link", "") or headers.get("link", "")):
        if link.get("rel") == "next":
            target = urlsplit(urljoin(url, link.get("url", "")))
            return urlsplit(url)._replace(path=target.path, query=target.query).geturl()
    return None


def open_reference_files(text: str) -> Sequence[Blob]:
    """The files of one model."""
    return fetched_ahead(open_reference(text, list_files, open_file))


def open_file(listing: Listing, entry: Entry) -> Blob:
    """One file: from the hub's own cache where it is there already, else by ranges."""
    cached = _cached(listing, entry)
    if cached is not None:
        return cached
    path = f"{quote(listing.repository)}/resolve/{quote(listing.revision, safe='')}/{quote(entry.path)}"
    return HttpBlob(_connect(), f"{endpoint()}/{path}", entry.path, entry.n_bytes)


def _snapshot(repository: str, revision: str) -> Sequence[Path]:
    """The folder of one commit in the package's cache; the name of a branch or tag stands for the commit it had then."""
    kept = Path(download_folder()) / f"models--{repository.replace('/', '--')}"
    ref = kept / "refs" / revision
    try:
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision
    except (OSError, ValueError):
        return ()
    return (kept / "snapshots" / commit,) if commit == Path(commit).name else ()


def _cached(listing: Listing, entry: Entry) -> Blob | None:
    """The file in the cache, if it is the one that is listed: a branch may have moved since."""
    from fitplug.sources.local import LocalFile

    for folder in _snapshot(listing.repository, listing.revision):
        path = folder / entry.path
        if not path.is_file() or path.stat().st_size != entry.n_bytes:
            continue
        if entry.content in (None, blob_name(path) or entry.content):
            return LocalFile(str(path), entry.path)
    return None


def search(words: str, limit: int) -> Sequence[str]:
    """Repositories with GGUF files that match the words, the most downloaded first."""
    query = {"search": words, "filter": "gguf", "sort": "downloads", "limit": str(limit)}
    found, _ = _connect().get_json(f"{endpoint()}/api/models", query)
    names = [item.get("id") for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return tuple(name for name in names if isinstance(name, str))[:limit]


def download_folder() -> str:
    """HF_HUB_CACHE, or the folder below HF_HOME, as they are now and not as they were when the package was imported."""
    from huggingface_hub.constants import HF_HUB_CACHE

    home = os.environ.get("HF_HOME")
    return os.environ.get("HF_HUB_CACHE") or (f"{home}/hub" if home else HF_HUB_CACHE)


def download(listing: Listing, entries: Sequence[Entry], folder: str | None) -> str:
    """Fetch files with the hub's own package, which resumes, verifies and shows progress; the first one's path."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    try:
        paths = [
            hf_hub_download(
                listing.repository,
                entry.path,
                revision=listing.revision,
                local_dir=folder,
                cache_dir=None if folder else download_folder(),
                endpoint=endpoint(),
            )
            for entry in entries
        ]
    except GatedRepoError:
        raise _gated(listing.repository, endpoint()) from None
    except Exception as error:  # noqa: BLE001 - the package raises what its many layers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise NetworkError(f"downloading from {listing.repository} failed: {reason}") from None
    return str(paths[0])


def _explain(response: "Response", url: str) -> FitplugError | None:
    """The hub's X-Error-Code in one line; without a token it answers 401 for what does not exist, too."""
    code = response.headers.get("X-Error-Code", "")
    name = _repository_of(url)
    if code == "GatedRepo":
        return _gated(name, url)
    if code == "RevisionNotFound":
        return NotFoundError(f"{name} has no such revision")
    if code == "EntryNotFound":
        return NotFoundError(f"{name} has no such file")
    if code == "RepoNotFound" or response.status_code == 404:
        return NotFoundError(f"no repository {name} on {host_of(url)}, or it is private")
    if response.status_code == 401:
        if "Invalid credentials" in response.headers.get("X-Error-Message", ""):
            return AccessError(f"{host_of(url)} does not accept the token: is HF_TOKEN still valid?")
        return AccessError(f"no repository {name} on {host_of(url)}, or it is private: set HF_TOKEN to look")
    return None


def _gated(name: str, url: str) -> AccessError:
    return AccessError(f"{name} is gated: accept its terms on {host_of(url)}, then set HF_TOKEN")


def _repository_of(url: str) -> str:
    path = url.removeprefix(endpoint()).removeprefix("/api/models").lstrip("/")
    return "/".join(path.split("?")[0].split("/")[:2])
