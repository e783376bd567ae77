"""A scope as it is seen: who leads, who is silent, whose clock is wrong, who tells, and in which numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.exits import Exit
from orchestration.pulse import health, metrics, scope_metrics
from orchestration.pulse import scope as seen
from orchestration.pulse.evidence import TICKS_MISSED
from orchestration.pulse.health import Cause, Condition, Judgement, Verdict
from orchestration.pulse.scope import HostLine, Running, Scope
from orchestration.scope.lease import Lease
from tests.pure.test_health import WELL

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
MOMENT = timedelta(microseconds=1)
LEASE = Lease(now=NOW, holder="lab-1", epoch=7, since=NOW - 3 * MINUTE, expires_at=NOW + 40 * SECOND)


def host(name: str, **given: Any) -> HostLine:
    return HostLine(name, "standby", "0.1.0", NOW - 20 * SECOND, 0, 0.002)._replace(**given)


WELL_LED = Scope(
    name="night-lab",
    here="lab-2",
    lease=LEASE,
    renewed_at=NOW - 25 * SECOND,
    silent_after=15 * MINUTE,
    hosts=(host("lab-1", role="leader"), host("lab-2"), host("lab-3")),
    running=(Running("lab-3", "local", "running", 1), Running("", "local", "queued", 2)),
    known=3,
)


def led(**given: Any) -> Scope:
    return WELL_LED._replace(lease=LEASE._replace(**given))


def with_host(name: str, **given: Any) -> Scope:
    lines = {line.host: line for line in WELL_LED.hosts}
    lines[name] = host(name)._replace(**given)
    return WELL_LED._replace(hosts=tuple(lines[one] for one in sorted(lines)))


def found(scope: Scope) -> dict[str, str]:
    return {condition: evidence for condition, _, evidence in seen.findings(scope)}


def test_nothing_is_wrong_with_a_scope_that_has_a_leader_and_standbys() -> None:
    assert seen.findings(WELL_LED) == ()
    assert seen.leader(WELL_LED) == "lab-1"
    assert [seen.role(WELL_LED, line) for line in WELL_LED.hosts] == ["leader", "standby", "standby"]


def test_a_lease_is_held_until_it_ends_and_not_a_moment_longer() -> None:
    assert found(led(expires_at=NOW + MOMENT)) == {}
    assert found(led(expires_at=NOW - 4 * MINUTE)) == {
        "nobody_leads": "no host leads, so nothing is decided: the lease of lab-1 ended 4 min ago"
    }
    assert found(led(holder="", since=None, expires_at=None)) == {
        "nobody_leads": "no host leads, so nothing is decided: nobody has the lease"
    }


def test_nobody_leads_counts_once_it_has_lasted_longer_than_a_takeover_takes() -> None:
    """A lease of 65 s is taken over within 90 s of its holder's death."""
    assert timedelta(seconds=90) < TICKS_MISSED
    for ago, verdict in ((TICKS_MISSED - MOMENT, Verdict.OK), (TICKS_MISSED, Verdict.STOPPED)):
        signs = WELL._replace(now=NOW, scope=seen.findings(led(expires_at=NOW - ago)))
        assert health.judge(signs, {}).verdict is verdict


def test_a_lease_that_is_pinned_to_a_host_which_does_not_tick_says_so() -> None:
    pinned = with_host("lab-3", last_tick_at=NOW - 40 * MINUTE)
    pinned = pinned._replace(lease=LEASE._replace(expires_at=NOW - 39 * MINUTE, pinned_to="lab-3"))
    assert found(pinned)["nobody_leads"].endswith("ended 39 min ago; it is pinned to lab-3, which last ticked 40 min ago")
    never = led(holder="", expires_at=None, pinned_to="lab-9")
    assert found(never)["nobody_leads"].endswith("; it is pinned to lab-9, which has never ticked")


def test_a_host_is_silent_after_the_time_that_is_set() -> None:
    assert found(with_host("lab-3", last_tick_at=NOW - 15 * MINUTE)) == {}
    silent = with_host("lab-3", last_tick_at=NOW - 15 * MINUTE - MOMENT)
    assert found(silent) == {"host_silent": "lab-3 last ticked 15 min ago (1 of 3 hosts)"}
    assert [since for _, since, _ in seen.findings(silent)] == [NOW - 15 * MINUTE - MOMENT]
    assert [seen.role(silent, line) for line in silent.hosts] == ["leader", "standby", "silent"]


@pytest.mark.parametrize("code", [Exit.DISABLED, Exit.HALTED])
def test_a_host_that_a_person_switched_off_is_not_silent(code: Exit) -> None:
    off = with_host("lab-3", last_tick_at=NOW - 60 * MINUTE, last_tick_exit=code)
    assert found(off) == {}
    assert [seen.role(off, line) for line in off.hosts] == ["leader", "standby", "off"]


def test_of_many_silent_hosts_three_are_named() -> None:
    many = WELL_LED._replace(known=5, hosts=tuple(host(f"lab-{n}", last_tick_at=NOW - n * 60 * MINUTE) for n in range(1, 6)))
    told = "lab-1 last ticked 1 h 0 min ago, lab-2 last ticked 2 h 0 min ago, lab-3 last ticked 3 h 0 min ago and 2 more"
    assert found(many)["host_silent"] == f"{told} (5 of 5 hosts)"
    assert [since for _, since, _ in seen.findings(many)] == [NOW - 5 * 60 * MINUTE]


@pytest.mark.parametrize(
    ("offset", "told"),
    [
        (10.0, None),
        (-10.0, None),
        (None, None),
        (10.5, "the clock of lab-1, which leads, is 10.5 s ahead of the database server's"),
        (3600.0, "the clock of lab-1, which leads, is 1 h 0 min ahead of the database server's"),
        (-3600.4, "the clock of lab-1, which leads, is 1 h 0 min behind the database server's"),
    ],
)
def test_a_clock_that_is_more_than_ten_seconds_off_is_told(offset: float | None, told: str | None) -> None:
    assert found(with_host("lab-1", clock_offset=offset)).get("clock_offset") == told


def test_the_clock_of_a_host_that_is_silent_anyway_is_no_second_news() -> None:
    assert set(found(with_host("lab-3", clock_offset=99.0, last_tick_at=NOW - 60 * MINUTE))) == {"host_silent"}


@pytest.mark.parametrize(
    ("scope", "tells"),
    [
        (WELL_LED, "lab-1"),
        (led(expires_at=NOW - MINUTE), "lab-1"),  # it still ticks, perhaps
        (with_host("lab-1", last_tick_at=NOW - TICKS_MISSED - MOMENT), "lab-1"),  # its lease is good, so it lives
        (
            with_host("lab-1", last_tick_at=NOW - TICKS_MISSED - MOMENT)._replace(lease=LEASE._replace(expires_at=NOW)),
            "lab-2",
        ),
        (led(expires_at=NOW)._replace(hosts=()), ""),
    ],
)
def test_one_host_tells_what_concerns_the_scope(scope: Scope, tells: str) -> None:
    assert seen.speaker(scope) == tells
    for here in ("lab-1", "lab-2", "lab-3"):
        assert seen.is_told_elsewhere(scope._replace(here=here)) == (tells not in ("", here))


def test_a_standby_tells_what_is_its_own_and_leaves_the_scopes_to_the_leader() -> None:
    causes = tuple(
        Cause(one, verdict, NOW, "", "")
        for one, verdict in ((Condition.PHASE_MISSED, Verdict.FAILING), (Condition.DISK_LOW, Verdict.DEGRADED))
    )
    judged = Judgement(Verdict.FAILING, causes, ())
    assert seen.told_here(judged) == Judgement(Verdict.DEGRADED, causes[1:], ())
    assert seen.told_here(judged._replace(causes=causes[:1])).verdict is Verdict.OK


