"""PostgreSQL on machines of the field: a primary, a replica that it streams to, and a PgBouncer beside each.

Both are as a careful operator has them: commits wait for the replica (without that, a failover forgets the last commits, and
with them epochs and answers), and who fails over takes the old primary off the network first. Synced to no disk: processes
are killed here, machines only seemingly. The test itself asks over a socket in the file system, whatever the network does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from tests.contract import postgres
from tests.field.network import NETWORK, Machine, send
from tests.waiting import until

_PROGRAMS = "/usr/lib/postgresql/15/bin"
_USER = "postgres"
_SETTINGS = (
    "listen_addresses=*",
    "dynamic_shared_memory_type=mmap",  # in its own folder
    "fsync=off",
    "full_page_writes=off",
    "max_connections=150",
    "wal_receiver_status_interval=1",
    "wal_sender_timeout=3s",
    "wal_receiver_timeout=3s",
    "wal_retrieve_retry_interval=200ms",
)
_ANYBODY = f"host all all {NETWORK}.0/24 trust\nhost replication all {NETWORK}.0/24 trust\n"
PORT, POOLED_PORT = 5432, 6432
_POOLER = """
[databases]
* = host={folder} user=postgres
[pgbouncer]
listen_addr = *
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
server_login_retry = 1
pidfile = {folder}/pooler.pid
logfile = {folder}/pooler.log
"""


def missing() -> str:
    """Say what keeps the servers from being started here; empty when nothing does."""
    return postgres.missing() or (
        "" if shutil.which("pgbouncer") else "PgBouncer is not installed: apt-get install pgbouncer"
    )


class Server:
    """One server on a machine of its own, with its pooler."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Take the machine and a folder for its files; `found` or `follow` makes them."""
        self.machine = machine
        self.folder = folder
        self.data = folder / "data"
        self._pooler: subprocess.Popen[str] | None = None
        folder.mkdir()
        folder.chmod(0o755)
        shutil.chown(folder, _USER, _USER)
        entry = pwd.getpwnam(_USER)
        self._user = (entry.pw_uid, entry.pw_gid)

    def found(self) -> None:
        """Make a new cluster and start it."""
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={_USER}")
        with open(self.data / "pg_hba.conf", "a", encoding="utf-8") as file:
            file.write(_ANYBODY)
        self.start()

    def follow(self, primary: Server) -> None:
        """Become the replica of a server that runs, from nothing; its commits wait for this one from now on."""
        shutil.rmtree(self.data, ignore_errors=True)
        place = f"host={primary.machine.address} user={_USER} application_name={self.machine.name} connect_timeout=2"
        self._run(
            "pg_basebackup",
            "--no-sync",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--write-recovery-conf",
            f"--dbname={place}",
        )
        _leave_out(self.data / "postgresql.auto.conf", "synchronous_standby_names")
        self.start()
        until(lambda: primary.ask("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "the replica streams")
        primary.wait_for_replica(self.machine.name)

    def wait_for_replica(self, name: str) -> None:
        """Have commits wait for a replica; an empty name: for none."""
        self.say(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        self.say("SELECT pg_reload_conf()")
        if name:
            until(
                lambda: self.ask("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"),
                "commits wait for the replica",
            )

    def start(self) -> None:
        """Start it, and its pooler; wait until it answers."""
        options = ["-k", str(self.folder), *(f"-c{setting}" for setting in _SETTINGS)]
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", f"{self.folder}/log", "--options", " ".join(options))
        if not self.machine.running("pooler.ini"):
            self._start_pooler()

    @property
    def is_running(self) -> bool:
        return bool(self.machine.running("bin/postgres -D"))

    def restart_pooler(self) -> None:
        """Restart the pooler, as after each change of roles: it tells clients for good what it first saw of its server."""
        self._end_pooler()
        self._start_pooler()

    def _end_pooler(self) -> None:
        poolers = self.machine.running("pooler.ini")
        for pid in poolers:
            send(pid, signal.SIGKILL)
        # The kernel closes the port of one that is killed last of all, when it has left its namespaces already.
        if self._pooler is not None:
            self._pooler.wait(timeout=30)

    def _start_pooler(self) -> None:
        ini = self.folder / "pooler.ini"
        ini.write_text(_POOLER.format(folder=self.folder, port=POOLED_PORT))
        ini.chmod(0o644)
        said = self.folder / "pooler.said"
        deadline = time.monotonic() + 30
        while not self._pooler_listens():
            assert time.monotonic() < deadline, f"no pooler: {self.machine.commands()} {said.read_text()[-2000:]}"
            if self._pooler is None or self._pooler.poll() is not None:  # or the port was not free yet
                (self.folder / "pooler.pid").unlink(missing_ok=True)
                self._pooler = self.machine.start("pgbouncer", "--quiet", str(ini), user=self._user, output=said)

    def _pooler_listens(self) -> bool:
        asked = ("timeout", "1", "bash", "-c", f": </dev/tcp/127.0.0.1/{POOLED_PORT}")
        return self.machine.run(*asked).returncode == 0

    def pooler_said(self) -> str:
        """Tell what its pooler logged last."""
        log = self.folder / "pooler.log"
        return log.read_text()[-1500:] if log.exists() else ""

    def restart(self, mode: str = "fast") -> None:
        """Stop it and start it again; `immediate` is as if it had been killed."""
        self.stop(mode)
        self.start()

    def stop(self, mode: str = "fast") -> None:
        """Stop it; its pooler stays."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", mode)

    def promote(self) -> None:
        """Make the replica a primary, whose commits wait for nobody; wait until it is one."""
        self._run("pg_ctl", "promote", "--wait", "--silent")

    def end(self) -> None:
        """Switch its machine off."""
        self.machine.cut_power()

    def url(self, database: str) -> str:
        """Return where a database is for the test itself."""
        return f"postgresql:///{database}?host={self.folder}&user={_USER}"

    def say(self, statement: str, database: str = "postgres") -> None:
        """Carry out a statement, outside a transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def ask(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Ask for rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def _run(self, program: str, *arguments: str) -> None:
        command = self.machine.inside(f"{_PROGRAMS}/{program}", f"--pgdata={self.data}", *arguments, user=self._user)
        environ = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        with open(self.folder / "said", "w", encoding="utf-8") as said:  # no pipe, which the server would keep open
            done = subprocess.run(
                command, env=environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False
            )
        assert done.returncode == 0, f"{program}: {(self.folder / 'said').read_text()}"


class Pair:
    """A primary and its replica, and the addresses under which hosts look for whichever of them may be written to."""

    def __init__(self, one: Server, other: Server) -> None:
        self.primary, self.replica = one, other
        self._names = 0

    def found(self) -> None:
        """Start both."""
        self.primary.found()
        self.replica.follow(self.primary)

    def end(self) -> None:
        """Switch both machines off."""
        self.primary.end()
        self.replica.end()

    def heal(self) -> None:
        """Put right whatever a test that failed has left."""
        for server in (self.primary, self.replica):
            server.machine.go_on()
            server.machine.mend()
        if not self.primary.is_running:
            self.primary.start()
        if not self.replica.is_running or self.replica.ask("SELECT pg_is_in_recovery()") != [(True,)]:
            self.take_back()

    def new_database(self) -> str:
        """Make an empty database and return its name."""
        self._names += 1
        name = f"field_{self._names}"
        self.primary.say(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str, host: str, *, pooled: bool = False) -> str:
        """Return where a host looks for it: at both machines, at whichever takes writes; each session names the host."""
        port = POOLED_PORT if pooled else PORT
        places = ",".join(sorted(f"{server.machine.address}:{port}" for server in (self.primary, self.replica)))
        return f"postgresql://{_USER}@{places}/{database}?target_session_attrs=read-write&connect_timeout=2&application_name={host}"

    def fail_over(self) -> None:
        """Take the primary off the network, and have the replica go on in its place."""
        self.primary.machine.cut()
        self.replica.promote()
        self.replica.restart_pooler()
        self.primary, self.replica = self.replica, self.primary

    def take_back(self) -> None:
        """Let the old primary follow the new one."""
        if self.replica.is_running:
            self.replica.stop("immediate")
        self.replica.machine.mend()
        self.replica.follow(self.primary)
        self.replica.restart_pooler()


def _leave_out(path: Path, setting: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(setting)))
