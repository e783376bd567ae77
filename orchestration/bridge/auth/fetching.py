"""Gets an issuer's JWKS over HTTP without ever keeping the event loop: in a thread of its own, bounded in size and time.

The standard library does it: one small document every few minutes is no reason for an HTTP client among the packages. It
takes proxies and `SSL_CERT_FILE` from the environment. Redirects are not followed: the setting says where keys come from.
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from typing import IO, Any, Final

from orchestration.errors import KlorosError

LARGEST: Final = 256 * 1024
PATIENCE: Final = 5.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, *_: Any) -> None:
        """Follow none; the answer stands as the error that it is."""


def fetcher(url: str, *, patience: float = PATIENCE) -> Callable[[], Awaitable[bytes]]:
    """Return what gets the document at `url`; it raises KlorosError."""
    opener = urllib.request.build_opener(_NoRedirect())

    async def fetch() -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def settle(body: bytes | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is None and body is not None:
                answer.set_result(body)
            else:
                answer.set_exception(KlorosError(_told(error)))

        def work() -> None:
            body: bytes | None = None
            failed: Exception | None = None
            try:
                body = _read(opener, url, patience)
            except urllib.error.HTTPError as error:
                error.close()
                failed = error
            except Exception as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, body, failed)

        threading.Thread(target=work, name="jwks", daemon=True).start()
        try:
            async with asyncio.timeout(patience + 1):
                return await answer
        except TimeoutError as error:
            raise KlorosError(f"no whole answer within {patience:g} s") from error

    return fetch


def _read(opener: urllib.request.OpenerDirector, url: str, patience: float) -> bytes:
    deadline = time.monotonic() + patience
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "kloros"})  # noqa: S310
    with opener.open(request, timeout=patience) as answer:
        parts, size = [], 0
        while part := answer.read1(16 * 1024):
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise ValueError(f"the answer is larger than {LARGEST // 1024} KiB")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(parts)


def _told(error: Exception | None) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"the answer is {error.code}"
        case urllib.error.URLError():
            return str(error.reason)
        case TimeoutError():
            return "no whole answer in time"
        case ValueError():
            return str(error)
        case HTTPException():
            return f"no HTTP answer ({type(error).__name__})"
        case _:
            return str(error) or type(error).__name__
