"""A host of its own for each acceptance test: a state folder, settings, and the program run as a process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from orchestration.exits import Exit
from orchestration.host import process_identity

PYTHON = sys.executable


class Host:
    """Files in, run, files and rows and exit codes out."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.config = home / "orchestrator.toml"
        self.textfile = home / "node-exporter" / "kloros.prom"
        self.textfile.parent.mkdir(parents=True)
        self.config.write_text(f'textfile = "{self.textfile}"\n')
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KLR_CONFIG": str(self.config),
            "KLR_STATE_DIR": str(self.state),
            "KLR_ORCHESTRATION_MODE": "enabled",
            "KLR_RETENTION_LOW_DISK": "0",  # the machine's own disk says nothing of a test
            "KLR_CYCLES_BUNDLE": "false",  # made after the end, when many a test counts files; test_bundles has them on
            **self.window(opens_in=timedelta(hours=3)),
        }

    @staticmethod
    def window(*, opens_in: timedelta, lasts: timedelta = timedelta(hours=2)) -> dict[str, str]:
        """Return the variables of a PHASE window relative to now, in UTC."""
        opens = datetime.now(UTC) + opens_in
        return {
            "KLR_PHASE_TIME_ZONE": "UTC",
            "KLR_PHASE_WINDOW_OPENS": f"{opens:%H:%M:%S}",
            "KLR_PHASE_WINDOW_CLOSES": f"{opens + lasts:%H:%M:%S}",
        }

    def set(self, **variables: str) -> None:
        """Set `KLR_*` variables."""
        self.environ.update(variables)

    def configure(self, toml: str) -> None:
        """Add to the settings file."""
        self.config.write_text(self.config.read_text() + toml)

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run an entry as its user would: `run("run_once", "--json")`."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def ctl(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Give klorosctl a command that must end with this code."""
        done = self.run("klorosctl", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def answer(self, *arguments: str, code: int = 0) -> Any:
        """Do so with --json, and return what it says."""
        return json.loads(self.ctl(*arguments, "--json", code=code).stdout)

    @staticmethod
    def command(entry: str, *arguments: str) -> list[str]:
        """Return the command line of an entry."""
        return [PYTHON, "-m", f"orchestration.{entry}", *arguments]

    def tick(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Do one tick; one with `--wait` also sees out the tick that follows its cycle and might take in what is next."""
        done = self.run("run_once", *flags)
        deadline = time.monotonic() + 30
        while "--wait" in flags and self.processes():
            assert time.monotonic() < deadline, self.processes()
        return done

    def processes(self) -> list[int]:
        """List the living processes that work for this state folder or its cycles."""
        mark = f"KLR_STATE_DIR={self.state}".encode()
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_marked(int(name), mark)]

    def decided(self, *flags: str) -> dict[str, Any]:
        """Do one tick that must succeed, and return its record; one that follows a cycle may hold the lock for a moment."""
        deadline = time.monotonic() + 30
        while (done := self.tick("--json", *flags)).returncode == Exit.LOCK_HELD:
            assert time.monotonic() < deadline, "the lock is held and held"
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
        return record

    def reasons(self, *flags: str) -> list[str]:
        """Do one tick and return the reasons that its record gives."""
        return [found["reason"] for found in self.decided(*flags)["reasons"]]

    def stepwise(self) -> None:
        """Let nothing start by itself: kicks are left as on systemd, and no path unit sees them. See `run_queued`."""
        (self.state / "kick").mkdir(parents=True, exist_ok=True)
        self.set(KLR_LAUNCHER="systemd")

    def run_queued(self) -> None:
        """Run what is queued, and tick once more, which settles it."""
        assert self.run("run_cycle").returncode == 0
        self.decided()

    def promote(self, stem: str, **fields: object) -> Path:
        """Leave a promotion as D-REAM does: written beside, then renamed."""
        content = {
            "schema": "v1",
            "id": stem,
            "timestamp": "2026-11-21T00:00:00+00:00",
            "fitness": 0.5,
            "changes": {"learning_rate": 0.01},
            **fields,
        }
        return self._drop(self.state / "promotions" / f"{stem}.json", json.dumps(content))

    def intend(self, intent_type: str, *, priority: int = 5, reason: str = "test", **data: object) -> Path:
        """Leave an intent without a checksum."""
        now = datetime.now(UTC).timestamp()
        content = {
            "intent_type": intent_type,
            "priority": priority,
            "reason": reason,
            "data": data,
            "generated_at": now,
            "emitted_at": now,
            "emitted_by": "test",
        }
        serial = len(list((self.state / "intents").glob("*"))) if (self.state / "intents").exists() else 0
        return self._drop(self.state / "intents" / f"{int(now * 1000)}_{intent_type}_{serial:08x}.json", json.dumps(content))

    @staticmethod
    def _drop(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.writing")
        beside.write_text(text)
        return beside.rename(path)

    def ack(self, stem: str) -> dict[str, Any]:
        """Read the ack of a promotion."""
        content: dict[str, Any] = json.loads((self.state / "promotions_ack" / f"{stem}_ack.json").read_text())
        return content

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the store directly."""
        if url := self.environ.get("KLR_DATABASE_URL"):
            with psycopg.connect(url) as scope:
                return scope.execute(query.encode()).fetchall()
        with sqlite3.connect(f"file:{self.state / 'kloros.db'}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()

    def change(self, statement: str) -> None:
        """Change the store from outside, as a damage or an older release would have left it."""
        if url := self.environ.get("KLR_DATABASE_URL"):
            with psycopg.connect(url) as scope:
                scope.execute(statement.encode())
            return
        with closing(sqlite3.connect(self.state / "kloros.db")) as connection, connection:
            connection.execute(statement)

    def counter(self, name: str, labels: str = "") -> float:
        """Return the value of one counter series, 0 when it does not exist."""
        found = self.rows(f"SELECT value FROM counters WHERE name = '{name}' AND labels = '{labels}'")
        return float(found[0][0]) if found else 0.0

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        """Return content and change time of everything below the home folder."""
        return {
            str(path.relative_to(self.home)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
            for path in sorted(self.home.rglob("*"))
        }

    def file_contents(self) -> dict[str, tuple[bytes, int]]:
        """Return content and change time of every file; a reader of the store may have made and removed some meanwhile."""
        return {name: found for name, found in self.snapshot().items() if (self.home / name).is_file()}


def script(folder: Path, name: str, lines: Sequence[str]) -> str:
    """Write an executable shell script and return its path."""
    path = folder / name
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return str(path)


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0") and process_identity.start_time(pid) is not None
    except OSError:
        return False
