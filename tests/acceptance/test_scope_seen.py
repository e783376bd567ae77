"""A scope of hosts on one PostgreSQL as people and Prometheus see it: status, page, metrics, notices, explain, doctor."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.exits import Exit
from orchestration.pulse import scope_rows
from orchestration.store.postgres_database import PostgresDatabase
from tests.acceptance.host import Host
from tests.acceptance.scopes import Two
from tests.acceptance.serving import serving
from tests.acceptance.test_klorosctl_doctor import doctor, worst
from tests.acceptance.test_notices import urls, webhook
from tests.acceptance.test_runbooks_of_alerts import told
from tests.acceptance.webhook import Webhook
from tests.contract.postgres import Cluster

__all__ = ["webhook"]
pytestmark = pytest.mark.xdist_group("postgres")


def status(host: Host) -> Any:
    done = host.run("klorosctl", "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def conditions(host: Host) -> dict[str, str]:
    """Return what the host's own verdict rests on."""
    return {one["condition"]: one["evidence"] for one in status(host)["causes"]}


def metric(host: Host, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(host.textfile.read_text())
        for sample in family.samples
        if sample.name == name
    }


def test_status_says_who_leads_and_what_every_host_is(two: Two) -> None:
    _, a, b = two
    a.decided()
    b.decided()
    found = status(b)["scope"]
    assert (found["name"], found["here"], found["leader"], found["told_by"]) == ("default", "b", "a", "a")
    assert (found["lease"]["epoch"], found["lease"]["holder"]) == (1, "a")
    assert 0 < found["lease"]["remaining"] <= 65
    assert 0 <= found["lease"]["age"] < 60
    assert [(one["host"], one["role"], one["last_tick_exit"]) for one in found["hosts"]] == [
        ("a", "leader", 0),
        ("b", "standby", 0),
    ]
    assert all(abs(one["clock_offset"]) < 5 for one in found["hosts"])
    text = b.run("klorosctl", "status").stdout
    assert "Scope      default: a leads, since " in text
    assert "- b (this host): stands by, ticked " in text
    assert "ticked " in text.partition("- a: leads, ")[2]


def test_the_page_of_a_standby_shows_who_leads(two: Two) -> None:
    _, a, b = two
    a.decided()
    b.decided()
    with serving(b) as served:
        page = served.get("/").text
        assert "<strong>a leads</strong>" in page
        assert "This host, b, stands by." in page
        assert served.get("/api/v1/health").json["scope"]["leader"] == "a"
        assert 'kloros_scope_leader{holder="a"} 1.0' in served.get("/metrics").text
        assert "kloros_scope_leading 0.0" in served.get("/metrics").text


def test_a_host_alone_shows_nothing_of_it(host: Host) -> None:
    host.decided()
    assert status(host)["scope"] is None
    assert "Scope" not in host.run("klorosctl", "status").stdout
    assert "kloros_scope" not in host.textfile.read_text()


def test_the_leader_counts_all_hosts_and_a_standby_itself(two: Two) -> None:
    _, a, b = two
    for host in (a, b, a):
        host.decided()
    assert metric(a, "kloros_scope_leading") == {(): 1}
    assert metric(b, "kloros_scope_leading") == {(): 0}
    assert metric(b, "kloros_scope_leader") == {("a",): 1}
    ticked = "kloros_scope_host_last_tick_timestamp_seconds"
    assert metric(a, ticked).keys() == {("a",), ("b",)}
    assert metric(b, ticked).keys() == {("b",)}
    assert metric(a, "kloros_scope_hosts") == {("leader",): 1, ("standby",): 1, ("off",): 0, ("silent",): 0}
    assert metric(b, "kloros_orchestrator_last_tick_timestamp_seconds")[()] > 0


