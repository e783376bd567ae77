"""A store that is away: what the host's files say then, for no number may look healthy while nothing runs."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.errors import StoreUnreachable
from orchestration.exits import Exit
from orchestration.pulse import away, metrics, scope_metrics
from orchestration.pulse.health import Condition, Judgement, Verdict
from tests.acceptance.host import Host
from tests.pure.test_scope_seen import WELL_LED

NOWHERE = "postgresql://127.0.0.1:1/kloros"
NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


def ones(text: str, name: str) -> list[str]:
    """Return the label values of the series of a metric that are 1."""
    return [
        next(iter(sample.labels.values()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.value == 1
    ]


def number(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{name} (.+)$", text, re.MULTILINE)
    return float(found)


@pytest.fixture
def away_host(host: Host) -> Host:
    """A host that was well, and whose database has gone."""
    host.decided()
    assert ones(host.textfile.read_text(), "kloros_health_verdict") in (["ok"], ["degraded"])
    host.set(KLR_DATABASE_URL=NOWHERE)
    return host


def test_a_tick_without_its_store_leaves_no_file_that_looks_healthy(away_host: Host) -> None:
    host, before = away_host, away_host.textfile.read_text()
    began = datetime.now(UTC)
    done = host.tick()
    assert done.returncode == Exit.STORE_UNREACHABLE
    after = host.textfile.read_text()
    assert ones(after, "kloros_health_verdict") == ["stopped"]
    assert ones(after, "kloros_health_condition") == ["store_unreachable"]
    assert began.timestamp() <= number(after, away.SINCE) <= datetime.now(UTC).timestamp()
    for name in ("kloros_orchestrator_last_tick_timestamp_seconds", "kloros_orchestrator_tick_duration_seconds_count"):
        assert number(after, name) == number(before, name), "what was so stays"
    assert subprocess.run(["promtool", "check", "metrics"], input=after.encode(), check=False).returncode == 0
    latest = json.loads((host.state / "latest.json").read_text())
    (cause,) = latest["causes"]
    assert (latest["verdict"], cause["condition"]) == ("stopped", "store_unreachable")
    assert "127.0.0.1:1" in cause["evidence"]
    assert latest["tick_id"], "the tick that it tells of is the last that was recorded"


def test_since_when_is_that_of_the_first_of_them(away_host: Host) -> None:
    away_host.tick()
    first = number(away_host.textfile.read_text(), away.SINCE)
    away_host.tick()
    assert number(away_host.textfile.read_text(), away.SINCE) == first
    assert away_host.textfile.read_text().count("# TYPE kloros_health_verdict ") == 1


def test_the_next_tick_that_reaches_the_store_makes_all_of_it_new(away_host: Host) -> None:
    away_host.tick()
    away_host.set(KLR_DATABASE_URL="")
    away_host.decided()
    text = away_host.textfile.read_text()
    assert number(text, away.SINCE) == 0
    assert "store_unreachable" not in ones(text, "kloros_health_condition")
    assert number(text, "kloros_orchestrator_tick_duration_seconds_count") == 2
    assert json.loads((away_host.state / "latest.json").read_text())["verdict"] in ("ok", "degraded")


def test_looking_changes_no_file(away_host: Host) -> None:
    before = away_host.textfile.read_bytes()
    assert away_host.tick("--dry-run").returncode == Exit.STORE_UNREACHABLE
    assert away_host.textfile.read_bytes() == before


def test_a_host_that_never_had_its_store_says_so_too(host: Host) -> None:
    host.set(KLR_DATABASE_URL=NOWHERE)
    assert host.tick().returncode == Exit.STORE_UNREACHABLE
    text = host.textfile.read_text()
    assert ones(text, "kloros_health_condition") == ["store_unreachable"]
    assert "kloros_cycles_total" not in text, "no counter goes back to 0"
    assert not (host.state / "latest.json").exists()


def test_a_loop_without_its_store_says_so_too(host: Host) -> None:
    host.set(KLR_DATABASE_URL=NOWHERE)
    assert host.run("run_loop", "--goal", "g", "--mode", "benchmark").returncode == Exit.STORE_UNREACHABLE
    assert ones(host.textfile.read_text(), "kloros_health_condition") == ["store_unreachable"]


def test_no_folder_for_metrics_is_no_failure_of_its_own(away_host: Host) -> None:
    away_host.textfile.unlink()
    away_host.textfile.parent.rmdir()
    assert away_host.tick().returncode == Exit.STORE_UNREACHABLE


def test_who_lost_the_store_does_not_claim_to_lead() -> None:
    values: metrics.Values = metrics.of_judgement(Judgement(Verdict.OK, (), ()))
    scope_metrics.note(values, WELL_LED._replace(here="lab-1"))
    before = metrics.exposition(values, more=scope_metrics.FAMILIES)
    assert "kloros_scope_leading 1.0" in before
    after = away.exposition(before, away.judged(Condition.HOST_DOUBLED, "another machine", NOW))
    assert "kloros_scope" not in after
    assert ones(after, "kloros_health_verdict") == ["stopped"]
    assert ones(after, "kloros_health_condition") == ["host_doubled"]
    assert away.since(after) == NOW
    again = away.exposition(after, away.judged(Condition.STORE_UNREACHABLE, "no answer", NOW + timedelta(minutes=1)))
    assert ones(again, "kloros_health_condition") == ["store_unreachable"]
    assert len(again.splitlines()) == len(after.splitlines())


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_a_latest_json_that_is_damaged_is_left_alone(text: str) -> None:
    judged = away.judged(Condition.STORE_UNREACHABLE, StoreUnreachable("no answer").message, NOW)
    assert away.latest(text, judged) == ""
