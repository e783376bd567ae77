"""Gives out a file of a cycle's folder: opened beneath it without following a link, whole or a range of it.

Ranges: RFC 9110, section 14; one range at a time, several are answered with the whole file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from orchestration.pulse.server.problem import Problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

CHUNK: Final = 65536
READS = anyio.CapacityLimiter(8)
_RANGE: Final = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_DIGITS: Final = 18
"""Of a number in a range: more are beyond every file."""


def open_beneath(folder: str, path: str) -> int:
    """Open a regular file beneath a folder for reading; returns its descriptor.

    No part of the path may be a link, and none may lead upwards.

    Raises:
        FileNotFoundError: there is no such regular file.
        OSError: it can't be opened.
    """
    *folders, name = path.split("/")
    if name in ("", ".", "..") or any(part in ("", ".", "..") for part in folders) or "\0" in path:
        raise FileNotFoundError(path)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    held = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = os.open(part, flags | os.O_DIRECTORY, dir_fd=held)
            os.close(held)
            held = inner
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=held)
    except PermissionError:
        raise
    except OSError as error:  # also a link, where O_NOFOLLOW says ELOOP, or ENOTDIR
        raise FileNotFoundError(path) from error
    finally:
        os.close(held)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(path)


async def respond(request: Request, folder: str, path: str, *, media_type: str, attachment: bool) -> Response:
    """Answer with a file, or the range of it that is asked for.

    Raises:
        Problem: 404 there is none (any more), 416 the range is beyond its end, 503 it can't be read.
    """
    try:
        descriptor = await anyio.to_thread.run_sync(open_beneath, folder, path, limiter=READS)
    except FileNotFoundError:
        raise Problem(404, "the file is not there (any more)", hint="klorosctl show CYCLE tells what is kept") from None
    except OSError as error:
        raise Problem(503, f"the file can't be read: {error.strerror}", hint="klorosctl doctor") from error
    try:
        return _response(request, descriptor, path, media_type, attachment=attachment)
    except BaseException:
        os.close(descriptor)
        raise


def _response(request: Request, descriptor: int, path: str, media_type: str, *, attachment: bool) -> Response:
    found = os.fstat(descriptor)
    size = found.st_size
    etag = f'"{found.st_ino:x}-{size:x}-{found.st_mtime_ns:x}"'
    headers = {"accept-ranges": "bytes", "etag": etag}
    if attachment:
        headers["content-disposition"] = _disposition(path)
    span = _span(request.headers.get("range", ""), size)
    if request.headers.get("if-range", etag) != etag:
        span = None
    if span == (0, 0):
        raise Problem(416, f"the file has {size} bytes", headers={"content-range": f"bytes */{size}", **headers})
    start, end = span or (0, size)
    headers["content-length"] = str(end - start)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        os.close(descriptor)
        return Response(status_code=206 if span else 200, headers=headers, media_type=media_type)
    parts = _parts(descriptor, start, end)
    return _Streaming(parts, descriptor, 206 if span else 200, headers, media_type)


class _Streaming(StreamingResponse):
    """A stream that gives its descriptor back, also when nobody takes a single part of it."""

    def __init__(
        self, parts: AsyncIterator[bytes], descriptor: int, status: int, headers: dict[str, str], media_type: str
    ) -> None:
        super().__init__(parts, status, headers, media_type)
        self._descriptor = descriptor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with suppress(OSError):
                os.close(self._descriptor)


async def _parts(descriptor: int, start: int, end: int) -> AsyncIterator[bytes]:
    """Read a span. A file that was cut short meanwhile ends the connection, for the length is promised."""
    while start < end:
        part = await anyio.to_thread.run_sync(os.pread, descriptor, min(CHUNK, end - start), start, limiter=READS)
        if not part:
            raise OSError("the file was cut short while it was read")
        start += len(part)
        yield part


def _span(header: str, size: int) -> tuple[int, int] | None:
    """Return which bytes are asked for, end excluded; None for all, (0, 0) for none that there are."""
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (int(text if len(text) <= _DIGITS else "9" * _DIGITS) if text else None for text in found.groups())
    if first is None:
        return (max(0, size - (last or 0)), size) if last and size else (0, 0)
    if last is not None and last < first:
        return None  # not a range at all, by the grammar
    return (first, min(size, last + 1 if last is not None else size)) if first < size else (0, 0)


def _disposition(path: str) -> str:
    """Name the file to save it under (RFC 6266), the part after the last slash; what is not plain in RFC 8187's form."""
    name = path.rpartition("/")[2]
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    exact = quote(name.encode("utf-8", "surrogateescape"), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
