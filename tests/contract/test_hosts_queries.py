"""What hosts of one scope share in PostgreSQL, and what each has for itself: see migrations/postgres/0003_kernel.sql."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

import orchestration
from orchestration import configuration
from orchestration.scope.leading import Leading
from orchestration.store import opening
from orchestration.store.counters import count, gauges
from orchestration.store.port import Value
from orchestration.store.postgres_database import PostgresDatabase
from orchestration.tick import calendar
from orchestration.tick.kernel import Kernel
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")

ORIGIN = '{"topic": "", "intent": "", "promotions": []}'
EARLY, LATE, NEVER = "2026-11-21T03:00:00.000000Z", "2026-11-21T04:00:00.000000Z", "2026-11-22T00:00:00.000000Z"
FACTS_OF_A_HOST = (
    "bridge.signs", "bridge.shown", "expiry.next", "federation.origin", "heartbeat.fault", "litter.clean",
    "locks.unreadable", "notices.seen", "notices.standing", "notices.undelivered", "observer.untold", "retention.held",
    "textfile.fault", "wake.signs", "wake.shown",
)  # fmt: skip
FACTS_OF_THE_SCOPE = (
    "observer.due", "phase.accounted_through", "phase.groups.00001", "phase.hints.00001", "promotions.left",
)  # fmt: skip


class Scope:
    """Two hosts; the first one leads until the lead is given to the other."""

    def __init__(self, url: str) -> None:
        self.one = PostgresDatabase(url, here="one")
        self.two = PostgresDatabase(url, here="two")
        self._number = 0
        self.led_by(self.one)

    def led_by(self, host: PostgresDatabase) -> None:
        for known in (self.one, self.two):
            known.rows("leases.release")
        host.rows("leases.take", epoch=host.rows("leases.look")[0]["epoch"], seconds=3600)

    def tick(self, host: PostgresDatabase, at: str = EARLY, blocker: str | None = None, **more: Value) -> None:
        self._number += 1
        asked: dict[str, Value] = {
            "tick_id": f"tick-{self._number}", "started_at": at, "ended_at": at, "boot_id": "b", "decision": "noop",
            "exit_code": 0, "cycle": None, "blocker": blocker, "findings": "[]",
        }  # fmt: skip
        host.run("ticks.append", **{**asked, **more})

    def cycle(self, host: PostgresDatabase | None, hosts: str = "") -> int:
        """Queue a cycle, and have a host run it to its end."""
        self._number += 1
        token = f"token-{self._number}"
        self.one.run(
            "cycles.enqueue", number=None, job="dream", token=token, cause="intent", origin=ORIGIN, command="[]",
            working_dir="", timeout_seconds=1.0, executor="local", hosts=hosts, phase_date=None, queued_at=EARLY,
        )  # fmt: skip
        number = int(str(self.one.rows("cycles.number_of", token=token)[0]["cycle"]))
        if host is not None:
            assert host.run("cycles.claim", cycle=number, runner="{}", now=EARLY) == 1
            host.run("cycles.finish", cycle=number, expected="running", state="succeeded", result="{}", now=EARLY)
            host.run("cycles.settle", cycle=number, now=EARLY)
        return number

    def close(self) -> None:
        self.one.close()
        self.two.close()


@pytest.fixture
def scope(cluster: Cluster) -> Iterator[Scope]:
    made = Scope(cluster.new_database())
    yield made
    made.close()


def told(host: PostgresDatabase, query: str, column: str, /, **asked: Value) -> list[Value]:
    return [row[column] for row in host.rows(query, **asked)]


def test_a_fact_of_a_host_is_seen_by_no_other(scope: Scope) -> None:
    for name in FACTS_OF_A_HOST:
        scope.one.run("facts.set", name=name, value="one's")
        assert told(scope.two, "facts.get", "value", name=name) == [], name
        scope.two.run("facts.set_once", name=name, value="two's")
        assert told(scope.one, "facts.get", "value", name=name) == ["one's"], name


def test_a_fact_of_the_scope_is_what_the_next_leader_goes_on_with(scope: Scope) -> None:
    for name in FACTS_OF_THE_SCOPE:
        scope.one.run("facts.set", name=name, value="one's")
        scope.two.run("facts.set_once", name=name, value="two's")
        assert told(scope.two, "facts.get", "value", name=name) == ["one's"], name
        scope.two.run("facts.set", name=name, value="two's")
        assert told(scope.one, "facts.get", "value", name=name) == ["two's"], name


def test_every_name_of_a_fact_in_the_program_is_a_hosts_or_the_scopes() -> None:
    """A new fact must be thought about: what a decision rests on is the scope's."""
    known = {*FACTS_OF_A_HOST, *FACTS_OF_THE_SCOPE, "phase.groups.", "phase.hints.", opening.MOVED}
    found = names_of_facts()
    assert len(found) > 15
    assert found - known == set()


