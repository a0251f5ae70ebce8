"""Hugging Face and ModelScope in small, on loopback, faithful enough for the official packages.

Three servers: the two hubs, which list files and redirect large ones with a signed URL, and a content host under another name,
which answers ranges and refuses any authorisation, as the real ones do. Every request is logged. Faults are queued per kind.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "1f0e3a5c7b9d2e4f60718293a4b5c6d7e8f90123"
LFS_FROM = 64 << 10


@dataclass(slots=True)
class Stored:
    """One file of a repository: a path on disk (sparse files welcome) or a few bytes."""

    data: bytes | Path
    digest: str = ""

    @property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    @property
    def lfs(self) -> bool:
        return self.size >= LFS_FROM

    def sha256(self) -> str:
        """Of the content; of a large sparse file, of what identifies it."""
        self.digest = self.digest or self._digest()
        return self.digest

    def git_oid(self) -> str:
        """Git's name for a small file; of a large one git has a pointer."""
        data = b"pointer to " + self.sha256().encode() if self.lfs else self.read(0, self.size)
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def _digest(self) -> str:
        if isinstance(self.data, bytes):
            return hashlib.sha256(self.data).hexdigest()
        if self.size <= 8 << 20:
            return hashlib.sha256(self.data.read_bytes()).hexdigest()
        with self.data.open("rb") as file:
            return hashlib.sha256(file.read(1 << 20) + str(self.size).encode()).hexdigest()

    def read(self, start: int, n_bytes: int) -> bytes:
        if isinstance(self.data, bytes):
            return self.data[start : start + n_bytes]
        with self.data.open("rb") as file:
            file.seek(start)
            return file.read(n_bytes)


@dataclass(slots=True)
class Repository:
    files: dict[str, Stored] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    renamed_to: str = ""
    branch: str = "master"
    """The only one, on ModelScope."""


@dataclass(slots=True)
class Request:
    """One line of the log."""

    server: str
    method: str
    path: str
    headers: dict[str, str]
    n_bytes: int = 0


@dataclass
class LocalHub:
    """The three servers and what they hold."""

    token: str = "secret-token"
    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """"list", "resolve", "cdn" → faults still to happen, each once; one that ends in "*" stays."""
    log: list[Request] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    n_connections: int = 0
    page_size: int = 1000
    modelscope_cap: int = 3000
    ms_direct: bool = False
    """ModelScope's other way: no redirect, status 200 with a Content-Range."""
    instead: "Callable[[Handler], bool] | None" = None
    """What another hub does: called first for every request; True where it has answered."""

    def add(self, name: str, files: dict[str, bytes | Path], **options: bool | str) -> None:
        self.repositories[name] = Repository(files={path: Stored(data) for path, data in files.items()}, **options)  # type: ignore[arg-type]

    def url(self, server: str) -> str:
        return f"http://{'localhost' if server == 'cdn' else '127.0.0.1'}:{self.ports[server]}"

    def environment(self) -> dict[str, str]:
        """What makes the official packages, and fitplug, talk to these servers."""
        return {
            "HF_ENDPOINT": self.url("hf"),
            "MODELSCOPE_ENDPOINT": self.url("ms"),
            "NO_PROXY": "*",
            "HF_HUB_DISABLE_XET": "1",
        }

    def fault(self, kind: str) -> str | None:
        waiting = self.faults.get(kind) or []
        if not waiting:
            return None
        return waiting[0][:-1] if waiting[0].endswith("*") else waiting.pop(0)

    def traffic(self) -> tuple[int, int]:
        """Requests and body bytes since the log was last cleared."""
        return len(self.log), sum(request.n_bytes for request in self.log)

    @contextmanager
    def running(self) -> Iterator["LocalHub"]:
        servers = []
        for name, handler in (("hf", HuggingFaceHandler), ("ms", ModelScopeHandler), ("cdn", ContentHandler)):
            server = QuietServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": self, "server_name": name}))
            server.daemon_threads = True
            self.ports[name] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            servers.append(server)
        try:
            yield self
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()


