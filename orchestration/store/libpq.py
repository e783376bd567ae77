"""PostgreSQL's own client library, called by ctypes: connect, ask, read what was answered.

For ticks, which are short: `import psycopg` alone costs three times a whole quiet tick, this about what `import sqlite3`
does (docs/decisions/0033). It knows the wire's types and nothing of the program's tables. Text goes out with its values
written into it, so no session has to remember anything between two statements and a pooler may stand between.
Source of every name and number: https://www.postgresql.org/docs/15/libpq.html; types: pg_type.dat of PostgreSQL 15.
"""

import ctypes
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_char_p, c_int, c_void_p
from typing import Any, NamedTuple

_SYSTEM = "libpq.so.5"
_BAD = 1  # ConnStatusType CONNECTION_BAD
_ROWS = 2  # ExecStatusType PGRES_TUPLES_OK
_FAILED = (5, 7)  # PGRES_BAD_RESPONSE, PGRES_FATAL_ERROR
_SQLSTATE, _MESSAGE, _DETAIL = ord("C"), ord("M"), ord("D")
_FUNCTIONS: dict[str, tuple[Any, ...]] = {  # the result first, then what is given
    "PQconnectdbParams": (c_void_p, ctypes.POINTER(c_char_p), ctypes.POINTER(c_char_p), c_int),
    "PQstatus": (c_int, c_void_p),
    "PQerrorMessage": (c_char_p, c_void_p),
    "PQserverVersion": (c_int, c_void_p),
    "PQparameterStatus": (c_char_p, c_void_p, c_char_p),
    "PQsocket": (c_int, c_void_p),
    "PQsetNoticeReceiver": (c_void_p, c_void_p, c_void_p, c_void_p),
    "PQfinish": (None, c_void_p),
    "PQsendQuery": (c_int, c_void_p, c_char_p),
    "PQconsumeInput": (c_int, c_void_p),
    "PQisBusy": (c_int, c_void_p),
    "PQgetResult": (c_void_p, c_void_p),
    "PQclear": (None, c_void_p),
    "PQresultStatus": (c_int, c_void_p),
    "PQresultErrorField": (c_char_p, c_void_p, c_int),
    "PQntuples": (c_int, c_void_p),
    "PQnfields": (c_int, c_void_p),
    "PQfname": (c_char_p, c_void_p, c_int),
    "PQftype": (c_int, c_void_p, c_int),
    "PQgetvalue": (c_char_p, c_void_p, c_int, c_int),
    "PQgetisnull": (c_int, c_void_p, c_int, c_int),
    "PQcmdTuples": (c_char_p, c_void_p),
}


class Refused(Exception):
    """The server said no to a statement; the connection lives on."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Lost(Exception):
    """There is no connection, or none any more: what was asked last may or may not have been carried out."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Silent(Lost):
    """The server has not answered within the patience."""


class NoLibrary(Exception):
    """There is no libpq on this host."""


class Answer(NamedTuple):
    """What came of one statement: its rows, and how many it changed or gave."""

    rows: list[dict[str, Any]]
    changed: int