def names_of_facts() -> set[str]:
    """Find the constants and literals that are given as a fact's name."""
    modules = [ast.parse(path.read_text()) for path in Path(orchestration.__file__).parent.rglob("*.py")]
    public = {name: value for module in modules for name, value in constants_of(module) if name[0] != "_"}
    found = set[str]()
    for module in modules:
        constants = {**public, **dict(constants_of(module))}
        for node in ast.walk(module):
            match node:
                case ast.Call(args=[ast.Constant(value=str(query)), *_]) if query.startswith("facts."):
                    given = (keyword.value for keyword in node.keywords if keyword.arg == "name")
                    found |= set().union(*(named(value, constants) for value in given))
    return found


def constants_of(module: ast.Module) -> Iterator[tuple[str, str]]:
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(value))):
                yield name, value


def named(value: ast.expr, constants: dict[str, str]) -> set[str]:
    match value:
        case ast.Constant():
            return {str(value.value)}
        case ast.Name() if value.id in constants:
            return {constants[value.id]}
        case ast.JoinedStr():
            return named(value.values[0].value, constants) if isinstance(value.values[0], ast.FormattedValue) else set()
    return set()


def test_counters_and_conditions_are_each_hosts_own(scope: Scope) -> None:
    for host, value in ((scope.one, 1.0), (scope.two, 5.0)):
        count(host, "n", value)
        count(host, "n", value)
        host.run("pulse.condition_holds", condition="c", since=EARLY, evidence=str(value))
    assert told(scope.one, "counters.all", "value") == [2.0]
    assert told(scope.two, "counters.all", "value") == [10.0]
    assert told(scope.one, "pulse.conditions", "evidence") == ["1.0"]
    scope.one.run("pulse.condition_ended", condition="c")
    assert told(scope.two, "pulse.conditions", "evidence") == ["5.0"]


def test_ticks_are_numbered_across_hosts_and_each_host_tells_its_own(scope: Scope) -> None:
    for host in (scope.one, scope.two, scope.one):
        scope.tick(host)
    assert told(scope.one, "ticks.recent", "tick", limit=9) == [3, 1]
    assert told(scope.two, "ticks.after", "tick", tick=0, limit=9) == [2]
    assert scope.two.rows("records.neighbours", tick=1)[0]["following"] == 3
    assert told(scope.two, "ticks.get", "host", tick_id="1") == ["one"]
    assert told(scope.two, "operator.ticks_between", "tick", since=EARLY, until=LATE, limit=9) == [2]


def test_why_a_date_has_no_phase_is_told_by_whoever_led_and_not_by_standbys(scope: Scope) -> None:
    scope.tick(scope.one, blocker="cycle_active")
    for _ in range(3):
        scope.tick(scope.two, blocker="disabled", decision="skipped")
        scope.tick(scope.two)
    scope.led_by(scope.two)
    scope.tick(scope.one, blocker="disabled")
    scope.tick(scope.two, blocker="no_baseline")
    found = scope.one.rows("ticks.blockers", since=EARLY, until=LATE)
    assert [(row["blocker"], row["ticks"]) for row in found] == [("cycle_active", 1), ("no_baseline", 1)]


def test_where_nobody_led_the_others_tell_why_a_date_has_no_phase(scope: Scope) -> None:
    scope.one.rows("leases.release")
    scope.tick(scope.one, blocker="disabled")
    scope.tick(scope.two, blocker="halted")
    scope.tick(scope.two, blocker="halted")
    found = scope.one.rows("ticks.blockers", since=EARLY, until=LATE)
    assert [(row["blocker"], row["ticks"]) for row in found] == [("halted", 2), ("disabled", 1)]


