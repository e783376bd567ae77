"""Somebody who is told: a real HTTP server on this machine that keeps what it got."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from tests.waiting import until


class Request(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    body: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Webhook:
    """A server that answers with `status`, at once or only when it is let go on. A context manager."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[Request] = []
        self.status = 200
        self.go_on = threading.Event()
        self.go_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The URL that Apprise takes."""
        return f"json://127.0.0.1:{self.port}/told"

    @property
    def ping_url(self) -> str:
        """The URL of a dead-man's switch."""
        return f"http://127.0.0.1:{self.port}/ping/1234"

    @property
    def titles(self) -> list[str]:
        return [request.document["title"] for request in self.got]

    @property
    def pings(self) -> list[tuple[str, str]]:
        """Suffix and run id of each ping."""
        parts = (request.path.removeprefix("/ping/1234").partition("?rid=") for request in self.got)
        return [(suffix, run) for suffix, _, run in parts]

    def until(self, number: int, *, within: float = 30) -> list[Request]:
        """Wait for so many requests."""
        until(lambda: len(self.got) >= number, f"{number} requests; there are {len(self.got)}", within=within)
        return self.got

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._take("")

            def do_POST(self) -> None:
                self._take(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def _take(self, body: str) -> None:
                outer.got.append(Request(self.command, self.path, body))
                outer.go_on.wait(60)
                try:
                    self.send_response(outer.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    pass  # who asked has given up

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler
