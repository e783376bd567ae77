"""One host whose store is PostgreSQL: whatever it asks is asked there, and a history of its own is not forgotten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestration import configuration
from orchestration.exits import Exit
from orchestration.promotions import scan_unacked_promotions
from orchestration.tick.observe import MAINTENANCE_FILE
from tests.acceptance.host import Host
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def scoped(host: Host, url: str) -> Host:
    host.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one", KLR_PROMOTIONS_DIR=str(host.state / "promotions"))
    return host


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1".encode()).fetchall() for (name,) in names}


def test_a_dry_run_sees_what_the_scope_knows_and_changes_nothing_anywhere(scoped: Host, url: str) -> None:
    scoped.stepwise()
    scoped.promote("p-1")
    (scoped.state / MAINTENANCE_FILE).touch()
    scoped.tick()  # shares it
    (scoped.state / MAINTENANCE_FILE).unlink()
    assert dry_run(scoped, url)["decision"] == "dream_cycle"
    scoped.tick()
    told = dry_run(scoped, url)
    assert told["decision"] == "noop"
    assert ("cycle_active", True) in [(one["reason"], one["decided"]) for one in told["rules"]]


def dry_run(host: Host, url: str) -> dict[str, Any]:
    before, files = contents(url), host.snapshot()
    done = host.run("run_once", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert (contents(url), host.snapshot()) == (before, files)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_before_the_first_tick_there_is_nothing_to_see_and_looking_makes_nothing(scoped: Host, url: str) -> None:
    for command in (["klorosctl", "status"], ["klorosctl", "history"], ["run_once", "--dry-run"]):
        done = scoped.run(*command)
        assert done.returncode == 0, done.stderr
    assert contents(url) == {}


def test_a_tick_that_is_disabled_is_accounted_for_there(scoped: Host, url: str) -> None:
    scoped.set(KLR_ORCHESTRATION_MODE="disabled")
    assert scoped.run("run_once").returncode == Exit.DISABLED
    assert [(row[5], row[10]) for row in contents(url)["ticks"]] == [("skipped", "one")]


def test_a_database_that_is_away_is_told_by_all_who_open_it(scoped: Host) -> None:
    scoped.set(KLR_DATABASE_URL="postgresql://somebody:s3cret@127.0.0.1:1/kloros")
    for command in (["run_once"], ["run_once", "--dry-run"], ["klorosctl", "status"], ["klorosctl", "history"]):
        done = scoped.run(*command)
        assert done.returncode == Exit.STORE_UNREACHABLE, done.stdout
        assert "PostgreSQL kloros at 127.0.0.1:1: " in done.stderr + done.stdout
        assert "s3cret" not in done.stderr + done.stdout


def test_other_programs_of_the_host_are_told_what_nobody_has_answered(scoped: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scoped.promote("p-1")
    for name, value in scoped.environ.items():
        monkeypatch.setenv(name, value)
    assert scan_unacked_promotions() == [path], "before the first tick"
    scoped.tick()
    assert scan_unacked_promotions() == [path]


def test_the_reflection_reads_the_scope_s_store(scoped: Host, tmp_path: Path) -> None:
    scoped.tick()
    scoped.set(KLR_CYCLE_DIR=str(tmp_path / "cycle"))
    done = scoped.run("reflection.review")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "cycle" / "artifacts" / "reflection.md").read_text().startswith("# Reflection of ")


def test_doctor_asks_the_server(scoped: Host, url: str) -> None:
    scoped.tick()
    done = scoped.run("klorosctl", "doctor", "--json")
    told = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert told["store"]["level"] == "ok"
    assert f"PostgreSQL {url.partition('?')[0].rpartition('/')[2]} answers" in told["store"]["evidence"]


class TestHistoryOfItsOwn:
    @pytest.fixture
    def alone(self, host: Host) -> Host:
        """Give a host that has run a cycle on its own."""
        host.promote("p-1")
        host.stepwise()
        host.tick()
        host.run_queued()
        host.tick()
        assert host.rows("SELECT state FROM cycles") != []
        return host

    def test_it_is_not_forgotten_unawares(self, alone: Host, url: str) -> None:
        alone.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one")
        done = alone.run("run_once")
        assert done.returncode == Exit.SETTINGS_INVALID
        assert "kloros.db has cycles that PostgreSQL kloros_" in done.stderr
        assert "klorosctl db join" in done.stderr
        assert contents(url)["ticks"] == []

    def test_it_is_taken_over_whole_and_goes_on(self, alone: Host, url: str) -> None:
        names = ("cycles", "ticks", "facts", "counters", "promotions", "intents")
        had = {name: len(alone.rows(f"SELECT * FROM {name}")) for name in names}
        alone.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one")
        done = alone.run("klorosctl", "db", "join", "--json")
        assert done.returncode == 0, done.stderr
        moved = json.loads(done.stdout)["rows"]
        assert {name: moved.get(name, 0) for name in names} == had
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT DISTINCT host FROM cycles").fetchall() == [("one",)]
            assert connection.execute("SELECT DISTINCT host, epoch FROM ticks").fetchall() == [("one", 0)]
            assert connection.execute("SELECT count(DISTINCT host) FROM facts").fetchall() == [(2,)]
        alone.tick()
        shutil.move(alone.state / "kloros.db", alone.state / "kloros.db.before")
        assert [row[0] for row in contents(url)["ticks"]] == list(range(1, had["ticks"] + 2))
        again = alone.run("klorosctl", "history", "--cycles", "--json")
        assert [one["cycle"] for one in json.loads(again.stdout)] == [1]

    def test_it_is_taken_over_once_and_into_an_empty_scope_only(self, alone: Host, url: str, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        first = Host(other)
        first.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="other")
        first.tick()
        alone.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one")
        before = contents(url)
        done = alone.run("klorosctl", "db", "join")
        assert done.returncode == Exit.FAILED
        assert "has cycles or ticks already" in done.stderr
        assert contents(url) == before

    def test_it_is_not_taken_over_while_a_cycle_runs(self, alone: Host, url: str) -> None:
        alone.change("UPDATE cycles SET state = 'running', settled_at = NULL")
        alone.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one")
        done = alone.run("klorosctl", "db", "join")
        assert done.returncode == Exit.FAILED
        assert "it is running" in done.stderr
        assert contents(url)["cycles"] == []

    def test_without_a_database_there_is_nowhere_to_take_it(self, alone: Host) -> None:
        done = alone.run("klorosctl", "db", "join")
        assert done.returncode == Exit.USAGE
        assert configuration.load(alone.environ).database_url == ""
