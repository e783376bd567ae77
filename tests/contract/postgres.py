"""A PostgreSQL of the test's own: Debian's, in a temporary folder, on a socket that only this machine sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psycopg

_PROGRAMS = "/usr/lib/postgresql/15/bin"
_USER = "postgres"


def missing() -> str:
    """Say what keeps a server from being started here; empty when nothing does."""
    return "" if os.path.exists(f"{_PROGRAMS}/initdb") else "PostgreSQL 15 is not installed: apt-get install postgresql"


class Cluster:
    """A server that can be stopped, killed and started again."""

    def __init__(self, folder: str, *settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self._names = count(1)
        # Somebody who is no root must own it; the tests may be root.
        self._user = _USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, _USER, _USER)
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={_USER}")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-k", self.folder, "-c", "listen_addresses=", *(f"-c{setting}" for setting in self._settings)]
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", f"{self.folder}/log", "--options", " ".join(options))

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as if it had been killed."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", mode)

    def url(self, database: str) -> str:
        """Return where a database is."""
        return f"postgresql:///{database}?host={self.folder}&user={_USER}"

    def new_database(self) -> str:
        """Make an empty database, and return where it is."""
        name = f"kloros_{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [f"{_PROGRAMS}/{program}", "--pgdata", f"{self.folder}/data", *arguments]
        environ = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        ran = subprocess.run(
            command, env=environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, check=False, user=self._user, group=self._user,
            extra_groups=[] if self._user else None,
        )  # fmt: skip
        if ran.returncode:
            raise RuntimeError(f"{program} failed: {ran.stderr}")


@contextmanager
def running(*settings: str) -> Iterator[Cluster]:
    """Run a server until the end of the block."""
    folder = tempfile.mkdtemp(prefix="kloros-postgres-")
    try:
        cluster = Cluster(folder, *settings)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(folder)
