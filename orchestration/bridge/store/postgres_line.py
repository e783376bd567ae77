"""One connection of PostgreSQL without psycopg's cursors: a statement goes out at once, and its results call back.

For what is asked thousands of times a second: cursor, conversions and waiting in a task cost several times the CPU of the
bare calls of libpq. Statements carry their values in them (the simple protocol), so nothing rests on a session.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, Escaping, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from orchestration.store.postgres import Connection, query

Results: TypeAlias = list[PGresult]
"""Of each statement that was sent in one go."""
Answered: TypeAlias = Callable[[Results, psycopg.Error | None], None]
_templates: dict[str, bytes] = {}
_UNHEARD: Final = 1.0
"""Seconds after which an answer that the event loop has not told of is looked for."""
_HIGH: Final = 512
"""From which number on copies of sockets are made: others get the lowest that is free."""


class Line:
    """A connection that answers one question at a time; belongs to the event loop that opened it."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._watched: int | None = None
        """A copy of the socket, under a number that nobody else gets, for the event loop. libpq closes its own at any time;
        a loop may then take the next file of that number for one that it watches already, and never tell of it."""
        self._asked_at = 0.0
        self._answered: Answered | None = None
        self._results: Results = []

    @property
    def is_open(self) -> bool:
        """Tell whether it has a connection of which nothing bad is known."""
        return self._connection is not None and self._pgconn.status == ConnStatus.OK

    @property
    def waited(self) -> float:
        """Seconds since it was asked last."""
        return time.monotonic() - self._asked_at

    async def open(self) -> None:
        """Have a connection: a new one, unless there is one that is good.

        Raises:
            psycopg.Error: it can't be had.
        """
        if not self.is_open:
            await self.close()
            self._connection = await self._connect()
            self._pgconn: PGconn = self._connection.pgconn
            self._escaping = Escaping(self._pgconn)
            self._watched = fcntl.fcntl(self._pgconn.socket, fcntl.F_DUPFD_CLOEXEC, _HIGH)
            self._loop.add_reader(self._watched, self._readable)

    async def close(self) -> None:
        """Let go of the connection."""
        self._let_go()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def statement(self, name: str, **values: bytes | None) -> bytes:
        """Return a named query with its values in it.

        Raises:
            psycopg.OperationalError: there is no connection, which knows how to write them.
        """
        if not self.is_open:
            raise psycopg.OperationalError("there is no connection")
        if name not in _templates:
            _templates[name] = query(name).encode()
        escape = self._escaping.escape_literal
        return _templates[name] % {
            key.encode(): b"NULL" if value is None else escape(value) for key, value in values.items()
        }

    def ask(self, statement: bytes, answered: Answered) -> None:
        """Send it, and call back once with the results, and with the error if that is how it ends.

        Raises:
            psycopg.OperationalError: the connection is gone; it may have been sent or not.
        """
        try:
            self._pgconn.send_query(statement)
            if self._pgconn.flush() and self._watched is not None:
                self._loop.add_writer(self._watched, self._writable)
        except psycopg.OperationalError as error:
            self._end(error)
            raise
        self._answered, self._results, self._asked_at = answered, [], time.monotonic()

    def attend(self) -> None:
        """Read what has come, if it should have long ago: the guarantee behind what the event loop tells."""
        if self._answered is not None and self.waited > _UNHEARD:
            self._readable()

    async def asked(self, statement: bytes) -> Results:
        """Do as `ask`, and wait for the results.

        Raises:
            psycopg.Error: it failed.
        """
        future: asyncio.Future[Results] = self._loop.create_future()

        def answered(results: Results, error: psycopg.Error | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(results)
            else:
                future.set_exception(error)

        self.ask(statement, answered)
        return await future

    async def roll_back(self) -> None:
        """End a transaction, if one is under way; a dead connection has none."""
        if self.is_open and self._pgconn.transaction_status != TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                await self.asked(self.statement("bridge_postgres.rollback"))

    def _writable(self) -> None:
        try:
            if not self._pgconn.flush() and self._watched is not None:
                self._loop.remove_writer(self._watched)
        except psycopg.OperationalError as error:
            self._end(error)

    def _readable(self) -> None:
        pgconn, results = self._pgconn, self._results
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    break
                results.append(result)
            else:
                return
        except psycopg.OperationalError as error:
            self._end(error)
            return
        answered, self._answered, self._results = self._answered, None, []
        if answered is not None:  # else the server has said something unasked
            failed = results[-1].status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
            answered(results, error_from_result(results[-1]) if failed else None)

    def _end(self, error: psycopg.OperationalError) -> None:
        """Take note that the connection is gone."""
        self._let_go()
        self._pgconn.finish()
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(self._results, error)

    def _let_go(self) -> None:
        watched, self._watched = self._watched, None
        if watched is not None:
            self._loop.remove_reader(watched)
            self._loop.remove_writer(watched)
            os.close(watched)
