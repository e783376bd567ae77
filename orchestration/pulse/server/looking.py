"""How the server comes by what it shows: one look at the store for each request, in a few threads.

Settings, store and folders are looked at anew each time, so what was unreachable is there again as soon as it is mended.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from orchestration.errors import StoreUnreachable
from orchestration.pulse import away
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.settings import Settings

_Seen = TypeVar("_Seen")
LOOKS_AT_ONCE = 4
"""Looks share one interpreter: more of them at once would only make each slower."""


class Looking:
    """Everything outside that the server knows of."""

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        look: Callable[[Settings, Callable[[Database], object]], object],
        now: Callable[[], datetime],
        boot_id: str,
    ) -> None:
        """Take ways to look.

        Args:
            settings: gives those in force now; may raise SettingsInvalid.
            look: asks a function for what it sees in the store now; may raise StoreUnreachable.
            now: aware UTC. boot_id: of the host.
        """
        self.settings = settings
        self.now = now
        self.boot_id = boot_id
        self._look = look
        self._looks = anyio.CapacityLimiter(LOOKS_AT_ONCE)

    async def at(self, see: Callable[[Settings, Database], _Seen]) -> _Seen:
        """Return what a function sees in settings and store."""
        return await anyio.to_thread.run_sync(self._at, see, limiter=self._looks)

    def _at(self, see: Callable[[Settings, Database], _Seen]) -> _Seen:
        settings = self.settings()
        seen: list[_Seen] = []
        try:
            self._look(settings, lambda db: seen.append(see(settings, db)))
        except StoreUnreachable as error:
            raise away.explained(settings, error, self.now()) from None
        return seen[-1]
