"""The hub's REST interface and its traps, and its own package for credentials and downloads.

Listing goes through fitplug's own HTTP layer: the package turns a failed listing into an empty one, reports no LFS files and
loses what is past 3000 entries. Where the package does the job it is used: token and cookie, endpoint, download.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from fitplug.errors import AccessError, FitplugError, NetworkError, NotFoundError
from fitplug.extension import Entry, Listing
from fitplug.formats.header import Blob
from fitplug.repository.reference import Reference, is_revision, open_reference, parse_reference, stays_inside
from fitplug.sources.headers import fetched_ahead
from fitplug.sources.http import BrokenError, Http, host_of, origin_of
from fitplug.sources.http_blob import HttpBlob
from fitplug.sources.kept import kept_listing
from fitplug.sources.progress import tell
from fitplug.sources.side_by_side import WORKERS, side_by_side

if TYPE_CHECKING:
    from requests import Response

MAX_ENTRIES = 200_000
LISTING_CAP = 3000
"""The server cuts a listing here and says nothing."""
MAX_DEPTH = 32
"""Of folders in folders, where they are listed one by one."""
MAX_HASHED_BYTES = 16 << 20
MAX_DIGITS = 20
"""Of a size that is sent as text."""
DEFAULT_REVISION = "master"
_DATABASE = re.compile(rb"Error 1\d{3}\b")
"""MySQL's server errors, which the hub hands on."""
_NO_REPOSITORY, _NO_ACCESS, _NO_TREE, _NO_FILE = 10010205001, 10010200001, 10990101004, 10990101007


def endpoint() -> str:
    """MODELSCOPE_ENDPOINT, or the older MODELSCOPE_DOMAIN, or the hub itself; without a scheme it is https."""
    told = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN") or "https://modelscope.cn"
    told = told.strip().rstrip("/")
    return told if re.match(r"https?://", told, re.IGNORECASE) else f"https://{told}"


def _token() -> str | None:
    """MODELSCOPE_API_TOKEN; set but empty means: no token. Else what `ms login` left, read by the hub's own package."""
    if "MODELSCOPE_API_TOKEN" in os.environ:
        return os.environ["MODELSCOPE_API_TOKEN"] or None
    home = os.environ.get("MODELSCOPE_HOME")
    if not ((Path(home) if home else Path.home() / ".modelscope") / "credentials").is_dir():
        return None  # the package takes 150 ms to import, and most people have never logged in
    from modelscope_hub.config import HubConfig

    return HubConfig().load_token()


def _connect() -> Http:
    return _conversation(endpoint(), _token())


@lru_cache
def _conversation(base: str, token: str | None) -> Http:
    """One for all files, so that they share connections."""
    headers = {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}
    return Http(origin=origin_of(base), headers=headers, explain=_explain)


def list_files(text: str) -> Listing:
    """Every file of a repository at one revision, with size and sha256; where the hub cannot be asked, what was downloaded."""
    reference = parse_reference(text)
    revision = reference.revision or DEFAULT_REVISION
    try:
        return _asked(reference, revision)
    except _NoRevisionError:
        branch = "" if reference.revision else _only_branch(reference.repository)
        if not branch:
            raise
        return _asked(reference, branch)
    except NetworkError as error:
        return kept_listing(reference.repository, revision, cache_folders(reference.repository, revision), error)


