"""A `Database` over one scope's PostgreSQL: what `SqliteDatabase` is to one host, for as many as share the URL.

**Writers are one after the other**, as SQLite makes them: `transaction()` begins by locking the row of the scope's lease, so
whatever was read inside still holds when it is written, and numbers come in the order of commits.

**The fence.** `fence(epoch)` says: from now on I write as the leader of that epoch, and as nobody else. Each transaction,
and each `run()` outside of one, then finds in the row that it has locked whether `here` still holds the lease under that
epoch; if not it raises `LeaseLost` and has written nothing. Who takes the lease over locks the same row: it waits for a
write under way, and every later write of the former leader meets the new epoch. `fence(None)` writes whoever leads, for
what a host writes of its own (its claims, its ticks, its files).

**Sessions are never relied on**, for a pooler may stand between: no prepared statements, no session's locks, no settings
but of the transaction. A connection that broke between two transactions is made anew by the next; one that breaks inside
raises `StoreUnreachable`, and what was asked last may have been committed, as if we had been killed right after it.

**What a query's text may count on.** Values are written into it as literals: an integer, a double precision, NULL, and text
as '…' of no type yet, which takes the type of what it meets. So `:x IS NULL OR a = :x` needs no CAST, nor a comparison, an
INSERT or LIMIT; `CAST(:x AS bigint)` is computed even where a CASE would have left it out, for the server does so when it
reads the text, and 0 and 1 are no booleans. `:here` and `:scope` are filled in wherever they are named. An instant is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from orchestration.errors import (
    KlorosError,
    LeaseLost,
    SettingsInvalid,
    StoreEmpty,
    StoreOutdated,
    StoreUnreachable,
    Unwritable,
)
from orchestration.store import postgres_schema
from orchestration.store.libpq import Answer, Connection, Lost, NoLibrary, Refused, Silent, literal
from orchestration.store.port import Row, Value
from orchestration.store.queries import sql_of

IDLE_SECONDS = 10.0
"""After how long the server ends a writer that pauses inside a transaction: so long it may keep a takeover waiting."""
WAIT_SECONDS = 12.0
"""How long a writer waits for the one before it: longer than that one may pause."""
WORK_SECONDS = 15.0
"""How long one statement may take, its waiting included."""
LOOK_SECONDS = 60.0
"""After how long the server ends a look that pauses; it keeps nobody waiting."""
ANSWER_SECONDS = 20.0
"""After how long no answer at all means that there is no server: later than the server would have given up itself, and soon
enough for a tick to say so, which systemd ends after 50 s."""
PATIENCE: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",  # of several hosts the one that takes writes; a replica alone is refused
}
"""After how long a server that has gone without a word is given up, and which will do: libpq's connection parameters."""
_PARAMETERS: dict[str, Any] = {
    **PATIENCE,
    "client_encoding": "UTF8",
    "gssencmode": "disable",  # looking for tickets costs more than a tick; a URL may ask for it
}
_PARAMETER = re.compile(r"--[^\n]*|'(?:[^']|'')*'|(?<![:\w]):([a-z][a-z0-9_]*)")
_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE)\b")  # as our queries have it, in capitals
_DISK_FULL, _READ_ONLY, _LOCKED = "53100", "25006", "55P03"
_REPLICA = ("read-only", "hot standby", "not a primary")
_statements: dict[str, tuple[str, ...]] = {}