def samples(scope: Scope) -> dict[str, dict[tuple[str, ...], float]]:
    values: metrics.Values = {}
    scope_metrics.note(values, scope)
    text = metrics.exposition(values, more=scope_metrics.FAMILIES)
    told: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name.startswith("kloros_scope_"):
                told.setdefault(one.name, {})[tuple(one.labels.values())] = one.value
    return told


def test_the_leader_tells_of_every_host_and_a_standby_of_itself() -> None:
    leader, standby = samples(WELL_LED._replace(here="lab-1")), samples(WELL_LED)
    assert leader["kloros_scope_leader"] == standby["kloros_scope_leader"] == {("lab-1",): 1}
    assert (leader["kloros_scope_leading"], standby["kloros_scope_leading"]) == ({(): 1}, {(): 0})
    assert standby["kloros_scope_info"] == {("night-lab", "lab-2"): 1}
    assert standby["kloros_scope_epoch"] == {(): 7}
    assert "kloros_scope_hosts" not in standby
    assert leader["kloros_scope_hosts"] == {("leader",): 1, ("standby",): 2, ("off",): 0, ("silent",): 0}
    ticked = (NOW - 20 * SECOND).timestamp()
    assert standby["kloros_scope_host_last_tick_timestamp_seconds"] == {("lab-2",): ticked}
    assert leader["kloros_scope_host_last_tick_timestamp_seconds"].keys() == {("lab-1",), ("lab-2",), ("lab-3",)}
    assert leader["kloros_scope_clock_offset_seconds"][("lab-3",)] == 0.002
    assert leader["kloros_scope_cycles"] == {("lab-3", "local", "running"): 1, ("", "local", "queued"): 2}
    assert "kloros_scope_cycles" not in standby
    assert leader["kloros_scope_lease_expires_timestamp_seconds"] == {(): (NOW + 40 * SECOND).timestamp()}
    assert leader["kloros_scope_leader_since_timestamp_seconds"] == {(): (NOW - 3 * MINUTE).timestamp()}


def test_a_lease_that_ended_leads_nobody() -> None:
    told = samples(led(expires_at=NOW - MINUTE)._replace(here="lab-1"))
    assert told["kloros_scope_leader"] == {("lab-1",): 0}
    assert told["kloros_scope_leading"] == {(): 0}
    assert told["kloros_scope_leader_since_timestamp_seconds"] == {(): 0}
    free = samples(led(holder="", since=None, expires_at=None))
    assert free["kloros_scope_leader"] == {("",): 0}
    assert free["kloros_scope_lease_expires_timestamp_seconds"] == {(): 0}


def test_a_thousand_hosts_are_told_and_no_more_those_that_are_late_first() -> None:
    hosts = tuple(host(f"n{number:04}", last_tick_at=NOW - number * SECOND) for number in range(1100))
    told = samples(WELL_LED._replace(hosts=hosts, known=1100, here="lab-1"))["kloros_scope_host_last_tick_timestamp_seconds"]
    assert len(told) == scope_metrics.MOST_HOSTS
    assert ("n1099",) in told
    assert ("n0099",) not in told


def test_a_host_that_is_called_oddly_breaks_no_line() -> None:
    odd = 'a"b\\c\nd'
    assert samples(WELL_LED._replace(here=odd))["kloros_scope_info"] == {("night-lab", odd): 1}


def test_a_host_alone_has_no_such_metric() -> None:
    assert "kloros_scope" not in metrics.exposition({})


def test_every_label_is_said_beforehand() -> None:
    values: metrics.Values = {}
    scope_metrics.note(values, WELL_LED._replace(here="lab-1"))
    for name, text in values:
        assert tuple(part.partition("=")[0] for part in text.split(",") if part) == scope_metrics.LABELS.get(name, ())
    assert {name for name, _ in values} <= {family.name for family in scope_metrics.FAMILIES}
