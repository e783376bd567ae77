"""HTTP/1.1 by httptools, which is C: for servers that answer thousands of requests a second."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from orchestration.serving.process import Patience


class FastProtocol(Patience, HttpToolsProtocol):
    """As patient as the other."""
