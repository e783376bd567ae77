"""Opens the kernel's store, the one place that does: PostgreSQL where `database_url` names one, else the host's SQLite file.

What an engine needs is imported only when that engine is the one.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from orchestration.errors import SettingsInvalid, StoreEmpty, StoreOutdated, StoreUnreachable

if TYPE_CHECKING:
    from typing import Protocol

    from orchestration.store.port import Database
    from orchestration.store.postgres_database import PostgresDatabase
    from orchestration.store.sqlite import SqliteDatabase

    class ScopeNamed(Protocol):
        """What names a scope, and this host in it."""

        @property
        def name(self) -> str:
            """Of the scope."""

        @property
        def host(self) -> str:
            """This host's; empty for its host name."""

    class Naming(Protocol):
        """The settings that say where the store is."""

        @property
        def state_dir(self) -> str:
            """Folder of the file."""

        @property
        def database_url(self) -> str:
            """PostgreSQL; empty for the file."""

        @property
        def scope(self) -> ScopeNamed:
            """Whose PostgreSQL it is."""


FILE = "kloros.db"
MOVED = "store.moved_to"
"""Fact in the file: where `klorosctl db join` took all of it."""
_Seen = TypeVar("_Seen")


class Place(NamedTuple):
    """Where a host's store is."""

    path: str  # the file's, which counts if there is no URL
    url: str = ""
    scope: str = "default"
    here: str = ""

    def __str__(self) -> str:
        """Name it for people; a password is not shown."""
        if not self.url:
            return self.path
        from orchestration.store.postgres_database import place

        return place(self.url)


def place_of(settings: "Naming") -> Place:
    """Return where the settings say that the store is."""
    path, url = os.path.join(settings.state_dir, FILE), settings.database_url
    return Place(path, url, settings.scope.name, here(settings.scope)) if url else Place(path)


def here(scope: "ScopeNamed") -> str:
    """Return the name of this host in its scope."""
    return scope.host or os.uname().nodename


def is_made(place: Place) -> bool:
    """Say whether there may be a store: a file that is there, or a server, which may have no tables yet."""
    return bool(place.url) or os.path.exists(place.path)


def open_store(settings: "Naming") -> "SqliteDatabase | PostgresDatabase":
    """Open the store to work with it: made, if absent, and migrated.

    Raises:
        StoreUnreachable, Unwritable: it can't be opened or migrated.
        SettingsInvalid: the database is another scope's.
    """
    return open_at(place_of(settings))


def open_at(place: Place, *, read_only: bool = False) -> "SqliteDatabase | PostgresDatabase":
    """Open the store at a place: made, if absent, and migrated, unless `read_only`.

    Raises:
        StoreUnreachable, Unwritable: it can't be opened or migrated.
        StoreEmpty, StoreOutdated: with `read_only`, it has no tables yet, or those of an older release.
        SettingsInvalid: the database is another scope's; or this host comes to it with a history of its own.
    """
    if place.url:
        from orchestration.store.postgres_database import PostgresDatabase

        db = PostgresDatabase(place.url, scope=place.scope, here=place.here, read_only=read_only)
        if not read_only and not db.is_known and os.path.exists(place.path):
            _check_moved(place, db)
        return db
    from orchestration.store.sqlite import SqliteDatabase

    return SqliteDatabase(place.path, read_only=read_only)


def _check_moved(place: Place, db: "PostgresDatabase") -> None:
    """Check that this host's first tick in a scope forgets nothing: what its file remembers is there, or nothing."""
    from orchestration.store.sqlite import SqliteDatabase

    own = SqliteDatabase(place.path)
    try:
        if not own.rows("cycles.recent", limit=1) or own.rows("facts.get", name=MOVED):
            return
    finally:
        own.close()
    db.close()
    raise SettingsInvalid(
        f"{place.path} has cycles that {place} knows nothing of, though KLR_DATABASE_URL says that all is remembered there",
        hint="take them over, which the first host of a scope can: klorosctl db join; or move kloros.db and cycles/ away",
    )


def open_to_look(settings: "Naming") -> "SqliteDatabase | PostgresDatabase":
    """Open the store to look at it: itself, a copy when no tick has migrated it yet, or an empty one when there is none.

    Raises:
        StoreUnreachable: it can't be read.
    """
    place = place_of(settings)
    try:
        if not place.url:
            os.stat(place.path)
        return open_at(place, read_only=True)
    except (FileNotFoundError, NotADirectoryError, StoreEmpty):
        return empty()
    except StoreOutdated:
        return copy_of(place)
    except PermissionError as error:
        hint = "run it as the folder's owner: sudo klorosctl …"
        raise StoreUnreachable(f"{place.path}: {error.strerror}", hint=hint) from error


def empty() -> "SqliteDatabase":
    """Return a store of this process only, with nothing in it."""
    from orchestration.store.sqlite import SqliteDatabase

    return SqliteDatabase(":memory:")


def copy_of(place: Place) -> "SqliteDatabase":
    """Return a store with the same content that lives in this process only; changes nothing where it was.

    Raises:
        StoreEmpty: there are no tables yet.
        StoreUnreachable: it can't be read.
    """
    if place.url:
        from orchestration.store.postgres_copy import copy_of as copy_of_server

        return copy_of_server(place.url, scope=place.scope, here=place.here)
    from orchestration.store.sqlite import copy_of as copy_of_file

    return copy_of_file(place.path)


def look(place: Place, see: "Callable[[Database], _Seen]") -> _Seen:
    """Return what `see` returns, given the store as it stands; it may be asked again, and must not keep the store.

    Raises:
        StoreEmpty: there is no store yet, or it has no tables.
        StoreOutdated: its tables are those of an older release.
        StoreUnreachable: it can't be read, or a newer release wrote it.
    """
    from orchestration.store import snapshot

    if place.url:
        return snapshot.look_at_server(place.url, see, scope=place.scope, here=place.here)
    return snapshot.look(place.path, see)