def _only_branch(repository: str) -> str:
    """What stands for the hub's usual branch in a repository that lacks it: its only one, else `main`; "" where neither is."""
    answer, _ = _connect().get_json(f"{endpoint()}/api/v1/models/{quote(repository)}/revisions")
    found: Any = answer
    for key in ("Data", "RevisionMap", "Branches"):
        found = found.get(key) if isinstance(found, dict) else None
    names = [item.get("Revision") for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    usable = [name for name in names if isinstance(name, str) and is_revision(name)]
    return usable[0] if len(usable) == 1 else "main" if "main" in usable else ""


def _asked(reference: Reference, revision: str) -> Listing:
    notes: list[str] = []
    entries: dict[str, Entry] = {}
    for entry in _walk(_connect(), reference, revision, "", notes):
        entries[entry.path] = entry
        if len(entries) > MAX_ENTRIES:
            raise NetworkError(f"{reference.repository} lists more than {MAX_ENTRIES} files")
    return Listing(repository=reference.repository, revision=revision, entries=tuple(entries.values()), notes=tuple(notes))


def _walk(http: Http, reference: Reference, revision: str, root: str, notes: list[str], depth: int = 0) -> Iterator[Entry]:
    """The tree below `root`; folder by folder once one answer is cut at the cap."""
    files = _listed(http, reference, revision, root, recursive=True)
    if len(files) < LISTING_CAP:
        yield from _entries(files, notes)
        return
    files = _listed(http, reference, revision, root, recursive=False)
    if len(files) >= LISTING_CAP:
        notes.append(f"the hub lists only the first {LISTING_CAP} files of '{root or reference.repository}'")
    yield from _entries(files, notes)
    if depth >= MAX_DEPTH:
        return
    paths = [item.get("Path") for item in files if item.get("Type") == "tree"]
    folders = [path for path in paths if isinstance(path, str) and path != root]

    def below(folder: str) -> Sequence[Entry]:
        return list(_walk(http, reference, revision, folder, notes, depth + 1))

    workers = 1 if depth else WORKERS  # many in one level alone: there may be folders in folders
    for n, found in enumerate(side_by_side(below, folders, workers), 1):
        tell(f"listing {reference.repository}: {n} of {len(folders)} folders")
        yield from found


def _listed(http: Http, reference: Reference, revision: str, root: str, *, recursive: bool) -> list[dict[str, Any]]:
    url = f"{endpoint()}/api/v1/models/{quote(reference.repository)}/repo/files"
    params = {"Revision": revision, "Recursive": str(recursive)} | ({"Root": root} if root else {})
    try:
        answer, _ = http.get_json(url, params)
    except AccessError:  # the hub now and then refuses what it lists a moment later
        answer, _ = http.get_json(url, params)
    if not isinstance(answer, dict) or not answer.get("Success", True):
        message = answer.get("Message") if isinstance(answer, dict) else None
        code = answer.get("Code") if isinstance(answer, dict) else None
        raise _by_code(code, reference.repository, url) or NetworkError(
            f"{host_of(url)} cannot list {reference.repository}: {str(message or 'no reason given')[:120]}"
        )
    data = answer.get("Data")
    files = data.get("Files") if isinstance(data, dict) else None
    if not isinstance(files, list):
        raise NetworkError(f"{host_of(url)} lists {reference.repository} in a form that is not its own")
    return [item for item in files if isinstance(item, dict)]


def _entries(files: Sequence[Mapping[str, Any]], notes: list[str]) -> Iterator[Entry]:
    for item in files:
        path, size, sha256 = item.get("Path"), item.get("Size"), item.get("Sha256")
        if item.get("Type") == "tree" or not isinstance(path, str) or not stays_inside(path):
            continue
        if isinstance(size, str) and size.isdecimal() and len(size) < MAX_DIGITS:
            size = int(size)
        if isinstance(size, int) and size >= 0:
            yield Entry(path=path, n_bytes=size, sha256=sha256 if isinstance(sha256, str) and sha256 else None)
        else:
            notes.append(f"{path[:80]} is left out: the hub does not say how large it is")


def open_reference_files(text: str) -> Sequence[Blob]:
    """The files of one model."""
    return fetched_ahead(open_reference(text, list_files, open_file))


def open_file(listing: Listing, entry: Entry) -> Blob:
    """One file: from the hub's own cache where it is there already, else by ranges."""
    cached = _cached(listing, entry)
    if cached is not None:
        return cached
    name, revision = quote(listing.repository), quote(listing.revision, safe="")
    page = f"{endpoint()}/models/{name}/resolve/{revision}/{quote(entry.path)}"
    interface = f"{endpoint()}/api/v1/models/{name}/repo?Revision={revision}&FilePath={quote(entry.path, safe='')}"
    return HttpBlob(_connect(), interface, entry.path, entry.n_bytes, page=page)


def cache_folders(repository: str, revision: str) -> list[Path]:
    """Where the hub's package keeps, and used to keep, a repository's files."""
    owner, name = repository.split("/")
    told = os.environ.get("MODELSCOPE_CACHE")
    base = Path(told).expanduser() if told else Path.home() / ".cache" / "modelscope"
    old = name.replace(".", "___")
    roots = [base, base / "hub"]
    return [
        base / "models" / f"{owner}--{name}" / "snapshots" / revision,
        *(root / "models" / owner / old for root in roots),
        *(root / owner / old for root in roots),
    ]


def _cached(listing: Listing, entry: Entry) -> Blob | None:
    """The file in the cache, if it is the one that is listed: an interrupted download is not."""
    from fitplug.sources.local import LocalFile

    for folder in cache_folders(listing.repository, listing.revision):
        path = folder / entry.path
        if path.is_file() and path.stat().st_size == entry.n_bytes and _is_listed(path, entry):
            return LocalFile(str(path), entry.path)
    return None


def _is_listed(path: Path, entry: Entry) -> bool:
    """Whether a small file has the content that is listed: of two config.json one digit may differ. Large ones take long."""
    if not entry.sha256 or entry.n_bytes > MAX_HASHED_BYTES:
        return True
    return hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256.lower()


def search(words: str, limit: int) -> Sequence[str]:
    """Repositories that match the words, in the hub's own order."""
    query = {"search": words, "page_number": "1", "page_size": str(limit)}
    answer, _ = _connect().get_json(f"{endpoint()}/openapi/v1/models", query)
    data = answer.get("data") if isinstance(answer, dict) else None
    models = data.get("models") if isinstance(data, dict) else data
    names = [item.get("id") for item in models if isinstance(item, dict)] if isinstance(models, list) else []
    return tuple(name for name in names if isinstance(name, str) and "/" in name)[:limit]


def download_folder() -> str:
    """MODELSCOPE_CACHE, or the folder below the user's caches."""
    return os.environ.get("MODELSCOPE_CACHE") or str(Path.home() / ".cache" / "modelscope")


def download(listing: Listing, entries: Sequence[Entry], folder: str | None) -> str:
    """Fetch files with the hub's own package, which resumes, verifies and shows progress; the first one's path."""
    from modelscope import model_file_download

    try:
        paths = [
            model_file_download(
                listing.repository, entry.path, listing.revision, local_dir=folder, endpoint=endpoint(), token=_token()
            )
            for entry in entries
        ]
    except Exception as error:  # noqa: BLE001 - the package raises what its many layers raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise NetworkError(f"downloading from {listing.repository} failed: {reason}") from None
    return str(paths[0])


def _explain(response: "Response", url: str) -> FitplugError | None:
    """The hub's own error code in one line."""
    from requests import RequestException

    try:
        body = response.raw.read(4096, decode_content=True)
    except (RequestException, OSError):
        return None
    if _DATABASE.search(body):  # comes with the code of what is not there
        return BrokenError(f"{host_of(url)} is overloaded: try again later")
    match = re.search(rb'"Code"\s*:\s*(\d{1,15})', body)
    known = _by_code(int(match[1]) if match else None, _repository_of(url), url)
    if known is None and response.status_code == 401:
        return AccessError(f"{host_of(url)} does not accept the token: is MODELSCOPE_API_TOKEN still valid?")
    return known


def _by_code(code: object, name: str, url: str) -> FitplugError | None:
    host = host_of(url)
    if code == _NO_REPOSITORY:
        return NotFoundError(f"no repository {name} on {host}")
    if code == _NO_ACCESS:
        return AccessError(f"no access to {name} on {host}: it is private or gated; set MODELSCOPE_API_TOKEN")
    if code == _NO_TREE:
        return _NoRevisionError(f"{name} has no such revision on {host}")
    return NotFoundError(f"{name} has no such file on {host}") if code == _NO_FILE else None


class _NoRevisionError(NotFoundError):
    """The repository is there, the revision is not."""


def _repository_of(url: str) -> str:
    path = re.sub(r"^/(api/v1/|openapi/v1/)?models/", "", urlsplit(url).path)
    return "/".join(path.split("/")[:2])