class Connection:
    """One connection. It belongs to one thread at a time, and is of no more use once it raised `Lost`."""

    def __init__(self, url: str, *, patience: float, **parameters: str | int) -> None:
        """Connect.

        Args:
            url: a connection URI; what it says counts before `parameters`.
            patience: seconds after which an answer that has not come never will.
            parameters: connection parameters as libpq calls them.

        Raises:
            NoLibrary: libpq is not installed.
            Lost: nobody answers at any of the addresses, or none that will do.
        """
        self._pq = _library()
        self.patience = patience
        self._connection = c_void_p(self._pq.PQconnectdbParams(*_arrays(parameters, url), 1)).value
        if self._pq.PQstatus(self._connection) == _BAD:
            message = _text(self._pq.PQerrorMessage(self._connection))
            self.close()
            raise Lost(message)
        # Notices would be printed. This takes a pointer and does nothing; a callback would need memory that can be run.
        self._pq.PQsetNoticeReceiver(self._connection, ctypes.cast(self._pq.PQresultStatus, c_void_p), None)
        self._poll = select.poll()
        self._poll.register(self._pq.PQsocket(self._connection), select.POLLIN)

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known without asking."""
        return self._connection is not None

    @property
    def server_version(self) -> int:
        """As the server counts it: 150013."""
        return int(self._pq.PQserverVersion(self._connection))

    def told(self, parameter: str) -> str:
        """Return what the server said of itself when the connection was made; empty when it, or a pooler, did not."""
        return _text(self._pq.PQparameterStatus(self._connection, parameter.encode()))

    def ask(self, text: str) -> list[Answer]:
        """Carry out statements, one after the other, as one message; return what came of each.

        Raises:
            Refused: by the server, at one of them; those behind it were not tried.
            Lost: the connection broke, or nothing came within the patience.
        """
        if self._connection is None:
            raise Lost("the connection is closed")
        try:
            return self._answers(text.replace("\0", "\ufffd").encode())
        except Refused:
            raise
        except BaseException:  # a signal's too: half an answer is still under way
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; a transaction under way is undone by the server."""
        if self._connection is not None:
            self._pq.PQfinish(self._connection)
            self._connection = None

    def _answers(self, text: bytes) -> list[Answer]:
        pq, connection = self._pq, self._connection
        if not pq.PQsendQuery(connection, text):
            raise Lost(_text(pq.PQerrorMessage(connection)))
        answers: list[Answer] = []
        failure: Refused | None = None
        until = time.monotonic() + self.patience
        while True:
            while pq.PQisBusy(connection):
                self._wait(until)
            result = pq.PQgetResult(connection)
            if not result:
                break
            try:
                failure = failure or self._failure(result)
                if failure is None:
                    answers.append(_answer(pq, result))
            finally:
                pq.PQclear(result)
        if pq.PQstatus(connection) == _BAD:
            if failure is not None:
                raise Lost(str(failure), failure.sqlstate)
            raise Lost(_text(pq.PQerrorMessage(connection)))
        if failure is not None:
            raise failure
        return answers

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise Silent(f"the server has not answered for {self.patience:g} s")
        if not self._pq.PQconsumeInput(self._connection):
            raise Lost(_text(self._pq.PQerrorMessage(self._connection)))

    def _failure(self, result: int) -> Refused | None:
        if self._pq.PQresultStatus(result) not in _FAILED:
            return None
        state, message, detail = (
            _text(self._pq.PQresultErrorField(result, field)) for field in (_SQLSTATE, _MESSAGE, _DETAIL)
        )
        told = message or _text(self._pq.PQerrorMessage(self._connection))
        return Refused(state, f"{told} ({detail})" if detail else told)


def literal(value: str | int | float | None) -> str:
    """Write a value into a statement: NULL, an integer, a double precision, else text whose type the statement tells."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        doubled = value.replace("'", "''")
        return f"'{doubled}'" if "\\" not in value else " E'" + doubled.replace("\\", "\\\\") + "'"
    if isinstance(value, float):
        return f"CAST('{value!r}' AS double precision)"
    return f"({int(value)})" if value < 0 else str(int(value))


def _number(text: bytes) -> int | float:
    return int(text) if text.lstrip(b"-").isdigit() else float(text)


_READ: dict[int, Callable[[bytes], Any]] = {
    16: lambda text: 1 if text == b"t" else 0,  # boolean, as SQLite has it
    20: int,  # bigint
    21: int,  # smallint
    23: int,  # integer
    26: int,  # oid
    700: float,  # real
    701: float,  # double precision
    1700: _number,  # numeric: what sum() makes of bigint
}


def _answer(pq: Any, result: int) -> Answer:
    if pq.PQresultStatus(result) != _ROWS:
        return Answer([], int(pq.PQcmdTuples(result) or 0))
    value, is_null, count = pq.PQgetvalue, pq.PQgetisnull, pq.PQntuples(result)
    columns = [
        (at, pq.PQfname(result, at).decode(), _READ.get(pq.PQftype(result, at), bytes.decode))
        for at in range(pq.PQnfields(result))
    ]
    rows = []
    for row in range(count):
        found = {}
        for at, name, read in columns:
            text = value(result, row, at)
            found[name] = read(text) if text or not is_null(result, row, at) else None
        rows.append(found)
    return Answer(rows, count)


def _arrays(parameters: Mapping[str, str | int], url: str) -> tuple[Any, Any]:
    # Of two values of one keyword the last counts, and `dbname` stands for all that the URL says.
    pairs = [*((name, str(value)) for name, value in parameters.items()), ("dbname", url)]
    array = c_char_p * (len(pairs) + 1)
    keywords, values = (array(*(pair[at].encode() for pair in pairs), None) for at in (0, 1))
    return keywords, values


def _text(told: bytes | None) -> str:
    return (told or b"").decode("utf-8", "replace").strip()


_loaded: list[Any] = []


def _library() -> Any:
    if not _loaded:
        library = _open(_SYSTEM, *_bundled(sys.path))
        for name, (result, *given) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, given
        _loaded.append(library)
    return _loaded[0]


def _open(*names: str) -> ctypes.CDLL:
    reasons = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise NoLibrary("; ".join(reasons))


def _bundled(folders: Sequence[str]) -> list[str]:
    """Return the libraries that the wheel of psycopg-binary brings."""
    found = []
    for folder in folders:
        libraries = os.path.join(folder, "psycopg_binary.libs")
        if os.path.isdir(libraries):
            found += [os.path.join(libraries, name) for name in os.listdir(libraries) if name.startswith("libpq-")]
    return found
