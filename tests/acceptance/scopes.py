"""Hosts of one scope, over one PostgreSQL, as acceptance tests have them: a state folder is a host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.acceptance.host import Host, script
from tests.waiting import until

_TRY_ALL = (
    'cat "$KLR_PROMOTIONS" > "$KLR_CYCLE_DIR/artifacts/seen.json"',
    "python3 - <<'END'",
    "import json, os",
    'handed = json.load(open(os.environ["KLR_PROMOTIONS"]))["promotions"]',
    'told = [{"promotion": one["stem"], "accepted": "good" in one["stem"], "reason": "tried"} for one in handed]',
    'assert all(json.load(open(one["path"]))["id"] == one["id"] for one in handed)',
    'with open(os.environ["KLR_CYCLE_DIR"] + "/artifacts/verdicts.json", "w") as file:',
    '    json.dump({"schema": "v1", "verdicts": told}, file)',
    "END",
)


class Scoped:
    """A scope: its database, and its hosts by name."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self.home = home
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """Make a host of the scope."""
        home = self.home / name
        home.mkdir()
        host = self.hosts[name] = Host(home)
        host.set(KLR_DATABASE_URL=self.url, KLR_SCOPE_HOST=name, KLR_SLURM_PATIENCE="1s")
        return host

    def trying(self, names: str, *settings: str) -> None:
        """Make hosts whose D-REAM tries every promotion, and accepts those that are called good."""
        command = script(self.home, "try", _TRY_ALL)
        for name in names:
            host = self.host(name)
            host.stepwise()
            host.configure("\n".join(("[dream]", f'command = ["{command}"]', *settings, "")))

    def tick(self, names: str) -> None:
        """Let these hosts tick, one after the other."""
        for name in names:
            self.hosts[name].decided()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask the database."""
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def do(self, statement: str) -> None:
        """Change the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def expire(self) -> None:
        """Let the lease have run out, as when its holder is dead."""
        self.do("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'")

    def lead(self, name: str) -> None:
        """Let this host alone lead from the next tick on."""
        self.do(f"UPDATE leases SET pinned_to = '{name}', expires_at = clock_timestamp()")

    @property
    def lease(self) -> dict[str, Any]:
        (lease,) = self.ask("SELECT * FROM leases")
        return lease

    @contextmanager
    def held_inside(self, host: Host) -> Iterator[subprocess.Popen[str]]:
        """Hold a tick of a host where it has the lead and first asks for cycles, for the length of the block."""
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE cycles IN ACCESS EXCLUSIVE MODE")
            ticking = subprocess.Popen(
                host.command("run_once", "--json"),
                env=host.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            until(lambda: self.ask(waits), what="the tick comes there")
            yield ticking
            connection.rollback()


Two = tuple[Scoped, Host, Host]