class PostgresDatabase:
    """A `Database` over PostgreSQL, which scopes share with nobody."""

    is_shared = True

    def __init__(
        self,
        url: str,
        *,
        scope: str = "default",
        here: str = "",
        read_only: bool = False,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Connect, and bring the tables up to this program unless `read_only`.

        Args:
            url: where it is; of several hosts in it, the one that takes writes is used.
            scope: whose database it is. An empty one becomes this scope's when the first writer opens it.
            here: the name of this host.
            read_only: look only.
            idle_seconds: see `IDLE_SECONDS`.

        Raises:
            StoreUnreachable: nobody answers, or only a replica; or a newer program wrote it.
            StoreEmpty, StoreOutdated: with `read_only`, it has no tables yet, or those of an older release.
            SettingsInvalid: it is another scope's.
            Unwritable: the server's disk is full.
        """
        self.url = url
        self._own = {"scope": scope, "here": here}
        self._read_only = read_only
        self._idle_seconds = idle_seconds
        self._epoch: int | None = None
        self._inside = False
        self._failed = False
        self.here = here
        self.is_known = False
        """Whether this host has ticked in the scope before."""
        self.connection = self._connected()

    def fence(self, epoch: int | None) -> None:
        """From now on write only while `here` holds the scope's lease under this epoch; None: whoever holds it."""
        self._epoch = epoch

    @contextmanager
    def transaction(self, *, looking: bool = False) -> Iterator[None]:
        """Commit everything inside together, or nothing; one that only looks keeps nobody from writing.

        Raises:
            LeaseLost: it is fenced, and another leads by now.
        """
        self._begin(looking=looking or self._read_only)
        self._inside, self._failed = True, False
        try:
            yield
            if self._failed:  # the server would answer COMMIT by undoing all, and call that no error
                raise StoreUnreachable(f"{self}: a statement failed, so none of its transaction stands")
            self._ask("COMMIT")
        except BaseException:
            self._undo()
            raise
        finally:
            self._inside = False

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        """Return every row of the named query; one that writes and tells what it wrote is neither fenced nor queued here."""
        text = self._text(query, parameters)
        if self._inside:
            answers = self._ask(text)
        elif _WRITES.search(text):
            self._first("BEGIN")  # what writes is asked once, by a connection that is known to stand
            answers = self._and_commit(text)
        else:
            answers = self._first(text)
        return answers[0].rows  # type: ignore[return-value]

    def run(self, query: str, /, **parameters: Value) -> int:
        """Carry out the named statement; return how many rows it changed.

        Raises:
            LeaseLost: outside a transaction: it is fenced, and another leads by now.
        """
        if self._read_only:
            raise Unwritable(f"{self} is only looked at here; {query} would change it")
        text = self._text(query, parameters)
        if self._inside:
            return self._ask(text)[0].changed
        self._begin(looking=False)
        return self._and_commit(text)[0].changed

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()

    def __str__(self) -> str:
        """Name it for people; a password is not shown."""
        return place(self.url)

    def _connected(self) -> Connection:
        connection = connected(self.url, f"kloros {self._own['here']}".strip())
        try:
            with translated(self.url):
                self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: Connection) -> None:
        version, scopes = self._look_at(connection)
        postgres_schema.check_not_newer(version, connection)
        if self._read_only and version < postgres_schema.KERNEL_SINCE:
            raise StoreEmpty(f"{self} has no tables yet", hint="the first tick makes them")
        if self._read_only and version < postgres_schema.SCHEMA_VERSION:
            raise StoreOutdated(
                f"{self} has schema version {version}, and this program works with {postgres_schema.SCHEMA_VERSION}",
                hint="the next tick migrates it: klorosctl tick",
            )
        if version < postgres_schema.SCHEMA_VERSION:
            postgres_schema.bring_up(connection)
            _, scopes = self._look_at(connection)
        if not scopes and not self._read_only:
            connection.ask(self._text("postgres.give_to_scope", {}))
            _, scopes = self._look_at(connection)
        self.is_known = any(one["known"] for one in scopes)
        names = [one["scope"] for one in scopes]
        if names and names != [self._own["scope"]]:
            raise SettingsInvalid(
                f"{self} is the database of the scope {names[0]!r}, and this host's is {self._own['scope']!r}",
                hint="correct [scope] name (KLR_SCOPE_NAME), or name a database of its own as KLR_DATABASE_URL",
            )

    def _look_at(self, connection: Connection) -> tuple[int, list[dict[str, Any]]]:
        """Return the schema's version and whose database it is, at the cost of one message once it is somebody's."""
        try:
            both = ";\n".join(self._text(query, {}) for query in ("postgres.schema_version", "postgres.scopes"))
            version, scopes = connection.ask(both)
        except Refused as refused:
            if refused.sqlstate != postgres_schema.NO_SUCH_TABLE:
                raise
            return postgres_schema.version_of(connection), []
        return int(version.rows[0]["version"]), scopes.rows

    def _begin(self, *, looking: bool) -> None:
        name = "postgres.begin_looking" if looking else "postgres.begin_writing"
        idle = LOOK_SECONDS if looking else self._idle_seconds
        times = {"idle": _milliseconds(idle), "wait": _milliseconds(WAIT_SECONDS), "work": _milliseconds(WORK_SECONDS)}
        found = self._first(self._text(name, {**times}))[-1].rows
        if looking:
            return
        try:
            if not found:
                told = f"{self} has no lease of the scope {self._own['scope']!r} any more"
                raise StoreUnreachable(told, hint="the next tick makes it: klorosctl tick")
            lease = found[0]
            postgres_schema.check_not_newer(lease["version"], self.connection)  # another host may have migrated it since
            if self._epoch is not None and (lease["holder"], lease["epoch"]) != (self._own["here"], self._epoch):
                raise LeaseLost(
                    f"{lease['holder'] or 'nobody'} leads {self._own['scope']} under epoch {lease['epoch']};"
                    f" {self._own['here']} did under {self._epoch}, and has written nothing since",
                    hint="the next tick begins anew: klorosctl leader show",
                )
        except BaseException:
            self._undo()
            raise

    def _text(self, query: str, parameters: dict[str, Value]) -> str:
        if query not in _statements:
            _statements[query] = _read(query)
        parts = list(_statements[query])
        for at in range(1, len(parts), 2):
            name = parts[at]
            parts[at] = literal(parameters[name] if name in parameters else self._own[name])
        return "".join(parts)

    def _first(self, text: str) -> list[Answer]:
        """Ask what can be asked again: a connection that broke since it was last used is made anew."""
        with translated(self.url):
            try:
                return self.connection.ask(text)
            except Silent:
                raise
            except Lost:
                pass
        self.connection = self._connected()
        return self._ask(text)

    def _ask(self, text: str) -> list[Answer]:
        try:
            with translated(self.url):
                return self.connection.ask(text)
        except KlorosError:
            self._failed = True
            raise

    def _and_commit(self, text: str) -> list[Answer]:
        try:
            return self._ask(f"{text};\nCOMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        try:
            if self.connection.is_open:
                self.connection.ask("ROLLBACK")
        except (Refused, Lost):
            self.connection.close()  # so the server undoes it


def migrate(url: str) -> None:
    """Apply every migration that is missing; whoever comes meanwhile waits for it.

    Raises:
        StoreUnreachable: the server can't be reached, is too old, keeps no UTF-8, or a newer program was here.
        Unwritable: its disk is full.
    """
    connection = connected(url, "kloros")
    try:
        with translated(url):
            postgres_schema.bring_up(connection)
    finally:
        connection.close()


def place(url: str) -> str:
    """Name a database as people may see it: hosts and name, without who asks or how it is let in."""
    _, _, rest = url.partition("://")
    authority, _, name = rest.partition("?")[0].rpartition("@")[2].partition("/")
    return f"PostgreSQL {name or 'database'}" + (f" at {authority}" if authority else "")


def connected(url: str, name: str) -> Connection:
    """Connect, under a name that the server shows.

    Raises:
        StoreUnreachable: nobody answers, or only a replica.
    """
    with translated(url):
        return Connection(url, patience=ANSWER_SECONDS, fallback_application_name=name, **_PARAMETERS)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Raise what the server or libpq say as errors of ours."""
    try:
        yield
    except NoLibrary as error:
        hint = "apt-get install libpq5, or pip install 'kloros-orchestration[postgres]'"
        raise StoreUnreachable(f"PostgreSQL's client library is not on this host: {error}", hint=hint) from error
    except (Refused, Lost) as error:
        raise _as_ours(error, url) from None  # its message may hold the password


def _read(query: str) -> tuple[str, ...]:
    """Return a query's text in parts, every second of which names a parameter.

    The query's name goes along for those who watch the server.
    """
    parts, end = [f"/* {query} */ "], 0
    text = sql_of(query, "postgres").rstrip("; \n")
    for found in _PARAMETER.finditer(text):
        if found[1]:
            parts[-1] += text[end : found.start()]
            parts += [found[1], ""]
        elif found[0].startswith("--"):
            parts[-1] += text[end : found.start()]
        else:
            continue
        end = found.end()
    parts[-1] += text[end:]
    return tuple(parts)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _as_ours(error: Refused | Lost, url: str) -> KlorosError:
    where, told = place(url), _without_secrets("; ".join(filter(None, map(str.strip, str(error).split("\n")))), url)
    if error.sqlstate == _DISK_FULL:
        return Unwritable(f"{where}: {told}", hint="make room on the database's server")
    if error.sqlstate == _READ_ONLY or any(sign in str(error) for sign in _REPLICA):
        return StoreUnreachable(
            f"{where} is a replica, or takes no writes: {told}",
            hint="name every server in KLR_DATABASE_URL (postgresql://one,two/kloros), so that the primary is found",
        )
    if error.sqlstate == _LOCKED:
        return StoreUnreachable(
            f"{where}: another has been writing for {WAIT_SECONDS:g} s", hint="see who: SELECT * FROM pg_stat_activity"
        )
    hint = "check KLR_DATABASE_URL, and that the server runs and lets this user in"
    return StoreUnreachable(f"{where}: {told}", hint=hint)


def _without_secrets(told: str, url: str) -> str:
    """Take the password, and whatever libpq may have taken for a part of something else, out of a message."""
    from urllib.parse import parse_qsl, unquote

    before, _, query = url.partition("://")[2].partition("?")
    _, _, secret = before.rpartition("@")[0].partition(":")
    secrets = {value for name, value in parse_qsl(query) if name.endswith("password")}
    for part in (secret, unquote(secret)):
        secrets |= {part, *re.split(r"[@/:?#,&=]", part)}
    for part in sorted(filter(None, secrets), key=len, reverse=True):
        told = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "…", told)
    return told
