"""The file of the SQLite store: how the bridge's processes open it, and share it with those of others."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from orchestration.store.sqlite import LOG_PAGES, uri

OF_CONTENT: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
"""What only the change itself is to blame for; the connection is as good as before."""
BUSY_SECONDS: Final = 3.0
_FREE_SHARE: Final = 0.1
_PAUSE: Final = 0.003


def connected(path: str, *, writes: bool = False) -> sqlite3.Connection:
    """Open a file that is there, for one that writes or for one that only looks."""
    connection = sqlite3.connect(
        uri(path, "rw"), uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = FULL" if writes else "PRAGMA query_only = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    return connection


def does_no_harm(error: BaseException) -> bool:
    """Tell whether a connection is as good after an error as before: the change is to blame, or who else has the lock."""
    is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return is_busy or isinstance(error, OF_CONTENT)


class Turns:
    """Sees to it that other processes get their turn: SQLite's locks know no queue, who polls them needs them to be free.

    They are for a tenth of the time, be it for lack of work or by a pause.
    """

    def __init__(self) -> None:
        self._owed = 0.0
        """Seconds that the file has still to be free."""
        self._ended = self._began = time.monotonic()

    def begin(self) -> None:
        """Wait, if the file was not free for long enough; what follows keeps it locked."""
        now = time.monotonic()
        self._owed = max(0.0, self._owed - (now - self._ended))
        if self._owed > _PAUSE:
            time.sleep(_PAUSE)  # nobody can tell who else waits for the lock
            self._owed = 0.0
            now = time.monotonic()
        self._began = now

    def end(self) -> None:
        """Take note that the file is free again."""
        self._ended = time.monotonic()
        self._owed += _FREE_SHARE * min(self._ended - self._began, 0.1)
