"""A server that speaks Ollama's API, as far as an installation uses it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Ollama:
    """A server that speaks as much of the API as an installation uses, and remembers what it was asked."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.loaded: list[dict[str, Any]] = []
        self.requests: list[tuple[str, Any]] = []
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, status: int, found: Any) -> None:
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                found = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": [{"name": n} for n in ollama.models]},
                         "/api/ps": {"models": ollama.loaded}}  # fmt: skip
                self.answer(200, found[self.path])

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ollama.requests.append((self.path, body))
                if self.path == "/api/create":
                    ollama.models[body["model"]] = body
                    self.answer(200, {"status": "success"})
                elif body["model"] == "broken":
                    self.answer(500, {"error": "out of memory"})
                else:
                    self.answer(200, {"done_reason": "load", "done": True})

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
