"""A mirror for one process alone, made when something is looked up in it: for people, and for ticks thought through.

The one in the state folder is the tick's, under its lock, and on a host that stands by nobody keeps it up.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

from orchestration.errors import StoreEmpty
from orchestration.scope.mirror import Mirror
from orchestration.scope.sharing import Sharing

if TYPE_CHECKING:
    from orchestration.settings import Settings
    from orchestration.store.port import Database


class _Lazy(Mirror):
    """A mirror that is filled when a path in it is asked for."""

    def __init__(self, folder: str, fill: Callable[[], None]) -> None:
        super().__init__(folder, boot_id="")
        self._fill: Callable[[], None] | None = fill

    def path(self, *names: str) -> str:
        """Return a path in it, with the files in place."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill()
        return super().path(*names)


@contextmanager
def looking(settings: Settings, db: Database, here: str, *, opened: Callable[[], Database]) -> Iterator[Sharing]:
    """Give what hosts share to somebody who changes nothing; `opened` opens their store to look at it."""
    folder = tempfile.mkdtemp(prefix="kloros-scope-")

    def fill() -> None:
        with suppress(StoreEmpty), closing(opened()) as store:  # before the first tick nobody has shared anything
            Sharing(settings, store, here, boot_id="", mirror=Mirror(folder, boot_id="")).look()

    try:
        yield Sharing(settings, db, here, boot_id="", mirror=_Lazy(folder, fill))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