def test_a_date_in_whose_window_no_host_ticked_says_so(scope: Scope, tmp_path: Path) -> None:
    scope.tick(scope.two, at=EARLY)
    scope.one.run("facts.set", name="phase.accounted_through", value="2026-11-21")
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    kernel = Kernel(
        configuration.load({"KLR_STATE_DIR": str(tmp_path), "KLR_CONFIG": "/dev/null", "KLR_PHASE_TIME_ZONE": "UTC"}),
        scope.one, lambda _: None, lambda: None, lambda: now, "b", leading=cast("Leading", object()),
    )  # fmt: skip
    with scope.one.transaction():
        (first, _) = calendar.account(kernel, now)
    assert (first.reason, first.evidence) == (
        "host_down",
        f"no host of the scope has ticked since {EARLY}, until after the window",
    )


def test_a_new_leader_knows_of_the_promotions_that_the_former_one_counted(scope: Scope) -> None:
    gauges(scope.two, kloros_promotions_unacked=7)  # when it led, long ago
    gauges(scope.one, kloros_promotions_unacked=0)
    scope.tick(scope.one)
    scope.tick(scope.two)
    scope.led_by(scope.two)
    assert told(scope.two, "observer.idle", "promotions", now=LATE) == [0]
    scope.tick(scope.two)
    assert told(scope.one, "observer.idle", "promotions", now=LATE) == [1]


def test_a_cycle_is_claimed_by_a_host_that_may_run_it_and_belongs_to_it(scope: Scope) -> None:
    only_two = scope.cycle(None, hosts=json.dumps(["two", "three"]))
    assert scope.one.run("cycles.claim", cycle=only_two, runner="{}", now=EARLY) == 0
    assert scope.two.run("cycles.claim", cycle=only_two, runner="{}", now=EARLY) == 1
    assert told(scope.one, "cycles.get", "host", cycle=only_two) == ["two"]


def test_bundles_copies_and_old_folders_are_a_matter_of_the_host_that_ran_the_cycle(scope: Scope) -> None:
    by_one, by_two = scope.cycle(scope.one), scope.cycle(scope.two)
    for cycle in (by_one, by_two):
        scope.one.run("bundles.ask", cycle=cycle, due_at=EARLY)
        scope.one.run("federation.ask", cycle=cycle, now=EARLY)
    for host, own in ((scope.one, by_one), (scope.two, by_two)):
        assert told(host, "bundles.next", "cycle", now=LATE, longest=NEVER) == [own]
        assert told(host, "bundles.due", "cycle", now=LATE) == [own]
        assert told(host, "bundles.pending", "cycle") == [own]
        assert told(host, "federation.due", "cycle", now=LATE, limit=-1) == [own]
        assert told(host, "federation.pending", "cycle") == [own]
        assert told(host, "pulse.now", "bundles_pending") == told(host, "pulse.now", "federation_pending") == [1]
        assert told(host, "cycles.over", "cycle", keep_last=0, before=NEVER, limit=-1, held_too=0) == [own]
    scope.two.run("facts.set", name="retention.held", value=json.dumps([by_two]))
    assert told(scope.two, "cycles.over", "cycle", keep_last=0, before=NEVER, limit=-1, held_too=0) == []
    assert told(scope.one, "cycles.over", "cycle", keep_last=0, before=NEVER, limit=-1, held_too=0) == [by_one]


def test_each_host_has_a_loop_of_its_own(scope: Scope) -> None:
    for host, status in ((scope.one, "failed"), (scope.two, "success"), (scope.one, "failed"), (scope.two, None)):
        scope._number += 1
        token = f"iteration-{scope._number}"
        host.run("iterations.begin", token=token, started_at=EARLY, plan="{}", history_path="h")
        number = told(host, "iterations.number_of", "iteration", token=token)[0]
        if status:
            told_of = {"ended_at": EARLY, "next_run_at": None, "archive_new": 0, "line": "{}"}
            host.run("iterations.end", iteration=number, status=status, **told_of)
    assert told(scope.one, "iterations.failures_in_a_row", "failures") == [2]
    assert told(scope.two, "iterations.failures_in_a_row", "failures") == [0]
    assert told(scope.one, "iterations.open", "iteration") == []
    assert told(scope.two, "iterations.open", "iteration") == [4]
    assert told(scope.one, "notices.last_iteration", "ended_at") == []
    assert told(scope.two, "notices.last_iteration", "ended_at") == [EARLY]