class QuietServer(ThreadingHTTPServer):
    """Clients hang up here on purpose: that is nothing to report."""

    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    """What the three have in common."""

    protocol_version = "HTTP/1.1"
    hub: LocalHub
    server_name = ""

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.entry: Request | None = None
        self.hub.n_connections += 1

    def parse_request(self) -> bool:
        return super().parse_request() and not (self.hub.instead is not None and self.hub.instead(self))

    def begin(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        self.entry = Request(self.server_name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.hub.log.append(self.entry)
        return unquote(parts.path), parse_qs(parts.query)

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.body(body)

    def body(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:  # the client hung up, as it should when it has what it wants
            self.close_connection = True
            return
        if self.entry:
            self.entry.n_bytes += len(data)

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def do_HEAD(self) -> None:
        self.do_GET()

    def authorised(self) -> bool:
        return f"Bearer {self.hub.token}" == self.headers.get("Authorization", "")

    def common_fault(self, kind: str) -> bool:
        """Do a queued fault; True if it was one that ends the request."""
        fault = self.hub.fault(kind)
        if fault is None:
            return False
        if fault.isdecimal():
            self.send(int(fault), b"sorry", {"Retry-After": "0"} if fault == "429" else {})
        elif fault == "drop":
            self.close_connection = True
            self.connection.close()
        elif fault == "stall":
            time.sleep(30)
            self.close_connection = True
        elif fault == "html":
            self.send(200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"})
        elif fault == "loop":
            self.send(302, b"", {"Location": self.path})
        elif fault == "huge-json":
            self.send(200, b"[" + b" " * (65 << 20), {"Content-Type": "application/json"})
        else:
            return self.own_fault(fault)
        return True

    def own_fault(self, fault: str) -> bool:
        raise AssertionError(f"unknown fault {fault}")

    def signed(self, name: str, path: str) -> str:
        return f"{self.hub.url('cdn')}/{quote(name)}/{quote(path)}?Signature=abc&Expires={int(time.time()) + 3600}"


class HuggingFaceHandler(Handler):
    def do_GET(self) -> None:
        path, query = self.begin()
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(tree|revision)/([^/]+)(/.*)?)?", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if path == "/api/models":
            words = query.get("search", [""])[0].lower().split()
            found = [{"id": name} for name in self.hub.repositories if all(word in name.lower() for word in words)]
            self.send_json(found[: int(query.get("limit", ["20"])[0])])
        elif api and not self.common_fault("list"):
            self.listing(api[1], api[2], api[3] or "main", query)
        elif resolve and not self.common_fault("resolve"):
            self.resolve(resolve[1], resolve[2], resolve[3])
        elif not (api or resolve):
            self.send_json({"error": "Not Found"}, 404)

    def do_POST(self) -> None:
        path, _ = self.begin()
        name = re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", path)
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        repository = self.hub.repositories.get(name[1]) if name else None
        files = repository.files if repository else {}
        self.send_json([self.item(p, files[p]) for p in form.get("paths", []) if p in files])

    def found(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository and repository.renamed_to:
            self.send(307, b"", {"Location": self.path.replace(name, repository.renamed_to)})
            return None
        if repository is None or (repository.private and not self.authorised()):
            if self.authorised():
                self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            else:
                self.send_json(
                    {"error": "Invalid username or password."}, 401, {"X-Error-Message": "Invalid username or password."}
                )
            return None
        if revision not in {"main", COMMIT, "v1"}:
            self.send_json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    @staticmethod
    def item(path: str, stored: Stored) -> dict[str, object]:
        item: dict[str, object] = {"type": "file", "oid": stored.git_oid(), "size": stored.size, "path": path}
        if stored.lfs:
            item["lfs"] = {"oid": stored.sha256(), "size": stored.size, "pointerSize": 135}
        return item

    def listing(self, name: str, what: str | None, revision: str, query: dict[str, list[str]]) -> None:
        repository = self.found(name, revision)
        if repository is None:
            return
        if what != "tree":
            siblings = [{"rfilename": path, "size": s.size} for path, s in repository.files.items()]
            self.send_json({"id": name, "sha": COMMIT, "private": repository.private, "siblings": siblings})
            return
        items = [self.item(path, stored) for path, stored in sorted(repository.files.items())]
        folders = {path.rpartition("/")[0] for path in repository.files} - {""}
        items = [{"type": "directory", "oid": "1" * 40, "size": 0, "path": folder} for folder in sorted(folders)] + items
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.hub.page_size < len(items):
            url = self.hub.url("hf") + urlsplit(self.path).path
            headers["Link"] = f'<{url}?recursive=true&cursor={start + self.hub.page_size}>; rel="next"'
        self.send_json(items[start : start + self.hub.page_size], headers=headers)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.found(name, revision)
        if repository is None:
            return
        if repository.gated and not self.authorised():
            self.send_json({"error": "gated"}, 401, {"X-Error-Code": "GatedRepo"})
            return
        stored = repository.files.get(path)
        if stored is None:
            self.send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{stored.sha256() if stored.lfs else stored.git_oid()}"',
            "Accept-Ranges": "bytes",
        }
        if stored.lfs:
            linked = {"X-Linked-Size": str(stored.size), "X-Linked-ETag": f'"{stored.sha256()}"'}
            self.send(302, b"", {**headers, **linked, "Location": self.signed(name, path)})
        else:
            self.send(200, stored.read(0, stored.size), headers)


class ModelScopeHandler(Handler):
    def do_GET(self) -> None:
        path, query = self.begin()
        files = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path)
        api_file = re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", path)
        resolve = re.fullmatch(r"/models/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if files and not self.common_fault("list"):
            self.listing(files[1], query)
        elif api_file and not self.common_fault("resolve"):
            self.file(api_file[1], query.get("Revision", ["master"])[0], query.get("FilePath", [""])[0])
        elif resolve and not self.common_fault("resolve"):
            self.file(*resolve.groups())
        elif revisions := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/revisions", path):
            branch = self.hub.repositories[revisions[1]].branch
            self.send_json(
                {"Code": 200, "Success": True, "Data": {"RevisionMap": {"Branches": [{"Revision": branch}], "Tags": []}}}
            )
        elif path == "/openapi/v1/models":
            words = query.get("search", [""])[0].lower().split()
            found = [{"id": name} for name in self.hub.repositories if all(word in name.lower() for word in words)]
            self.send_json({"success": True, "data": {"models": found[: int(query.get("page_size", ["10"])[0])]}})
        elif not (files or api_file or resolve):
            self.send_json({"Code": 404, "Success": False, "Message": "not found"}, 404)

    def own_fault(self, fault: str) -> bool:
        answers = {
            "unsuccessful": {"Code": 500, "Success": False, "Message": "busy"},
            "null-files": {"Code": 200, "Success": True, "Data": {"Files": None}},
            "overloaded": {"Code": 10010205001, "Success": False, "Message": "reading the model failed: Error 1461 (42000)"},
        }
        self.send_json(answers[fault], 404 if fault == "overloaded" else 200)
        return True

    def failed(self, code: int, status: int = 404) -> None:
        self.send_json({"Code": code, "Message": "record not found", "RequestId": "x", "Success": False}, status)

    def found(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self.failed(10010205001)
        elif (repository.private or repository.gated) and not self.authorised():
            self.failed(10010200001)
        elif revision not in {repository.branch, COMMIT, "v1"}:
            self.failed(10990101004)
        else:
            return repository
        return None

    def listing(self, name: str, query: dict[str, list[str]]) -> None:
        repository = self.found(name, query.get("Revision", ["master"])[0])
        if repository is None:
            return
        root, recursive = query.get("Root", [""])[0], query.get("Recursive", ["False"])[0].lower() == "true"
        below = root + "/" if root else ""
        paths = sorted(path for path in repository.files if path.startswith(below))
        items: list[dict[str, object]] = []
        folders = {
            below + "/".join(p[len(below) :].split("/")[: i + 1]) for p in paths for i in range(p[len(below) :].count("/"))
        }
        items += [
            {"Path": folder, "Name": folder.rpartition("/")[2], "Type": "tree", "Size": 0, "Sha256": ""}
            for folder in sorted(folders)
            if recursive or "/" not in folder[len(below) :]
        ]
        for path in paths:
            if recursive or "/" not in path[len(below) :]:
                stored = repository.files[path]
                items.append(
                    {
                        "Path": path,
                        "Name": path.rpartition("/")[2],
                        "Type": "blob",
                        "Size": stored.size,
                        "Sha256": stored.sha256(),
                        "IsLFS": stored.lfs,
                        "Revision": COMMIT,
                        "Mode": "33188",
                    }
                )
        self.send_json(
            {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": items[: self.hub.modelscope_cap]}}
        )

    def file(self, name: str, revision: str, path: str) -> None:
        repository = self.found(name, revision)
        if repository is None:
            return
        stored = repository.files.get(path)
        if stored is None:
            self.failed(10990101007)
        elif stored.lfs and not self.hub.ms_direct:
            self.send(302, b"", {"Location": self.signed(name, path)})
        else:
            serve_range(self, stored, status=200)


class ContentHandler(Handler):
    def do_GET(self) -> None:
        path, query = self.begin()
        if "authorization" in (self.entry.headers if self.entry else {}):
            self.send(400, b"<Error><Code>InvalidRequest</Code></Error>")
            return
        if self.common_fault("cdn"):
            return
        owner, name, file = path.lstrip("/").split("/", 2)
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None or file not in repository.files or "Signature" not in query:
            self.send(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        serve_range(self, repository.files[file], status=206)

    def own_fault(self, fault: str) -> bool:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if fault == "wrong-range":
            self.send(206, b"x" * 100, {"Content-Range": f"bytes {start + 7}-{start + 106}/100000000"})
        elif fault == "truncated":
            end = int(wanted[2]) if wanted and wanted[2] else start + 999
            self.send(206, b"x" * 10, {"Content-Range": f"bytes {start}-{end}/100000000"}, length=end - start + 1)
            self.close_connection = True
        elif fault == "gzip":
            self.send(200, b"\x1f\x8b" + b"\0" * 100, {"Content-Encoding": "gzip"})
        elif fault == "ignore-range":
            owner, name, file = unquote(urlsplit(self.path).path).lstrip("/").split("/", 2)
            stored = self.hub.repositories[f"{owner}/{name}"].files[file]
            self.send_response(200)
            self.send_header("Content-Length", str(stored.size))
            self.end_headers()
            at = 0
            while at < stored.size and not self.close_connection:
                self.body(stored.read(at, 1 << 20))
                at += 1 << 20
        else:
            return super().own_fault(fault)
        return True


def serve_range(handler: Handler, stored: Stored, *, status: int) -> None:
    """A file, or the part that is asked for, with a Content-Range that says so."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if not wanted:
        handler.send(
            200,
            b"" if handler.command == "HEAD" else stored.read(0, stored.size),
            {"Accept-Ranges": "bytes"},
            length=stored.size,
        )
        return
    start, end = int(wanted[1]), min(int(wanted[2]) if wanted[2] else stored.size - 1, stored.size - 1)
    if start >= stored.size:
        handler.send(416, b"", {"Content-Range": f"bytes */{stored.size}"})
        return
    handler.send(
        status,
        stored.read(start, end - start + 1),
        {"Content-Range": f"bytes {start}-{end}/{stored.size}", "Accept-Ranges": "bytes"},
    )
