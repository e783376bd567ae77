"""The lease's rules: who may take it, who waits for it, and that a dead leader is replaced within 90 s."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestration.scope.lease as module
from orchestration.scope.lease import (
    RULES,
    Act,
    Lease,
    Permit,
    Standing,
    act,
    describe,
    patience,
    permit,
    remaining,
    standing,
    why_not,
)

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
LENGTH = timedelta(seconds=65)
MINUTE = timedelta(minutes=1)
NOBODY = Lease(now=NOW, holder="", epoch=3, since=None, expires_at=None)

hosts = st.sampled_from(["a", "b", "c"])
seconds = st.floats(-200, 200, allow_nan=False).map(lambda s: timedelta(seconds=round(s, 3)))


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    holder = draw(st.sampled_from(["", "a", "b", "c"]))
    yielded_by = draw(st.sampled_from(["", "a", "b", "c"]))
    return Lease(
        now=NOW,
        holder=holder,
        epoch=draw(st.integers(0, 2**40)),
        since=NOW - timedelta(hours=1) if holder else None,
        expires_at=NOW + draw(seconds) if holder else None,
        pinned_to=draw(st.sampled_from(["", "a", "b", "c"])),
        yielded_by=yielded_by,
        yielded_until=NOW + draw(seconds) if yielded_by else None,
    )


def held_by(holder: str, left: float) -> Lease:
    return Lease(NOW, holder, 3, NOW - timedelta(hours=1), NOW + timedelta(seconds=left))


def test_every_standing_with_every_permit_has_its_act() -> None:
    assert set(RULES) == set(itertools.product(Standing, Permit))


def test_the_table_in_the_docstring_is_the_table() -> None:
    rows = [
        line.split() for line in (module.__doc__ or "").splitlines() if re.match(r"    (free|ours|lapsed|theirs) ", line)
    ]
    told = {(Standing(first), one): Act(word) for first, *words in rows for one, word in zip(Permit, words, strict=True)}
    assert told == dict(RULES)


def test_the_table_in_the_reference_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/scope.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    lines = {"free": Standing.FREE, "ours": Standing.OURS, "laps": Standing.LAPSED, "anot": Standing.THEIRS}
    told = {
        (stands, one): Act(word.replace(" ", "_"))
        for first, *words in rows
        if len(words) == len(Permit) and (stands := lines.get(first[:4]))
        for one, word in zip(Permit, words, strict=True)
    }
    assert told == dict(RULES)


def test_nobody_but_the_permitted_has_it_and_nobody_takes_what_is_held() -> None:
    for (stands, may), done in RULES.items():
        if may in (Permit.ELSEWHERE, Permit.YIELDED):
            assert done in (Act.STAND_BY, Act.RELEASE)
        assert (done is Act.TAKE) == (stands in (Standing.FREE, Standing.LAPSED) and may in (Permit.OPEN, Permit.HERE))
        if done in (Act.RENEW, Act.RELEASE):
            assert stands is Standing.OURS


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (NOBODY, Standing.FREE),
        (held_by("a", 1), Standing.OURS),
        (held_by("b", 1), Standing.THEIRS),
        (held_by("a", 0), Standing.LAPSED),
        (held_by("b", 0), Standing.LAPSED),
        (held_by("b", -1), Standing.LAPSED),
    ],
)
def test_standing(lease: Lease, expected: Standing) -> None:
    assert standing(lease, "a") is expected


@pytest.mark.parametrize(
    ("lease", "expected"),
    [
        (NOBODY, Permit.OPEN),
        (NOBODY._replace(pinned_to="a"), Permit.HERE),
        (NOBODY._replace(pinned_to="b"), Permit.ELSEWHERE),
        (NOBODY._replace(yielded_by="a", yielded_until=NOW + MINUTE), Permit.YIELDED),
        (NOBODY._replace(yielded_by="a", yielded_until=NOW), Permit.OPEN),
        (NOBODY._replace(yielded_by="b", yielded_until=NOW + MINUTE), Permit.OPEN),
        (NOBODY._replace(pinned_to="a", yielded_by="a", yielded_until=NOW + MINUTE), Permit.HERE),
        (NOBODY._replace(pinned_to="b", yielded_by="a", yielded_until=NOW + MINUTE), Permit.ELSEWHERE),
    ],
)
def test_permit(lease: Lease, expected: Permit) -> None:
    assert permit(lease, "a") is expected


@given(leases())
def test_one_host_at_most_acts_on_a_lease_that_is_held_and_any_may_try_for_a_free_one(lease: Lease) -> None:
    acting = [here for here in ("a", "b", "c") if act(lease, here) in (Act.RENEW, Act.RELEASE)]
    taking = [here for here in ("a", "b", "c") if act(lease, here) is Act.TAKE]
    assert len(acting) <= 1
    assert not (acting and taking)
    if acting:
        assert acting == [lease.holder]
    if lease.pinned_to:
        assert set(taking) <= {lease.pinned_to}
    elif not acting and remaining(lease) <= timedelta(0):
        assert len(taking) >= 2, "who yielded is the only one that holds back"


@given(leases(), hosts)
def test_only_who_could_take_it_then_waits_and_never_long(lease: Lease, here: str) -> None:
    waits = patience(lease, here, LENGTH)
    assert timedelta(0) <= waits <= timedelta(seconds=35)
    if waits:
        assert act(lease, here) is Act.STAND_BY
        assert act(lease._replace(now=lease.now + waits), here) is Act.TAKE
        assert patience(lease._replace(now=lease.now + waits / 2), here, LENGTH) == waits - waits / 2, "it goes on waiting"


@given(leases(), hosts)
def test_a_renewal_ends_the_wait(lease: Lease, here: str) -> None:
    assert not patience(lease._replace(expires_at=lease.now + LENGTH), here, LENGTH)


@pytest.mark.parametrize(("left", "waits"), [(35.0, 35.0), (35.1, 0.0), (0.5, 0.5), (0.0, 0.0), (65.0, 0.0)])
def test_the_bounds_of_the_wait(left: float, waits: float) -> None:
    assert patience(held_by("b", left), "a", LENGTH) == timedelta(seconds=waits)


def test_with_a_short_lease_nobody_waits() -> None:
    assert not patience(held_by("b", 1), "a", timedelta(seconds=20))


def takeover(length: timedelta, phases: list[timedelta]) -> timedelta:
    """Let a leader renew at 0 and die; return when the first of the standbys, which tick at these instants of each minute,
    has the lease."""
    taken = []
    for phase in phases:
        at = phase
        while True:
            lease = Lease(NOW + at, "leader", 1, NOW, NOW + length)
            if act(lease, "standby") is Act.TAKE:
                break
            waits = patience(lease, "standby", length)
            at += waits or MINUTE
        taken.append(at)
    return min(taken)


phases = st.lists(st.integers(0, 59_999).map(lambda ms: timedelta(milliseconds=ms)), min_size=1, max_size=3)


@given(phases)
def test_a_dead_leader_is_replaced_within_90_seconds_whatever_the_hosts_phases(phases: list[timedelta]) -> None:
    assert LENGTH <= takeover(LENGTH, phases) <= timedelta(seconds=90)


@given(phases, st.integers(65, 600).map(lambda s: timedelta(seconds=s)))
def test_and_with_a_longer_lease_within_its_length_and_25_seconds(phases: list[timedelta], length: timedelta) -> None:
    assert length <= takeover(length, phases) <= length + timedelta(seconds=25)


def test_what_is_said_of_it() -> None:
    assert describe(NOBODY) == "no host leads (epoch 3)"
    held = held_by("b", 60)
    assert describe(held) == "b leads since 2026-11-21 13:00:00Z, its lease runs until 2026-11-21 14:01:00Z (epoch 3)"
    assert describe(held_by("b", -60)) == "b led since 2026-11-21 13:00:00Z, its lease ended 2026-11-21 13:59:00Z (epoch 3)"
    assert why_not(held, "a") == describe(held)
    assert why_not(held._replace(pinned_to="b"), "a").endswith("; the lease is pinned to b")
    yielded = NOBODY._replace(yielded_by="a", yielded_until=NOW + MINUTE)
    assert why_not(yielded, "a").endswith("; a yielded it, and leaves it to others until 2026-11-21 14:01:00Z")
