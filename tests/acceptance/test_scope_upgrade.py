"""Two releases side by side over one PostgreSQL while hosts are upgraded one after the other: the newer migrates and leads,
the older do nothing and say why, until they are upgraded too. There is no way back but a backup."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestration.exits import Exit
from orchestration.store.postgres_schema import SCHEMA_VERSION
from tests.acceptance import next_release
from tests.acceptance.host import Host, script
from tests.acceptance.next_release import NEWER, upgrade
from tests.acceptance.scopes import Scoped

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Where a newer release lies."""
    place = tmp_path / "newer"
    next_release.make(place)
    return place


def older(scope: Scoped, name: str) -> Host:
    """Make a host of this release."""
    host = scope.host(name)
    host.stepwise()
    return host


def everything(scope: Scoped) -> list[object]:
    """Return all that ticks write."""
    names = scope.ask("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [scope.ask(f"SELECT * FROM {one['name']} ORDER BY 1") for one in names]


def test_the_newer_migrates_and_leads_and_the_older_do_nothing_until_they_are_upgraded(scope: Scoped, newer: Path) -> None:
    a, b = older(scope, "a"), older(scope, "b")
    a.decided()
    b.decided()
    a.promote("p1")
    upgrade(b, newer)
    b.decided()
    before, files = everything(scope), a.file_contents()
    for entry in ("run_once", "run_cycle"):
        done = a.run(entry)
        assert done.returncode == Exit.STORE_UNREACHABLE
        told = f"the database has schema version {SCHEMA_VERSION + 1}, as release {NEWER} on b has it; this program knows"
        assert f"{told} {SCHEMA_VERSION}" in done.stderr
        assert "run that release, or restore a backup made before the upgrade" in done.stderr
    assert everything(scope) == before
    changed = {name for name, found in a.file_contents().items() if files.get(name) != found}
    assert changed <= {"state/latest.json", "node-exporter/kloros.prom"}, "they tell of it; all else waits as it is"
    scope.expire()
    b.decided()
    upgrade(a, newer)
    assert a.reasons() == ["standby"]
    assert b.decided()["decision"] == "dream_cycle", "what waited on the older is taken up"


def test_a_tick_of_the_older_at_work_while_the_newer_migrates_writes_no_more(scope: Scoped, newer: Path) -> None:
    a, b = older(scope, "a"), older(scope, "b")
    a.decided()
    a.promote("p1")
    upgrade(b, newer)
    with scope.held_inside(a) as ticking:
        scope.do(f"INSERT INTO kloros_schema (version) VALUES ({SCHEMA_VERSION + 1})")
    _, errors = ticking.communicate(timeout=60)
    assert ticking.returncode == Exit.STORE_UNREACHABLE, errors
    assert f"schema version {SCHEMA_VERSION + 1}; this program" in errors
    scope.do(f"DELETE FROM kloros_schema WHERE version = {SCHEMA_VERSION + 1}")
    a.set(KLR_DREAM_COMMAND=script(a.home, "job", ["true"]))
    assert a.decided()["decision"] == "dream_cycle", "it had decided nothing"


def test_hosts_of_both_releases_that_begin_at_once_migrate_once(scope: Scoped, newer: Path) -> None:
    a, b, c = older(scope, "a"), older(scope, "b"), older(scope, "c")
    a.decided()
    for host in (b, c):
        upgrade(host, newer)
    ticking = [
        subprocess.Popen(one.command("run_once"), env=one.environ, stderr=subprocess.PIPE, text=True) for one in (a, b, c)
    ]
    errors = [process.communicate(timeout=60)[1] for process in ticking]
    codes = [process.returncode for process in ticking]
    assert codes[1:] == [0, 0], errors
    assert codes[0] in (0, Exit.STORE_UNREACHABLE), errors
    assert a.run("run_once").returncode == Exit.STORE_UNREACHABLE