def test_each_host_brings_its_files_of_the_baseline_and_of_escrow_up(scope: Scope) -> None:
    scope.one.run(
        "baseline.append", version=1, sha256="5a", previous_sha="", ts=EARLY, actor="u", kind="set", reason="", cycle=None,
        promotion_ids="[]", parameters="{}", fitness=None,
    )  # fmt: skip
    scope.one.run(
        "escrow.hold", entry="e", kind="rollback", stem="", promotion_id="", target=None, against=None, cycle=None, rule="r",
        changes="{}", before="{}", fitness=None, evidence="{}", emitted_by="", four_eyes=0, status="pending_review",
        created_at=EARLY, expires_at=None,
    )  # fmt: skip
    assert told(scope.two, "baseline.due", "what", now=LATE) == ["baseline", "files"]
    scope.one.run("baseline.written", version=1)
    scope.one.run("escrow.written", entry="e", status="pending_review")
    assert told(scope.one, "baseline.due", "what", now=LATE) == []
    assert told(scope.two, "baseline.unwritten", "version") == [1]
    assert told(scope.two, "escrow.unwritten", "entry") == ["e"]
    scope.two.run("escrow.close", entry="e", status="approved", at=LATE, by="u", reason="", version=1)
    assert told(scope.one, "escrow.unwritten", "entry") == ["e"]


def test_the_version_under_which_a_phase_ran_is_the_one_whose_files_its_host_had(scope: Scope) -> None:
    for version, before, after in ((1, "", "5a"), (2, "5a", "5b")):
        scope.one.run(
            "baseline.append", version=version, sha256=after, previous_sha=before, ts=EARLY, actor="u", kind="set",
            reason="", cycle=None, promotion_ids="[]", parameters="{}", fitness=None,
        )  # fmt: skip
        scope.one.run("baseline.written", version=version)
    scope.two.run("baseline.written", version=1)
    assert told(scope.one, "cycles.get", "baseline_began", cycle=scope.cycle(scope.one)) == [2]
    assert told(scope.one, "cycles.get", "baseline_began", cycle=scope.cycle(scope.two)) == [1]


def test_old_ticks_go_whichever_hosts_they_were_and_as_many_stay_for_each(scope: Scope) -> None:
    for host in (scope.one, scope.two):
        host.rows("hosts.check_in", machine_id=str(host), boot_id="b", release="1", offset=0.0, lately=60.0, role="standby")
    for _ in range(4):
        scope.tick(scope.one)
        scope.tick(scope.two)
    assert told(scope.one, "ticks.count_old", "old", before=LATE, newest=2, limit=-1) == [4]
    assert scope.one.run("ticks.expire", before=LATE, newest=2, limit=100) == 4
    assert told(scope.one, "ticks.recent", "tick", limit=9) == [7, 5]
    assert told(scope.two, "ticks.recent", "tick", limit=9) == [8, 6]


@pytest.mark.parametrize("words", ["\\u0000", "\\ud83d", "\\ude00", "\\ud83d\\ude00"])
def test_no_words_of_a_program_keep_a_list_from_being_told(scope: Scope, words: str) -> None:
    """PostgreSQL refuses to read U+0000 and halves of surrogate pairs out of JSON, which Python writes as it finds them."""
    cycle = scope.cycle(None)
    scope.one.run("cycles.claim", cycle=cycle, runner="{}", now=EARLY)
    result = f'{{"reason": "it said {words}", "wall_seconds": 1.0}}'
    scope.one.run("cycles.finish", cycle=cycle, expected="running", state="failed", result=result, now=EARLY)
    scope.one.run("observer.see", cycle=cycle, rule="r", at=EARLY, number=1, lines=f'["{words}"]')
    assert str(told(scope.one, "survey.failed", "reason", limit=9)[0]).startswith("it said ")
    assert told(scope.one, "records.newest", "cycle", after=99, job="", state="", text="said", limit=9) == [cycle]
    assert told(scope.one, "observer.sightings", "number", since="", now=LATE, rule="r", limit=9) == [1]
