"""`klorosctl readiness`: whether the loop was stable for a week, over stores that tell of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.store.instants import to_text
from tests.acceptance.host import Host

MINUTE = timedelta(minutes=1)


class Past(Host):
    """A host that has ticked every minute for days, and accounted for each date."""

    def begin(self, *, days: float) -> None:
        """Write that past: a first real tick, and all that would have been before it."""
        self.decided()
        self.now = datetime.now(UTC)
        self.begun = self.now - timedelta(days=days)
        with self.store() as db:
            db.execute("DELETE FROM ticks")
            db.executemany(
                "INSERT INTO ticks (tick_id, started_at, ended_at, boot_id, decision, exit_code, findings)"
                " VALUES (?, ?, ?, 'b', 'noop', 0, '[]')",
                ((f"t-{at}", to_text(at), to_text(at)) for at in self.minutes()),
            )
            for day in range(int(days) + 2):
                at = self.now - timedelta(days=day)
                db.execute(
                    "INSERT OR REPLACE INTO phase_dates VALUES (?, 'succeeded', 'window', '', 1, ?, ?, ?)",
                    (f"{at:%Y-%m-%d}", to_text(at), to_text(at), to_text(at)),
                )

    def minutes(self) -> Iterator[datetime]:
        at = self.begun
        while at < self.now:
            yield at
            at += MINUTE

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        """Open the store for changes from outside."""
        with closing(sqlite3.connect(self.state / "kloros.db")) as connection, connection:
            yield connection

    def back(self, **length: float) -> str:
        return to_text(self.now - timedelta(**length))

    def readiness(self, *flags: str, code: int) -> dict[str, Any]:
        document: dict[str, Any] = self.answer("readiness", *flags, code=code)
        assert document["ready"] is (code == 0)
        return document

    def faults(self, *flags: str) -> dict[str, dict[str, Any]]:
        document = self.readiness(*flags, code=1)
        assert document["verdict"] == "not_ready"
        return {sign["name"]: sign for sign in document["signs"] if not sign["fine"]}


@pytest.fixture
def past(tmp_path: Path) -> Past:
    host = Past(tmp_path)
    host.begin(days=8)
    return host


def test_a_week_in_which_all_went_well_is_ready(past: Past) -> None:
    document = past.readiness(code=0)
    assert document["verdict"] == "ready"
    evidence = {sign["name"]: sign["evidence"] for sign in document["signs"]}
    assert evidence["failed_ticks"].startswith("100")  # a tick a minute
    assert evidence["phase_dates"] == "7 dates: 7 succeeded"
    assert "Ready: the loop was stable for 7 days." in past.run("klorosctl", "readiness").stdout


def test_a_short_history_is_not_yet_and_says_since_when(past: Past) -> None:
    document = past.readiness("--days", "9", code=1)
    assert document["verdict"] == "not_yet"
    assert document["history_since"] == to_text(past.begun)
    assert document["ready_at"] == to_text(past.begun + timedelta(days=9))
    told = past.run("klorosctl", "readiness", "--days", "9").stdout
    assert "Not yet: the history begins" in told
    assert f"{past.begun:%Y-%m-%d %H:%M}" in told


def test_without_any_tick_it_is_not_yet(host: Host) -> None:
    done = host.run("klorosctl", "readiness")
    assert (done.returncode, done.stdout) == (1, "Not yet: there was no tick so far.\n")
    assert not host.state.exists()


def test_a_failed_tick_speaks_against_it(past: Past) -> None:
    with past.store() as db:
        db.execute("UPDATE ticks SET exit_code = 74 WHERE tick IN (5000, 6000)")
    faults = past.faults()
    assert list(faults) == ["failed_ticks"]
    assert faults["failed_ticks"]["faults"] == 2
    assert faults["failed_ticks"]["first"].startswith("tick 5000 at ")
    assert faults["failed_ticks"]["first"].endswith(": unwritable")


def test_a_tick_that_another_kept_from_the_lock_does_not(past: Past) -> None:
    with past.store() as db:
        db.execute("UPDATE ticks SET exit_code = 75, decision = 'skipped' WHERE tick % 7 = 0")
    past.readiness(code=0)


def test_what_failed_before_the_week_does_not(past: Past) -> None:
    with past.store() as db:
        db.execute("UPDATE ticks SET exit_code = 70 WHERE tick < 1000")
    past.readiness(code=0)
    past.faults("--days", "8")


def test_a_pause_speaks_against_it(past: Past) -> None:
    with past.store() as db:
        db.execute("DELETE FROM ticks WHERE started_at BETWEEN ? AND ?", (past.back(days=2, minutes=5), past.back(days=2)))
    faults = past.faults()
    assert list(faults) == ["pauses"]
    assert faults["pauses"]["evidence"].startswith("1 pause longer than 180 s, the longest 0:0")
    assert past.readiness("--pause", "10", code=0)


def test_a_time_in_which_ticks_were_disabled_is_a_pause(past: Past) -> None:
    with past.store() as db:
        span = (past.back(days=2, minutes=60), past.back(days=2))
        db.execute("UPDATE ticks SET exit_code = 2, decision = 'skipped' WHERE started_at BETWEEN ? AND ?", span)
    assert list(past.faults()) == ["pauses"]


def test_silence_until_now_is_a_pause(past: Past) -> None:
    with past.store() as db:
        db.execute("DELETE FROM ticks WHERE started_at > ?", (past.back(minutes=30),))
    assert past.faults()["pauses"]["faults"] == 1


def test_nothing_but_silence_is_one_too(past: Past) -> None:
    with past.store() as db:
        db.execute("DELETE FROM ticks WHERE started_at > ?", (past.back(days=7, hours=12),))
    assert list(past.faults()) == ["pauses"]


def test_a_date_without_account_speaks_against_it(past: Past) -> None:
    day = f"{past.now - timedelta(days=3):%Y-%m-%d}"
    with past.store() as db:
        db.execute("DELETE FROM phase_dates WHERE local_date = ?", (day,))
    faults = past.faults()
    assert list(faults) == ["phase_dates"]
    assert faults["phase_dates"]["first"] == f"{day} has no account"


def test_a_date_that_was_skipped_for_a_reason_is_accounted_for(past: Past) -> None:
    day = f"{past.now - timedelta(days=3):%Y-%m-%d}"
    with past.store() as db:
        db.execute("UPDATE phase_dates SET result = 'skipped', reason = 'host_down' WHERE local_date = ?", (day,))
    signs = {sign["name"]: sign for sign in past.readiness(code=0)["signs"]}
    assert signs["phase_dates"]["evidence"] == "7 dates: 1 skipped (host_down), 6 succeeded"


def test_a_lost_cycle_speaks_against_it(past: Past) -> None:
    with past.store() as db:
        for cycle, days in ((1, 7.5), (2, 1.0)):
            at = past.back(days=days)
            db.execute(
                "INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at, ended_at)"
                " VALUES (?, 'dream', 'lost', ?, 'intent', '{}', '[]', 1, ?, ?)",
                (cycle, f"token {cycle}", at, at),
            )
    faults = past.faults()
    assert list(faults) == ["lost_cycles"]
    assert (faults["lost_cycles"]["faults"], faults["lost_cycles"]["first"][:15]) == (1, "cycle 2 (dream)")
