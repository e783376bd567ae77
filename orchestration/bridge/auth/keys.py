"""Where keys come from: an issuer's JWKS over HTTP, or the ring of this host's own issuer.

Theory. Keys are held as one mapping with a number, the generation; every change of what is trusted makes a new one, so that
whoever remembers a verified token knows when to look again. The remote keys are asked for at the start, then every
`refresh`, and at once for a key that is not known, though never twice within `FLOOR`. When the issuer is out of reach the
last keys stay, for `keep`, and a copy on disk carries them over a restart; after that nobody can be verified, which is our
failure (UNAVAILABLE) and not the token's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from orchestration.bridge.auth.jwks import Key, keys_of
from orchestration.bridge.auth.ring import Ring, RingUnusable
from orchestration.errors import KlorosError, Malformed
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log

FLOOR: Final = 30.0
"""Seconds between two requests for keys, however many tokens name keys that are not known."""
_LOOK_AT_RING: Final = 1.0
_NONE: Final[Mapping[str, Key]] = {}


class KeysUnavailable(KlorosError):
    """No keys to verify with: the issuer has been out of reach for too long, or from the start."""

    retryable = True


class Keys(Protocol):
    """The public keys that are trusted now."""

    generation: int

    def known(self) -> Mapping[str, Key]:
        """Return them. Raises: KeysUnavailable."""

    async def find(self, kid: str) -> Key | None:
        """Return one, looked for anew if it is not known. Raises: KeysUnavailable."""

    async def run(self) -> None:
        """Keep them fresh, without end."""


class RemoteKeys:
    """Keys of an issuer elsewhere."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[bytes]],
        *,
        url: str,
        now: Callable[[], float],
        refresh: float,
        keep: float,
        copy: str = "",
    ) -> None:
        """Take ways to get them.

        Args:
            fetch: gets the JWKS; raises KlorosError.
            url: where it is, for messages and the copy. now: seconds since the epoch.
            refresh: seconds after which they are asked for again. keep: seconds for which they last without an answer.
            copy: file that carries them over a restart; empty for none.
        """
        self.generation = 0
        self.failures = 0
        self._fetch, self._url, self._now, self._refresh, self._keep, self._copy = fetch, url, now, refresh, keep, copy
        self._keys: Mapping[str, Key] = _NONE
        self._document = b""
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._read_copy()

    @property
    def age(self) -> float | None:
        """Seconds since the issuer last answered; None when it never has."""
        return None if self._fetched_at is None else max(0.0, self._now() - self._fetched_at)

    def known(self) -> Mapping[str, Key]:
        """Return the keys that are trusted now. Raises: KeysUnavailable."""
        age = self.age
        if age is None or age > self._keep:
            raise KeysUnavailable(f"no keys of {self._url}", hint="is it reachable from this host? klorosctl doctor")
        return self._keys

    async def find(self, kid: str) -> Key | None:
        """Return a key; for one that is not known the issuer is asked, unless it was a moment ago."""
        with suppress(KeysUnavailable):
            if (key := self.known().get(kid)) is not None:
                return key
        if self._task is not None or self._tried_at is None or self._now() - self._tried_at >= FLOOR:
            await self._renew()
        return self.known().get(kid)

    async def run(self) -> None:
        """Ask for the keys now, and again and again."""
        while True:
            await self._renew()
            await asyncio.sleep(self._refresh if self.failures == 0 else min(FLOOR, self._refresh))

    async def _renew(self) -> None:
        """Ask once, however many want it."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ask())
        await asyncio.shield(self._task)

    async def _ask(self) -> None:
        self._tried_at = self._now()
        try:
            document = await self._fetch()
            keys = keys_of(document)
        except KlorosError as error:
            self._failed(error)
        else:
            self.failures = 0
            self._fetched_at = self._now()
            if document != self._document:
                self._document, self._keys = document, keys
                self.generation += 1
                log(Event.BRIDGE_KEYS_LOADED, f"{len(keys)} keys of {self._url}", keys=len(keys))
            self._write_copy()
        finally:
            self._task = None

    def _failed(self, error: KlorosError) -> None:
        self.failures += 1
        age = self.age
        left = "there are none yet"
        if age is not None:
            left = f"the last ones, {age:.0f} s old, stay for {max(0.0, self._keep - age):.0f} s"
        message = f"the keys of {self._url} can't be had: {error.message}; {left}"
        log(Event.BRIDGE_KEYS_FAILED, message, priority=Priority.WARNING, failures=self.failures)

    def _read_copy(self) -> None:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, Malformed, RecursionError):
            with open(self._copy, encoding="utf-8") as file:
                held = json.load(file)
            if held["url"] == self._url and isinstance(held["fetched_at"], float | int):
                document = str(held["jwks"]).encode()
                self._keys, self._document = keys_of(document), document
                self._fetched_at = min(float(held["fetched_at"]), self._now())
                self.generation += 1

    def _write_copy(self) -> None:
        if not self._copy:
            return
        held = {"url": self._url, "fetched_at": self._fetched_at, "jwks": self._document.decode("utf-8", "replace")}
        try:
            os.makedirs(os.path.dirname(self._copy), mode=0o700, exist_ok=True)
            files.replace(self._copy, json.dumps(held).encode(), durable=False)
        except (OSError, KlorosError) as error:
            log(Event.BRIDGE_KEYS_FAILED, f"their copy can't be written: {error}", priority=Priority.WARNING)


class LocalKeys:
    """Keys of this host's own issuer, which `klorosctl token` changes beside us."""

    def __init__(self, ring: Ring, *, now: Callable[[], float]) -> None:
        self.generation = 0
        self._ring, self._now = ring, now
        self.document: Mapping[str, list[dict[str, str]]] = {"keys": []}
        """Their JWKS."""
        self._seen: object = None
        self._keys: Mapping[str, Key] = _NONE

    def known(self) -> Mapping[str, Key]:
        """Return the keys that are trusted now. Raises: KeysUnavailable."""
        if not self._keys:
            raise KeysUnavailable("this host's issuer has no key", hint="klorosctl token issue --agent … makes one")
        return self._keys

    async def find(self, kid: str) -> Key | None:
        """Return a key; the ring is looked at again for one that is not known."""
        if (key := self._keys.get(kid)) is None:
            self.look()
            key = self.known().get(kid)
        return key

    async def run(self) -> None:
        """Look at the ring again and again; make it when there is none."""
        with suppress(KlorosError):
            self._ring.ensure(self._now())
        while True:
            self.look()
            await asyncio.sleep(_LOOK_AT_RING)

    def look(self) -> None:
        """Read the ring if it has changed, or a key in it has outlived its tokens."""
        seen = self._ring.identity()
        try:
            document = self._ring.jwks(self._now())
        except RingUnusable as error:
            if seen != self._seen:
                log(Event.BRIDGE_KEYS_FAILED, str(error), priority=Priority.ERROR)
            self._seen, document = seen, {"keys": []}
        if document == self.document:
            return
        self.document = document
        try:
            self._keys = keys_of(json.dumps(document).encode())
        except Malformed:
            self._keys = _NONE
        self.generation += 1
