"""`klorosctl leader`: who decides, and how an operator moves it; each act is the same when it is done twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.scopes import Two

pytestmark = pytest.mark.xdist_group("postgres")


def leader(host: Host, *arguments: str) -> dict[str, Any]:
    done = host.run("klorosctl", "leader", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refused(host: Host, *arguments: str) -> tuple[int, str]:
    done = host.run("klorosctl", "leader", *arguments)
    return done.returncode, done.stderr


def test_show_tells_who_leads_since_when_and_every_host(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    for host, here in ((a, "a"), (b, "b")):
        shown = leader(host, "show")
        assert (shown["scope"], shown["here"], shown["leader"], shown["epoch"]) == ("default", here, "a", 1)
        assert 0 < shown["remaining_seconds"] <= 65
        assert (shown["pinned_to"], shown["yielded_by"]) == (None, None)
        assert [(one["host"], one["leads"], one["last_tick_exit"]) for one in shown["hosts"]] == [
            ("a", True, 0),
            ("b", False, 0),
        ]
    text = b.run("klorosctl", "leader", "show").stdout
    assert text.startswith("Scope default: a leads since ")
    assert "(epoch 1).\n" in text
    assert "b                    stands by" in text
    assert "(this host)" in text.splitlines()[-1]
    assert scope.lease["epoch"] == 1, "looking changes nothing"


def test_yield_hands_the_lead_to_another_host_and_is_the_same_twice(two: Two) -> None:
    scope, a, b = two
    a.decided()
    done = b.run("klorosctl", "leader", "yield")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a leads no more, and leaves the lead to the other hosts until ")
    assert '"command": "leader yield"' in done.stderr
    assert "operator" in done.stderr
    again = leader(a, "yield")
    assert (again["changed"], again["leader"], again["yielded_by"]) == (False, None, "a")
    assert a.reasons() == ["standby"]
    assert "a yielded it, and leaves it to others until" in a.decided()["reasons"][0]["evidence"]
    b.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("b", 2)


def test_a_pin_moves_the_lead_and_keeps_it_there(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    pinned = leader(a, "pin", "b")
    assert (pinned["changed"], pinned["leader"], pinned["pinned_to"]) == (True, None, "b")
    assert not leader(b, "pin", "b")["changed"]
    (reason,) = a.decided()["reasons"]
    assert reason["reason"] == "standby"
    assert reason["evidence"].endswith("; the lease is pinned to b")
    b.decided()
    assert scope.lease["holder"] == "b"
    code, told = refused(a, "yield")
    assert code == Exit.FAILED
    assert "the lead is pinned to b" in told
    assert "klorosctl leader unpin" in told
    unpinned = leader(a, "unpin")
    assert (unpinned["changed"], unpinned["leader"], unpinned["pinned_to"]) == (True, "b", None)
    assert not leader(a, "unpin")["changed"]


def test_a_pin_to_a_host_that_never_ticked_is_refused(two: Two) -> None:
    _, a, _ = two
    a.decided()
    code, told = refused(a, "pin", "bb")
    assert code == Exit.USAGE
    assert "there is no host 'bb'" in told
    assert "there is a" in told


def test_release_gives_up_the_lead_of_this_host_alone(two: Two) -> None:
    scope, a, b = two
    a.decided()
    assert not leader(b, "release")["changed"]
    assert leader(a, "release")["changed"]
    assert not leader(a, "release")["changed"]
    a.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("a", 2)


def test_a_host_alone_is_told_so(host: Host) -> None:
    assert leader(host, "show") == {"scope": None, "leader": None, "hosts": []}
    code, told = refused(host, "yield")
    assert code == Exit.USAGE
    assert "this host shares its store with no other, so it decides alone" in told


def test_a_database_that_is_away_is_69(two: Two) -> None:
    _, a, _ = two
    a.set(KLR_DATABASE_URL="postgresql://127.0.0.1:1/none")
    for act in ("show", "yield", "release"):
        assert refused(a, act)[0] == Exit.STORE_UNREACHABLE


def test_halting_a_host_whose_database_is_away_halts_it(two: Two) -> None:
    _, a, _ = two
    a.decided()
    a.set(KLR_DATABASE_URL="postgresql://127.0.0.1:1/none")
    done = a.run("klorosctl", "halt")
    assert (a.state / "killswitch").exists()
    assert done.returncode == 0, done.stderr
    assert "if it does, its lease runs out by itself" in done.stdout
