"""What only history needs goes when it is old, a little with each tick; nothing that is still asked for does."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from orchestration import wiring
from orchestration.baseline import history
from orchestration.baseline.version import Kind, Provenance
from orchestration.store.instants import to_text
from orchestration.tick import expire
from orchestration.tick.kernel import Kernel
from tests.acceptance.host import Host, script

NOW = datetime.now(UTC)


def store(host: Host) -> sqlite3.Connection:
    return sqlite3.connect(host.state / "kloros.db", isolation_level=None)


def add_ticks(host: Host, number: int, *, days: float) -> None:
    """Put ticks of that age before those there are."""
    with closing(store(host)) as db:
        (first,) = db.execute("SELECT min(tick) FROM ticks").fetchone()
        assert first > number, "make room first"
        started = to_text(NOW - timedelta(days=days))
        db.execute("BEGIN")
        for tick in range(first - number, first):
            db.execute(
                "INSERT INTO ticks VALUES (?, ?, ?, ?, 'boot', 'noop', 0, NULL, NULL, '[]')",
                (tick, f"old-{days}-{tick}", started, started),
            )
        db.execute("COMMIT")


@pytest.fixture
def aged(host: Host) -> Host:
    """A host whose newest ticks have numbers that leave room below."""
    host.stepwise()
    host.decided()
    with closing(store(host)) as db:
        db.execute(f"UPDATE ticks SET tick = {expire.NEWEST_TICKS + 5000}")
    return host


def look_again(host: Host) -> None:
    """Let the hour pass."""
    with closing(store(host)) as db:
        assert db.execute("DELETE FROM facts WHERE name = 'expiry.next'").rowcount == 1


def ticks(host: Host, like: str) -> int:
    return int(host.rows(f"SELECT count(*) FROM ticks WHERE tick_id LIKE '{like}'")[0][0])


def test_old_ticks_go_a_little_each_time_and_then_none_for_an_hour(aged: Host) -> None:
    add_ticks(aged, expire.NEWEST_TICKS, days=399)
    add_ticks(aged, expire.PER_TICK + 100, days=401)
    look_again(aged)
    aged.decided()
    assert ticks(aged, "old-401%") == 100
    aged.decided()
    assert (ticks(aged, "old-401%"), ticks(aged, "old-399%")) == (0, expire.NEWEST_TICKS)
    add_ticks(aged, 3, days=500)
    aged.decided()
    assert ticks(aged, "old-500%") == 3, "it looks once an hour"
    look_again(aged)
    aged.decided()
    assert ticks(aged, "old-500%") == 0


def test_the_newest_stay_whatever_their_age(aged: Host) -> None:
    """A clock far ahead, for one tick, must not take all of history with it."""
    add_ticks(aged, 50, days=4000)
    look_again(aged)
    aged.decided()
    assert ticks(aged, "old-%") == 50
    assert aged.run("klorosctl", "history", "--limit", "60").stdout.count("noop") >= 50


def file_intents(host: Host, number: int) -> None:
    for one in range(number):
        host.intend("optimization_suggestion", reason=f"{one}-{os.urandom(4).hex()}")
    host.decided()


def processed(host: Host) -> list[str]:
    return sorted(path.name for path in (host.state / "intents" / "processed").glob("*/*"))


def test_processed_intents_go_with_their_rows(host: Host) -> None:
    host.stepwise()
    host.set(KLR_PHASE_TIME_ZONE="UTC")
    file_intents(host, 3)
    assert len(processed(host)) == 3
    look_again(host)
    host.decided()
    assert len(processed(host)) == 3
    with closing(store(host)) as db:
        db.execute("UPDATE intents SET decided_at = '2025-01-01T00:00:00.000000Z'")
    look_again(host)
    host.decided()
    assert host.rows("SELECT count(*) FROM intents") == [(0,)]
    assert len(processed(host)) == 3, "moved here today, whatever the store says"


def test_processed_files_go_by_the_day_on_which_they_were_moved(host: Host) -> None:
    host.stepwise()
    file_intents(host, 3)
    waiting = host.intend("trigger_nothing_known", reason="stays")
    os.utime(waiting, (0, 0))
    later = {**host.environ, "KLR_RETENTION_KEEP_PROCESSED": "1d"}
    with _kernel(later, NOW + timedelta(days=2)) as kernel:
        assert expire.old(kernel) == expire.Old(0, 3, 0, 0)
        assert expire.expire(kernel, limit=2) == expire.Old(0, 2, 0, 0)
        assert host.rows("SELECT count(*) FROM intents") == [(3,)], "rows follow the last file"
        assert expire.expire(kernel, limit=2).intents == 2
        assert expire.expire(kernel, limit=2).intents == 1
        assert expire.expire(kernel, limit=2) == expire.old(kernel) == expire.Old(0, 0, 0, 0)
    assert (processed(host), waiting.exists()) == ([], True)


def test_intents_stay_while_the_same_one_would_be_dropped(host: Host) -> None:
    host.stepwise()
    file_intents(host, 1)
    later = {**host.environ, "KLR_RETENTION_KEEP_PROCESSED": "1d", "KLR_INTENTS_DEDUP_WITHIN": "3d"}
    with _kernel(later, NOW + timedelta(days=2)) as kernel:
        assert expire.expire(kernel) == expire.Old(0, 0, 0, 0)
    assert len(processed(host)) == 1


def test_signals_go_but_the_last_ones(host: Host) -> None:
    host.set(KLR_PHASE_COMMAND=script(host.home, "phase", ["echo '{}' > $KLR_CYCLE_DIR/artifacts/report.json"]))
    host.set(**host.window(opens_in=-timedelta(hours=1), lasts=timedelta(hours=4)))
    assert host.tick("--wait").returncode == 0
    signals = host.state / "signals"
    (last,) = (path.name for path in signals.iterdir())
    for name in ("klr_phase_complete_phase_cycle_20250101_030000.json", "notes.json"):
        (signals / name).write_text("{}")
    for path in signals.iterdir():
        os.utime(path, (1e9, 1e9))
    (signals / "klr_phase_complete_young.json").write_text("{}")
    look_again(host)
    host.decided()
    assert sorted(os.listdir(signals)) == sorted(("klr_phase_complete_young.json", last, "notes.json"))


def test_files_of_old_versions_go_and_the_versions_stay(host: Host) -> None:
    host.stepwise()
    host.set(KLR_RETENTION_KEEP_VERSIONS="10")
    host.decided()
    with _kernel(host.environ, NOW) as kernel, kernel.db.transaction():
        for number in range(13):
            made = Provenance(at=NOW, actor="test", kind=Kind.SET, reason="test")
            history.put(kernel.db, {"learning_rate": 0.01 + number / 1000}, made, state_dir=str(host.state))
    look_again(host)
    host.decided()
    assert sorted(os.listdir(host.state / "baseline" / "versions"))[0] == "baseline_v0004.yaml"
    assert json.loads(host.run("klorosctl", "baseline", "verify", "--json").stdout)["faults"] == []
    assert json.loads(host.run("klorosctl", "baseline", "diff", "1", "2", "--json").stdout)[0]["before"] == 0.01
    again = host.run("klorosctl", "baseline", "rollback", "1", "--reason", "test", "--json")
    assert json.loads(again.stdout)["parameters"] == {"learning_rate": 0.01}
    assert json.loads(host.run("klorosctl", "prune", "--dry-run", "--json").stdout)["old"]["versions"] == 1


def test_an_operator_sees_and_removes_all_of_it(aged: Host) -> None:
    add_ticks(aged, expire.NEWEST_TICKS, days=399)
    add_ticks(aged, 2 * expire.PER_TICK + 5, days=401)
    shown = json.loads(aged.run("klorosctl", "prune", "--dry-run", "--json").stdout)
    assert shown["old"] == {"ticks": 2 * expire.PER_TICK + 5, "intents": 0, "signals": 0, "versions": 0}
    assert "2005 ticks" in aged.run("klorosctl", "prune", "--dry-run").stdout
    assert ticks(aged, "old-401%") == 2 * expire.PER_TICK + 5
    assert json.loads(aged.run("klorosctl", "prune", "--json").stdout)["old"] == shown["old"]
    assert ticks(aged, "old-401%") == 0
    assert "Nothing to remove" in aged.run("klorosctl", "prune").stdout


@contextmanager
def _kernel(environ: dict[str, str], now: datetime) -> Iterator[Kernel]:
    """Give a kernel of this host at another time."""
    before = os.umask(0o077)
    try:
        with wiring.kernel(wiring.settings(environ), environ) as kernel:
            yield kernel._replace(now=lambda: now)
    finally:
        os.umask(before)


def test_what_rules_asked_for_and_saw_goes_with_the_ticks(aged: Host) -> None:
    old, young = (to_text(NOW - timedelta(days=days)) for days in (401, 399))
    for at in (old, young):
        columns = "rule, at, evidence, intent, content, written"
        aged.change(f"INSERT INTO observer_events ({columns}) VALUES ('r', '{at}', '{{}}', 'x.json', '', 1)")
    for cycle, at in ((1, old), (2, young)):
        aged.change(f"INSERT INTO sightings VALUES ({cycle}, 'r', '{at}', 1, '[]')")
    look_again(aged)
    aged.decided()
    assert aged.rows("SELECT cycle FROM sightings") == [(2,)]
    assert aged.rows("SELECT at FROM observer_events") == [(young,)]