def test_a_standby_reads_no_more_of_hosts_that_are_well_than_their_number(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    scope.do(
        "INSERT INTO hosts (host, machine_id, last_tick_at, last_tick_exit, clock_offset_seconds)"
        " SELECT 'n' || g, g, clock_timestamp() - g * interval '1 minute', 0, g FROM generate_series(5, 20, 5) AS g"
    )
    seen = {}
    for here, everyone in (("a", False), ("b", False), ("b", True)):
        db = PostgresDatabase(scope.url, scope="default", here=here, read_only=True)
        with closing(db):
            found = scope_rows.read(db, timedelta(minutes=15), everyone=everyone)
        assert found is not None
        assert found.known == 6
        seen[here, everyone] = [line.host for line in found.hosts]
    assert seen["a", False] == seen["b", True] == ["a", "b", "n10", "n15", "n20", "n5"]
    assert seen["b", False] == ["a", "b", "n15", "n20"], "itself, who leads, who is silent or has a wrong clock"
    b.decided()
    assert conditions(b).keys() == {"host_silent"}
    assert len(status(b)["scope"]["hosts"]) == 6


def test_a_silent_host_is_told_by_the_leader_and_seen_by_all(two: Two) -> None:
    scope, a, b = two
    c = scope.host("c")
    for host in (a, b, c):
        host.decided()
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '16 minutes' WHERE host = 'c'")
    a.decided()
    b.decided()
    expected = {"host_silent": "c last ticked 16 min ago (1 of 3 hosts)"}
    assert conditions(a) == conditions(b) == expected
    assert (told(a), told(b)) == ({"host_silent"}, set())
    assert "- c: SILENT, ticked 16min" in a.run("klorosctl", "status").stdout
    c.decided()
    a.decided()
    assert (conditions(a), told(a)) == ({}, set())


@pytest.mark.parametrize("how", ["disable", "halt"])
def test_a_host_that_a_person_switched_off_is_not_silent(two: Two, how: str) -> None:
    scope, a, b = two
    for host in (a, b):
        host.decided()
    if how == "disable":
        b.set(KLR_ORCHESTRATION_MODE="disabled")
    else:
        assert b.run("klorosctl", "halt", "--reason", "moved").returncode == 0
    assert b.tick().returncode == (Exit.DISABLED if how == "disable" else Exit.HALTED)
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '1 day' WHERE host = 'b'")
    a.decided()
    assert (conditions(a), told(a)) == ({}, set())
    assert "- b: switched off" in a.run("klorosctl", "status").stdout


def test_a_scope_that_nobody_leads_is_told_by_a_host_that_ticks(two: Two) -> None:
    scope, a, b = two
    c = scope.host("c")
    for host in (a, b, c):
        host.decided()
    scope.do("UPDATE leases SET pinned_to = 'a', expires_at = clock_timestamp() - interval '4 minutes'")
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '5 minutes' WHERE host = 'a'")
    b.decided()
    c.decided()
    pinned = "it is pinned to a, which last ticked 5 min ago"
    evidence = f"no host leads, so nothing is decided: the lease of a ended 4 min ago; {pinned}"
    assert conditions(c) == {"nobody_leads": evidence}
    assert (told(b), told(c)) == ({"nobody_leads"}, set())
    assert metric(b, "kloros_scope_leader") == {("a",): 0}
    assert "default: no host leads" in c.run("klorosctl", "status").stdout
    a.decided()
    b.decided()
    assert (conditions(b), told(b)) == ({}, set())


def test_a_clock_that_is_wrong_is_told_after_three_minutes(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    scope.do("UPDATE hosts SET clock_offset_seconds = 3600.5 WHERE host = 'b'")
    a.decided()
    assert told(a) == set()
    scope.do("UPDATE conditions SET since = '2026-01-01T00:00:00.000000Z' WHERE condition = 'clock_offset'")
    a.decided()
    assert told(a) == {"clock_offset"}
    assert conditions(a) == {"clock_offset": "the clock of b is 1 h 0 min ahead of the database server's"}
    assert "clock WRONG +3600.500 s" in a.run("klorosctl", "status").stdout
    b.decided()
    a.decided()
    assert told(a) == set(), "its next tick has measured it anew"


def test_what_concerns_the_scope_reaches_people_once_and_a_new_leader_does_not_call_it_over(
    two: Two, webhook: Webhook
) -> None:
    scope, a, b = two
    c = scope.host("c")
    for host in (a, b, c):
        urls(host, webhook.url)
        host.set(KLR_NOTICES_SETTLE="0s")
        host.stepwise()
        host.decided()
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '16 minutes' WHERE host = 'c'")

    def titles() -> list[str]:
        for host in (a, b):
            host.decided()
            assert host.run("run_notice").returncode == 0
        return list(webhook.titles)

    (one,) = titles()
    assert one.startswith("a: KLoROS is degraded: host_silent")
    assert titles() == [one]
    scope.do("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'")
    b.decided()
    after = titles()
    assert after[0] == one
    assert [title for title in after if "ok again" in title] == []
    assert [title.partition(":")[0] for title in after[1:]] == ["b"]


def test_the_promotions_of_the_scope_are_counted_alike_on_every_host(two: Two) -> None:
    _, a, b = two
    a.stepwise()
    b.stepwise()
    a.promote("p1")
    a.decided()
    b.decided()
    assert metric(a, "kloros_promotions_unacked") == metric(b, "kloros_promotions_unacked") == {(): 1}


def test_with_the_database_away_status_page_and_doctor_say_so_and_what_to_do(two: Two, cluster: Cluster) -> None:
    _, a, _ = two
    a.decided()
    with serving(a) as served:
        cluster.stop()
        try:
            done = a.run("klorosctl", "status")
            assert done.returncode == Exit.STORE_UNREACHABLE
            assert "PostgreSQL" in done.stderr
            assert "KLR_DATABASE_URL" in done.stderr
            assert "nothing is lost: files wait. See docs/runbooks/database-away.md" in done.stderr
            assert served.get("/ready").status == 503
            page = served.get("/", accept="text/html")
            assert page.status == 503
            assert "PostgreSQL" in page.text
            assert "docs/runbooks/database-away.md" in page.text
            doctor = a.run("klorosctl", "doctor", "--json")
            checks = {one["name"]: one for one in json.loads(doctor.stdout)["checks"]}
            assert (doctor.returncode, checks["store"]["level"]) == (Exit.FAILED, "error")
            assert "PostgreSQL" in checks["store"]["evidence"]
            assert a.tick().returncode == Exit.STORE_UNREACHABLE
            assert told(a) == {"store_unreachable"}
            assert "kloros_scope" not in a.textfile.read_text()
            assert "No tick of this host has used it for less than a minute." in a.run("klorosctl", "status").stderr
        finally:
            cluster.start()
    a.decided()
    assert told(a) == set()
    assert metric(a, "kloros_scope_leading") == {(): 1}


def test_explain_says_why_this_host_does_not_decide(two: Two) -> None:
    _, a, b = two
    a.decided()
    found = json.loads(b.run("klorosctl", "explain", "--json").stdout)["refused"]
    assert found["reason"] == "standby"
    assert found["evidence"].startswith("b stands by: a leads since ")
    assert "No tick would get this far: b stands by" in b.run("klorosctl", "explain").stdout
    assert json.loads(a.run("klorosctl", "explain", "--json").stdout)["refused"] is None
    dry = b.tick("--dry-run", "--json")
    assert (dry.returncode, json.loads(dry.stdout)["reason"]) == (Exit.DONE, "standby")


def test_explain_before_the_first_tick_of_the_scope(two: Two) -> None:
    _, a, _ = two
    assert json.loads(a.run("klorosctl", "explain", "--json").stdout)["refused"] is None


def test_doctor_finds_nothing_wrong_with_a_scope(two: Two) -> None:
    _, a, b = two
    before = doctor(a)
    assert "has no tables yet" in worst(before, "store")["evidence"]
    a.decided()
    b.decided()
    found = doctor(b)
    for name in ("store", "server clock", "lease length", "host name", "leader"):
        assert worst(found, name)["level"] == "ok", found[name]
    assert worst(found, "store")["evidence"].startswith("PostgreSQL kloros_")
    assert "answers, tick 2 is the last: PostgreSQL 15" in worst(found, "store")["evidence"]
    assert worst(found, "leader")["evidence"] == "a leads default; 1 stands by"
    assert worst(found, "durability")["evidence"].startswith("fsync is off: "), "the server of these tests"
    assert "host" not in found


def test_doctor_names_what_is_wrong_with_a_scope(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '1 hour', release = '0.0.9' WHERE host = 'b'")
    scope.do("UPDATE leases SET expires_at = clock_timestamp() - interval '1 hour'")
    scope.do("UPDATE hosts SET machine_id = 'another' WHERE host = 'a'")
    name = scope.url.partition("///")[2].partition("?")[0]
    scope.do(f"ALTER DATABASE {name} SET synchronous_commit = off")
    a.set(KLR_SCOPE_LEASE="50s")
    found = doctor(a, code=1)
    assert worst(found, "host")["evidence"] == "b is silent: ticked 1h ago"
    assert worst(found, "host")["advice"].endswith("klorosctl leader forget b")
    assert "the lease of a ended 1 h 0 min ago" in worst(found, "leader")["evidence"]
    assert worst(found, "host name")["evidence"] == "another machine ticks as 'a' (another)"
    assert worst(found, "lease length")["level"] == "error"
    assert worst(found, "durability")["evidence"].startswith("fsync is off and synchronous_commit is off: ")
    assert worst(found, "releases")["evidence"].startswith("0.0.9, ")


def test_a_machine_that_has_the_name_of_another_says_so_in_its_own_files(two: Two) -> None:
    scope, a, _ = two
    a.decided()
    scope.do("UPDATE hosts SET machine_id = 'another' WHERE host = 'a'")
    assert a.tick().returncode == Exit.SETTINGS_INVALID
    assert told(a) == {"host_doubled"}
    assert "kloros_scope" not in a.textfile.read_text()
    a.set(KLR_SCOPE_HOST="a2")
    a.decided()
    assert told(a) == set()


def test_a_host_that_was_taken_away_is_forgotten(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    refused = a.run("klorosctl", "leader", "forget", "b")
    assert refused.returncode == Exit.USAGE
    assert "it is not forgotten" in refused.stderr
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '1 hour'")
    scope.do("UPDATE leases SET pinned_to = 'b'")
    assert a.run("klorosctl", "leader", "forget", "b").returncode == Exit.USAGE
    scope.do("UPDATE leases SET pinned_to = ''")
    assert a.run("klorosctl", "leader", "forget", "a").returncode == Exit.USAGE, "it leads"
    assert a.run("klorosctl", "leader", "forget", "b").returncode == 0
    a.decided()
    assert (conditions(a), [one["host"] for one in status(a)["scope"]["hosts"]]) == ({}, ["a"])
    assert "there is no host 'b'" in a.run("klorosctl", "leader", "forget", "b").stderr
