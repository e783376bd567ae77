"""What ticks, runners and pages ask of a PostgreSQL with years of rows is answered by indexes, as SQLite answers it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.store.port import Value
from orchestration.store.postgres_database import PostgresDatabase
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")

MINUTE = "to_char(timestamp '2026-01-01' + n * interval '1 minute', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"  # the n-th minute
YEARS = (
    f"""INSERT INTO ticks SELECT n, 't' || n, {MINUTE}, {MINUTE}, 'b', 'noop', n % 900 / 899 * 75, NULL,
        CASE n % 7 WHEN 0 THEN 'cycle_active' END, '[]', 'host-' || n % 3, CASE n % 3 WHEN 1 THEN 1 END
        FROM generate_series(1, 60000) n""",
    f"""INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds, phase_date, queued_at,
        started_at, ended_at, settled_at, result, pruned_at, host)
        SELECT n, CASE n % 20 WHEN 0 THEN 'phase' WHEN 1 THEN 'dream' ELSE 'wake' END,
            CASE n % 90 WHEN 0 THEN 'failed' ELSE 'succeeded' END, 'c' || n, 'intent', '{{"promotions": []}}', '[]', 1,
            CASE n % 20 WHEN 0 THEN to_char(date '2020-01-01' + n / 20, 'YYYY-MM-DD') END, i, i, i, i,
            '{{"reason": "r"}}', i, 'host-' || n % 3
        FROM (SELECT n, {MINUTE} AS i FROM generate_series(1, 20000) n) made""",
    f"""INSERT INTO promotions SELECT 'p' || n, 'p', 'accepted', 0, 1, '', {MINUTE}, {MINUTE}, n
        FROM generate_series(1, 10000) n""",
    f"""INSERT INTO intents SELECT 'i' || n, 's' || n, 'alert', 5, 'processed', '', {MINUTE}, {MINUTE},
        NULL, 1 FROM generate_series(1, 10000) n""",
    f"""INSERT INTO iterations SELECT n, 'i' || n, {MINUTE}, NULL, n,
        CASE n % 5 WHEN 0 THEN 'success' ELSE 'failed' END, {MINUTE}, NULL, 1, 'h', '{{}}', 1, 'host-' || n % 3
        FROM generate_series(1, 20000) n""",
    f"""INSERT INTO bundles SELECT n, {MINUTE}, 0, '', '', 0, {MINUTE}, 'host-' || n % 3
        FROM generate_series(1, 20000) n""",
    f"""INSERT INTO federations SELECT n, i, i, 0, NULL, '', '', 0, 'p', i, 'host-' || n % 3
        FROM (SELECT n, {MINUTE} AS i FROM generate_series(1, 20000) n) made""",
    f"""INSERT INTO sightings SELECT n, 'r', {MINUTE}, 1, '[]' FROM generate_series(1, 2000) n""",
)
LATE = "2026-02-11T00:00:00.000000Z"
END = "2026-02-11T02:00:00.000000Z"
ASKED: dict[str, dict[str, Value]] = {
    "bundles.due": {"now": LATE},
    "bundles.next": {"now": LATE, "longest": END},
    "bundles.pending": {},
    "cycles.active": {},
    "cycles.claim_next": {"now": LATE, "runner": "{}", "unable": "[]"},
    "cycles.ended_for_cause": {"job": "phase", "cause": "intent", "limit": 50},
    "cycles.exclusive": {},
    "cycles.last_succeeded": {"job": "phase"},
    "cycles.last_queued": {"at": END},
    "cycles.number_of": {"token": "c7"},
    "cycles.of_date": {"phase_date": "2021-01-01"},
    "cycles.over": {"keep_last": 200, "before": LATE, "limit": 5, "held_too": 0},
    "cycles.recent": {"limit": 5},
    "cycles.unsettled": {},
    "cycles.watched": {},
    "federation.due": {"now": LATE, "limit": 1},
    "federation.pending": {},
    "intents.acted_on": {"content_sha": "s7", "oldest": "2026"},
    "intents.open": {},
    "iterations.last_line": {},
    "iterations.open": {},
    "iterations.recent": {"limit": 50},
    "iterations.unwritten": {},
    "notices.last_cycle": {},
    "notices.last_iteration": {},
    "observer.arrivals": {"since": LATE, "now": END, "limit": 9},
    "observer.contentions": {"since": LATE, "now": END, "limit": 9},
    "observer.idle": {"now": END},
    "observer.phase_failures": {"since": LATE, "now": END, "limit": 9},
    "operator.ticks_between": {"since": LATE, "until": END, "limit": 9},
    "promotions.all_parked": {},
    "promotions.known": {"stems": '["p1", "p2"]'},
    "promotions.oldest": {"stems": '["p1", "p2"]'},
    "pulse.now": {},
    "pulse.signs": dict.fromkeys(
        ("contention_since", "dream_since", "lost_since", "overflow_since", "urgent_since", "rolled_back_since"), LATE
    ),
    "records.beside": {"cycle": 7},
    "records.line": {"cycle": 7},
    "records.longest": {"seconds": float("inf"), "after": 0, "job": "", "state": "", "text": "", "limit": 9},
    "records.neighbours": {"tick": 7},
    "records.newest": {"after": 2**62, "job": "", "state": "", "text": "", "limit": 9},
    "records.shortest": {"seconds": 0.0, "after": 0, "job": "", "state": "", "text": "", "limit": 9},
    "reflection.failures": {"limit": 5},
    "reflection.recent": {"limit": 5},
    "survey.active": {},
    "survey.beats": {"since": LATE, "until": END},
    "survey.cycles": {"limit": 50},
    "survey.failed": {"limit": 5},
    "survey.newest_start": {},
    "survey.queues": {},
    "survey.unacked": {"limit": 5},
    "ticks.after": {"tick": 59000, "limit": 1000},
    "ticks.append": {
        "tick_id": "x", "started_at": LATE, "ended_at": LATE, "boot_id": "b", "decision": "noop", "exit_code": 0,
        "cycle": None, "blocker": None, "findings": "[]",
    },
    "ticks.blockers": {"since": LATE, "until": END},
    "ticks.get": {"tick_id": "t7"},
    "ticks.last_before": {"instant": LATE},
    "ticks.last_of_any_before": {"instant": LATE},
    "ticks.recent": {"limit": 1},
}  # fmt: skip
LARGE = {"ticks", "cycles", "promotions", "intents", "iterations", "bundles", "federations"}


@pytest.fixture(scope="module")
def old(cluster: Cluster) -> Iterator[PostgresDatabase]:
    db = PostgresDatabase(cluster.new_database(), here="host-1")
    for text in (*YEARS, "ANALYZE"):
        db.connection.ask(text)
    yield db
    db.close()


@pytest.mark.parametrize("query", ASKED)
def test_a_question_reads_what_it_is_about_and_not_the_whole_history(old: PostgresDatabase, query: str) -> None:
    text = old._text(query, ASKED[query])
    (plan,) = old.connection.ask(f"EXPLAIN (FORMAT JSON) {text}")[0].rows
    read = [node for node in nodes(json.loads(str(plan["QUERY PLAN"]))[0]["Plan"]) if node.get("Relation Name") in LARGE]
    assert read
    assert [f"{node['Node Type']} of {node['Relation Name']}" for node in read if node["Node Type"] == "Seq Scan"] == []


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
