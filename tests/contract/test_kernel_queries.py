"""Every query of the kernel on a real PostgreSQL and on SQLite, after the same random history: the same rows, in order.

One host has the scope to itself here, so what it is told must not depend on the store. What several hosts share and what
they don't is `test_hosts_queries.py`'s.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pytest

from orchestration.store import queries
from orchestration.store.port import Row, Value
from orchestration.store.postgres_database import PostgresDatabase
from orchestration.store.queries import sql, sql_of
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")

FOLDER = Path(queries.__file__).parent
AREAS = (
    "baseline", "bundles", "counters", "cycles", "escrow", "facts", "federation", "heuristics", "intents", "iterations",
    "notices", "observer", "operator", "phase_dates", "pins", "products", "promotions", "pulse", "records", "reflection",
    "slurm", "stability", "survey", "ticks", "validation",
)  # fmt: skip
OTHERS = {
    "bridge",
    "census",
    "transfer",
    "wakes",
    "wake_sessions",
    "soundness",
    "turns",
    "postgres",
    "leases",
    "hosts",
    "scope",
    "scope_copies",
    "shared_files",
}
"""Of the bridge, which proves its own; and what only PostgreSQL has."""
TABLES = {
    "baseline_verdicts": "", "bundles": "host", "conditions": "host", "counters": "host", "cycles": "", "facts": "",
    "federations": "host", "intents": "", "iterations": "host", "legacy_acks": "", "observer_events": "", "phase_dates": "",
    "phase_results": "", "pins": "", "products": "", "promotions": "", "sightings": "", "slurm_jobs": "", "ticks": "host",
    "baseline_versions": "", "escrow": "",
}  # fmt: skip
ONLY_ONE_HAS = {"host", "epoch", "written", "retired_at"}
Asked: TypeAlias = dict[str, Value]
T = TypeVar("T")


def names_in(path: Path) -> list[str]:
    return re.findall(r"^-- name: (\S+)$", path.read_text(), re.MULTILINE) if path.exists() else []


NAMES = [name for area in AREAS for name in names_in(FOLDER / f"{area}.sql")]


def test_every_area_of_queries_is_of_the_kernel_or_of_the_others() -> None:
    areas = {path.stem.removesuffix("_sqlite").removesuffix("_postgres") for path in FOLDER.glob("*.sql")}
    assert areas - OTHERS == set(AREAS)


def test_every_text_of_postgresql_overrides_another_and_differs() -> None:
    overriding = {path.stem: names_in(path) for path in (FOLDER / "postgres").glob("*.sql")}
    del overriding["turns"]
    assert overriding.keys() <= set(AREAS)
    for area, names in overriding.items():
        assert set(names) <= set(names_in(FOLDER / f"{area}.sql"))
        assert len(names) == len(set(names))
        for name in names:
            assert statement(sql_of(name, "postgres")) != statement(sql(name)), f"{name} need not be overridden"


def test_no_shared_text_looks_at_hosts() -> None:
    """SQLite knows no `:here`."""
    assert [name for name in NAMES if re.search(r":(here|scope)\b", sql(name))] == []


def statement(text: str) -> str:
    return " ".join(line for line in text.splitlines() if not line.startswith("--"))


class World:
    """Draws parameters: few values, so that rows meet each other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.unique = 0
        self.sha = ""  # of the newest baseline version
        self.versions = 0
        self.ended, self.queued, self.running = [99], [99], [99]  # cycles, when this turn began
        self.decided: list[Asked] = [{"name": "", "content_sha": "", "decided_at": ""}]
        self.phase = 99  # the newest PHASE that was claimed
        self.due = ""

    def of(self, *values: T) -> T:
        return self.random.choice(values)

    def note(self, cycles: list[Row]) -> None:
        """See which cycles there are."""
        found = [(int(str(row["cycle"])), row["state"]) for row in cycles]
        self.queued = [cycle for cycle, state in found if state == "queued"] or [99]
        self.running = [cycle for cycle, state in found if state == "running"] or [99]
        self.ended = [cycle for cycle, state in found if state not in ("queued", "running")] or [99]
        self.phase = next((int(str(row["cycle"])) for row in cycles if row["job"] == "phase" and row["started_at"]), 99)

    def maybe(self, value: T) -> T | None:
        return self.of(value, None)

    def one(self) -> str:
        self.unique += 1
        return f"{self.unique:08}"

    def at(self) -> str:
        """An instant of three days, at a quarter of a second; every other is one of the same few."""
        of = self.random
        if of.random() < 0.5:
            return f"2026-11-20T12:0{of.randint(0, 1)}:{of.choice((0, 20, 59)):02}.000000Z"
        return (
            f"2026-11-{of.randint(19, 21)}T{of.randint(0, 23):02}:{of.randint(0, 59):02}:{of.randint(0, 59):02}"
            f".{of.choice((0, 25, 5, 75)):02}0000Z".replace(".05", ".50")
        )

    def date(self) -> str:
        return f"2026-11-{self.random.randint(10, 21)}"

    def cycle(self) -> int:
        return self.random.randint(1, 40)

    def number(self) -> int:
        return self.random.randint(0, 12)

    def limit(self) -> int:
        return self.of(1, 3, 100)

    def real(self) -> float:
        return self.of(0.0, 0.25, 1.0, -3.5, 1e-9, 12345678.125)

    def stem(self) -> str:
        return self.of("alpha", "Beta", "göttlich", "it's", "100%", "a:b", 'q"uote', "back\\slash", "😀")

    def stems(self) -> str:
        return json.dumps([self.stem() for _ in range(self.random.randint(0, 9))])

    def words(self) -> str:
        return self.of(
            "", "exit code 1", "it's 100 % :now -- no comment", "\\u0000 is told", "Ü 😀", 'say "no"', "line\nline"
        )

    def job(self) -> str:
        return self.of("phase", "dream", "loop", "reflection", "wake")

    def state(self) -> str:
        return self.of("queued", "running", "succeeded", "failed", "timed_out", "cancelled", "lost")

    def exits(self) -> str:
        return json.dumps(self.random.sample([0, 1, 2, 20, 70, 75], 3))

    def origin(self) -> str:
        told: dict[str, object] = {
            "cause": "intent", "tick_id": "t", "promotions": [self.stem() for _ in range(self.random.randint(0, 3))],
            "topic": self.words(), "intent": self.of("", "loop_goal_x.json"), "prompt": self.words(),
            "variables": [["A", "b"]],
        }  # fmt: skip
        return json.dumps(told)

    def result(self) -> str:
        report, sha = self.maybe("report.json"), self.maybe("5e")
        told = {"reason": self.words(), "wall_seconds": self.of(1.5, 0.0, 3.0), "report": report, "report_sha": sha}
        return json.dumps(told)

    def fact(self) -> Asked:
        name, value = self.of(
            ("retention.held", json.dumps([self.cycle(), self.cycle()])),
            ("bridge.signs", json.dumps({"at": self.at(), "serving": self.of(True, False)})),
            ("wake.signs", json.dumps({"at": self.at()})),
            ("observer.due", self.news()),
            ("phase.accounted_through", self.date()),
            (f"phase.hints.{self.phase:05}", json.dumps({"phase_type": self.words()})),
            (f"phase.groups.{self.cycle():05}", "{}"),
            ("notices.seen", self.words()),
        )
        return {"name": name, "value": value}

    def news(self) -> str:
        self.due = self.at()
        return self.due

    def decision(self) -> Asked:
        """The key of an intent that is decided, and remembered for when its file is moved."""
        self.decided.append({"name": self.stem(), "content_sha": self.of("c1", "c2"), "decided_at": self.at()})
        return self.decided[-1]

    def span(self) -> Asked:
        since, until = sorted((self.at(), self.at()))
        return {"since": since, "until": until}

    def listed(self, **more: Value) -> Asked:
        return {"job": self.of("", self.job()), "state": self.of("", self.state()), **more}

    def searched(self, **more: Value) -> Asked:
        text = self.of("", "", "no", "7", "007", "exit", "alpha", "ü", "%", "'", "reason", "20")
        return self.listed(text=text, limit=self.limit(), **more)

    def appended(self) -> Asked:
        """The next baseline version, or one that was made from another than the newest and is not taken."""
        if self.of(True, False, False, False):
            before, self.sha = self.sha, self.one()
            self.versions += 1
            return {"previous_sha": before, "sha256": self.sha, "version": self.versions}
        return {"previous_sha": "nobody's", "sha256": "5a", "version": self.versions + 1}


def spanned(w: World) -> Asked:
    return {"since": w.at(), "now": w.at(), "limit": w.limit()}


def nothing(_: World) -> Asked:
    return {}


def of_cycle(w: World) -> Asked:
    return {"cycle": w.cycle()}


def limited(w: World) -> Asked:
    return {"limit": w.limit()}


def at_cycle(w: World) -> Asked:
    return {"cycle": w.cycle(), "now": w.at()}


def aged(w: World) -> Asked:
    return {"before": w.at(), "limit": w.of(-1, 2, 100)}


def stems(w: World) -> Asked:
    return {"stems": w.stems()}


GAUGES = ("promotions_unacked", "loop_archives_stale", "orchestrator_last_tick_timestamp_seconds")


ASKED: dict[str, Callable[[World], Asked]] = {
    "baseline.append": lambda w: {
        **w.appended(), "ts": w.at(), "actor": "u", "kind": w.of("cycle", "escrow", "set"),
        "reason": w.words(), "cycle": w.maybe(w.cycle()), "promotion_ids": w.stems(), "parameters": "{}",
        "fitness": w.maybe(w.real()),
    },
    "baseline.newest": nothing,
    "baseline.get": lambda w: {"version": w.number()},
    "baseline.all": nothing,
    "baseline.recent": limited,
    "baseline.unwritten": nothing,
    "baseline.written": lambda w: {"version": w.of(w.versions, w.number())},
    "baseline.retire": lambda w: {"now": w.at(), "keep": w.number()},
    "baseline.retired": nothing,
    "baseline.beyond": lambda w: {"keep": w.number()},
    "baseline.due": lambda w: {"now": w.at()},
    "bundles.ask": lambda w: {"cycle": w.cycle(), "due_at": w.at()},
    "bundles.next": lambda w: {"now": w.at(), "longest": w.at()},
    "bundles.due": lambda w: {"now": w.at()},
    "bundles.get": of_cycle,
    "bundles.pending": nothing,
    "bundles.done": lambda w: {**at_cycle(w), "sha256": w.of("", "5a"), "size": w.number()},
    "bundles.fail": lambda w: {"cycle": w.cycle(), "failures": w.number(), "due_at": w.at(), "error": w.words()},
    "bundles.forget": of_cycle,
    "counters.add": lambda w: {
        "series": json.dumps([["kloros_cycle_duration_seconds_bucket", f'le="{at}"', w.of(0.0, 1.0, 0.1)] for at in (1, 2)])
    },
    "counters.all": nothing,
    "counters.set": lambda w: {
        "gauges": json.dumps({f"kloros_{name}": w.of(0.0, 1.0, 2.5) for name in w.of(GAUGES, GAUGES[:2])})
    },
    "cycles.enqueue": lambda w: {
        "number": None, "job": w.job(), "token": w.one(), "cause": w.of("window", "promotions", "intent", "direct"),
        "origin": w.origin(), "command": '["true"]', "working_dir": "", "timeout_seconds": w.of(60.0, 3600.0),
        "executor": w.of("local", "slurm"), "hosts": "", "phase_date": w.maybe(w.date()), "queued_at": w.at(),
    },
    "cycles.number_of": lambda w: {"token": f"{w.random.randint(1, max(1, w.unique)):08}"},
    "cycles.active": nothing,
    "cycles.watched": nothing,
    "cycles.exclusive": nothing,
    "cycles.unsettled": nothing,
    "cycles.get": of_cycle,
    "cycles.of_token": lambda w: {"token": f"{w.random.randint(1, max(1, w.unique)):08}"},
    "cycles.last_queued": lambda w: {"at": w.at()},
    "cycles.recent": limited,
    "cycles.claim": lambda w: {"cycle": w.of(*w.queued), "now": w.at(), "runner": '{"pid": 1}'},
    "cycles.claim_next": lambda w: {"now": w.at(), "runner": "{}", "unable": json.dumps([w.job(), w.job()])},
    "cycles.note_runner": lambda w: {"cycle": w.of(*w.running), "runner": w.words()},
    "cycles.hosts_ticked": nothing,
    "cycles.finish": lambda w: {
        "cycle": w.of(*w.running, *w.queued), "now": w.at(), "expected": w.of("queued", "running"), "result": w.result(),
        "state": w.of("succeeded", "succeeded", "failed", "timed_out", "cancelled", "lost"),
    },
    "cycles.forget": lambda w: {"cycle": w.of(*range(1, 16))},
    "cycles.settle": lambda w: {"cycle": w.of(*w.ended), "now": w.at()},
    "cycles.ask_cancel": at_cycle,
    "cycles.ended_for_cause": lambda w: {"job": w.job(), "cause": w.of("window", "intent"), "limit": w.limit()},
    "cycles.of_date": lambda w: {"phase_date": w.date()},
    "cycles.last_succeeded": lambda w: {"job": w.job()},
    "cycles.over": lambda w: {**aged(w), "keep_last": w.of(0, 1, 5), "held_too": w.of(0, 1)},
    "cycles.prune": at_cycle,
    "escrow.hold": lambda w: {
        "entry": f"{w.cycle():012x}", "kind": w.of("promotion", "rollback"), "stem": w.stem(), "promotion_id": "p",
        "target": w.maybe(w.number()), "against": w.maybe(w.number()), "cycle": w.maybe(w.cycle()), "rule": w.words(),
        "changes": "{}", "before": "{}", "fitness": w.maybe(w.real()), "evidence": "{}", "emitted_by": w.of("", "u"),
        "four_eyes": w.of(0, 1), "status": w.of("pending_review", "approved"), "created_at": w.at(),
        "expires_at": w.maybe(w.at()),
    },
    "escrow.get": lambda w: {"entry": f"{w.number():012x}"},
    "escrow.pending": nothing,
    "escrow.all": nothing,
    "escrow.recent": limited,
    "escrow.expired": lambda w: {"now": w.at()},
    "escrow.waiting_of": lambda w: {"cycle": w.maybe(w.cycle()), "stems": w.stems()},
    "escrow.close": lambda w: {
        "entry": f"{w.number():012x}", "status": w.of("approved", "rejected", "expired"), "at": w.at(), "by": w.maybe("u"),
        "reason": w.words(), "version": w.maybe(w.number()),
    },
    "escrow.unwritten": nothing,
    "escrow.written": lambda w: {"entry": f"{w.number():012x}", "status": w.of("pending_review", "approved", "rejected")},
    "facts.get": lambda w: {"name": w.fact()["name"]},
    "facts.set": lambda w: w.fact(),
    "facts.set_once": lambda w: w.fact(),
    "facts.observer_news": lambda w: {"now": w.news()},
    "federation.ask": at_cycle,
    "federation.ask_again": at_cycle,
    "federation.due": lambda w: {"now": w.at(), "limit": w.of(-1, 1, 100)},
    "federation.get": of_cycle,
    "federation.pending": nothing,
    "federation.newest": limited,
    "federation.note_bundle": lambda w: {"cycle": w.cycle(), "sha256": "5a", "size": w.number()},
    "federation.done": lambda w: {**at_cycle(w), "place": w.of("", "bundles/5a.tar.gz")},
    "federation.fail": lambda w: {**at_cycle(w), "failures": w.number(), "due_at": w.at(), "error": w.words()},
    "federation.forget": of_cycle,
    "heuristics.hints": nothing,
    "heuristics.groups": nothing,
    "heuristics.ended": nothing,
    "heuristics.accepted": nothing,
    "heuristics.newest_version": nothing,
    "intents.open": nothing,
    "intents.acted_on": lambda w: {"content_sha": w.of("c1", "c2"), "oldest": w.at()},
    "intents.remember": lambda w: {
        "name": w.stem(), "content_sha": w.of("c1", "c2"), "priority": w.number(),
        "intent_type": w.of("alert_high", "Loop_Goal_set", "loopXgoal", "ALERT"), "seen_at": w.at(),
    },
    "intents.forget": lambda w: {"name": w.stem()},
    "intents.conclude": lambda w: {
        **w.decision(), "intent_type": w.of("alert_high", "alert", "loop_goal_set", "Alert"), "reason": w.words(),
        "priority": w.of(5, 8, 9), "status": w.of("processed", "processed", "queue_overflow", "stale"),
        "seen_at": w.at(), "cycle": w.maybe(w.cycle()),
    },
    "intents.filed": lambda w: w.of(*w.decided),
    "intents.pending": nothing,
    "intents.count_old": aged,
    "intents.expire": lambda w: {"before": w.at(), "limit": w.of(1, 3)},
    "iterations.begin": lambda w: {"token": w.one(), "started_at": w.at(), "plan": "{}", "history_path": "h.jsonl"},
    "iterations.number_of": lambda w: {"token": f"{w.random.randint(1, max(1, w.unique)):08}"},
    "iterations.plan": lambda w: {"plan": "{}", "cycle": w.maybe(w.cycle()), "iteration": w.cycle()},
    "iterations.end": lambda w: {
        "iteration": w.cycle(), "status": w.of("success", "degraded", "failed", "lost", "interrupted", "prereq_failed"),
        "ended_at": w.at(), "next_run_at": w.maybe(w.at()), "archive_new": w.of(None, 0, 1), "line": '{"a": 1}',
    },
    "iterations.open": nothing,
    "iterations.unwritten": nothing,
    "iterations.written": lambda w: {"iteration": w.cycle()},
    "iterations.recent": limited,
    "iterations.last_line": nothing,
    "iterations.failures_in_a_row": nothing,
    "iterations.totals": nothing,
    "notices.last_tick": nothing,
    "notices.last_iteration": nothing,
    "notices.last_cycle": nothing,
    "notices.bridge_told": nothing,
    "observer.arrivals": spanned,
    "observer.phase_failures": spanned,
    "observer.contentions": spanned,
    "observer.sightings": lambda w: {**spanned(w), "rule": w.of("r1", "r2")},
    "observer.last": lambda w: {"now": w.at()},
    "observer.last_of": lambda w: {"rule": w.of("r1", "r2"), "now": w.at()},
    "observer.note": lambda w: {
        "rule": w.of("r1", "r2"), "subject": w.of("", "s"), "at": w.at(), "evidence": "{}", "intent": w.one(),
        "content": w.words(),
    },
    "observer.made": lambda w: {"intent": f"{w.random.randint(1, max(1, w.unique)):08}"},
    "observer.unwritten": nothing,
    "observer.written": lambda w: {"event": w.cycle()},
    "observer.see": lambda w: {
        "cycle": w.cycle(), "rule": w.of("r1", "r2"), "at": w.at(), "number": w.number(), "lines": json.dumps([w.words()])
    },
    "observer.idle": lambda w: {"now": w.at()},
    "observer.expire_events": lambda w: {"before": w.of("2026-11-19", "2026-11-20")},
    "observer.rest": lambda w: {"due": w.at(), "asked": w.due},
    "observer.expire_sightings": lambda w: {"before": w.of("2026-11-19", "2026-11-20")},
    "operator.intents_named": lambda w: {"name": w.stem()},
    "operator.intents_decided": limited,
    "operator.ticks_between": lambda w: {**w.span(), "limit": w.limit()},
    "operator.answered_by": of_cycle,
    "phase_dates.record": lambda w: {
        "local_date": w.date(), "result": w.of("succeeded", "failed", "skipped"), "reason": "r", "evidence": w.words(),
        "cycle": w.maybe(w.cycle()), "opens_at": w.at(), "closes_at": w.at(), "recorded_at": w.at(),
    },
    "phase_dates.first_ahead": lambda w: {"now": w.at()},
    "phase_dates.reopen": lambda w: {"now": w.of("2026-11-21T23", w.at())},
    "phase_dates.get": lambda w: {"local_date": w.date()},
    "phase_dates.recent": limited,
    "phase_dates.since": lambda w: {"since": w.date()},
    "pins.all": nothing,
    "pins.set": lambda w: {**at_cycle(w), "reason": w.words(), "pinned_by": "u"},
    "pins.remove": of_cycle,
    "products.begin": lambda w: {"cycle": w.cycle(), "environment": '["PATH"]', "revision": w.maybe("abc")},
    "products.end": lambda w: {"cycle": w.cycle(), "files": w.maybe("[]"), "omitted": w.number()},
    "products.get": of_cycle,
    "products.forget": of_cycle,
    "products.measured": lambda w: {"cycle": w.cycle(), "telemetry": w.maybe('{"loss": [1.0]}')},
    "promotions.known": stems,
    "promotions.oldest": stems,
    "promotions.all_parked": nothing,
    "promotions.recent": limited,
    "promotions.answered": limited,
    "promotions.see": lambda w: {
        "stem": w.stem(), "promotion_id": w.of("p", "q"), "fitness": w.maybe(w.real()), "at": w.at()
    },
    "promotions.fail": lambda w: {
        "park_after": w.of(1, 3), "reason": w.words(), "cycle": w.cycle(), "at": w.at(), **stems(w)
    },
    "promotions.answer": lambda w: {
        "stem": w.stem(), "promotion_id": "p", "state": w.of("accepted", "rejected"), "fitness": w.maybe(w.real()),
        "reason": w.words(), "at": w.at(), "cycle": w.maybe(w.cycle()),
    },
    "promotions.retry": lambda w: {"stem": w.stem(), "at": w.at()},
    "promotions.counts": nothing,
    "promotions.older_acks": nothing,
    "promotions.remember_older_acks": lambda w: {"acks": json.dumps({w.stem(): w.words() for _ in range(3)})},
    "pulse.now": nothing,
    "pulse.signs": lambda w: {
        name: w.at()
        for name in ("contention_since", "dream_since", "lost_since", "overflow_since", "urgent_since", "rolled_back_since")
    },
    "pulse.conditions": nothing,
    "pulse.condition_holds": lambda w: {"condition": w.of("a", "b", "c"), "since": w.at(), "evidence": w.words()},
    "pulse.condition_ended": lambda w: {"condition": w.of("a", "b", "c")},
    "records.newest": lambda w: w.searched(after=w.of(2**62, w.cycle())),
    "records.oldest": lambda w: w.searched(after=w.of(0, w.cycle())),
    "records.longest": lambda w: w.searched(after=w.cycle(), seconds=w.of(float("inf"), 3600.0, 0.25)),
    "records.shortest": lambda w: w.searched(after=w.cycle(), seconds=w.of(float("-inf"), 0.0, 3600.0)),
    "records.count": lambda w: w.listed(),
    "records.count_timed": lambda w: w.listed(),
    "records.line": of_cycle,
    "records.neighbours": lambda w: {"tick": w.of(w.cycle(), 9999)},
    "records.cycles_of_dates": lambda w: {"since": w.date()},
    "records.dates": nothing,
    "records.beside": of_cycle,
    "reflection.failures": limited,
    "reflection.parked": limited,
    "reflection.escrow": limited,
    "reflection.degraded": limited,
    "reflection.recent": limited,
    "reflection.answers": limited,
    "reflection.stale": nothing,
    "slurm.get": of_cycle,
    "slurm.note": lambda w: {
        "cycle": w.cycle(), "job_id": w.maybe(w.number()), "submitted_at": w.maybe(w.at()), "state": w.of("", "PENDING"),
        "reason": w.words(), "nodes": "n1", "gpus": "", "missed_since": w.maybe(w.at()),
    },
    "stability.first_tick": nothing,
    "stability.tick_exits": lambda w: w.span(),
    "stability.failed_ticks": lambda w: {**w.span(), "well": w.exits(), "limit": w.limit()},
    "stability.tick_gaps": lambda w: {**w.span(), "away": w.exits(), "seconds": w.of(0.0, 60.25, 7200)},
    "stability.tick_edges": lambda w: {**w.span(), "away": w.exits()},
    "stability.lost_cycles": lambda w: w.span(),
    "survey.beats": lambda w: w.span(),
    "survey.newest_start": nothing,
    "survey.cycles": limited,
    "survey.active": nothing,
    "survey.failed": limited,
    "survey.ended": limited,
    "survey.unacked": limited,
    "survey.queues": nothing,
    "survey.escrow": limited,
    "survey.last_verdict": nothing,
    "survey.verdicts": lambda w: {"version": w.number()},
    "survey.advice": nothing,
    "ticks.append": lambda w: {
        "tick_id": f"20261121T120000Z-{w.one()}", "started_at": w.at(), "ended_at": w.at(), "boot_id": w.of("b1", "b2"),
        "decision": w.of("noop", "phase", "skipped"), "exit_code": w.of(0, 0, 1, 75), "cycle": w.maybe(w.cycle()),
        "blocker": w.of(None, "cycle_active", "disabled"), "findings": json.dumps([["rule", w.words(), ""]]),
    },
    "ticks.fail": lambda w: {"exit_code": 1, "tick_id": f"20261121T120000Z-{w.random.randint(1, max(1, w.unique)):08}"},
    "ticks.recent": limited,
    "ticks.after": lambda w: {"tick": w.cycle(), "limit": w.limit()},
    "ticks.get": lambda w: {
        "tick_id": w.of(f"{w.cycle()}", "none", "-1", f"20261121T120000Z-{w.random.randint(1, max(1, w.unique)):08}")
    },
    "ticks.last_before": lambda w: {"instant": w.at()},
    "ticks.last_of_any_before": lambda w: {"instant": w.at()},
    "ticks.blockers": lambda w: w.span(),
    "ticks.count_old": lambda w: {**aged(w), "newest": w.of(0, 20)},
    "ticks.expire": lambda w: {"before": w.of("2026-11-19T12", "2026-11-20"), "newest": w.of(5, 20), "limit": w.of(1, 3)},
    "validation.note_result": lambda w: {
        "cycle": w.of(*w.ended), "counts": w.of(0, 1), "phase_type": w.of("", "x"), "measure": "m", "result": w.real()
    },
    "validation.version_of": lambda w: {"cycle": w.of(*w.ended)},
    "validation.result": lambda w: {"cycle": w.of(*w.ended)},
    "validation.results": lambda w: {"version": w.number(), "limit": w.limit()},
    "validation.conclude": lambda w: {
        "version": w.number(), "verdict": w.of("kept", "rolled_back"), "before": "[]", "after": "[1.0]", "phases": "{}",
        "change": w.real(), "reason": w.words(), "cycle": w.cycle(), "made": w.maybe(w.number()), "entry": w.maybe("e"),
        "now": w.at(),
    },
    "validation.verdict": lambda w: {"version": w.number()},
    "validation.verdicts": lambda w: {"first": w.number(), "last": w.number()},
    "validation.forget": of_cycle,
}  # fmt: skip
OFTEN = [
    "cycles.enqueue",
    "escrow.hold",
    "promotions.answer",
    "cycles.claim",
    "cycles.finish",
    "cycles.settle",
    "validation.note_result",
    "intents.filed",
]
RARELY = [
    "cycles.forget", "products.forget", "bundles.forget", "federation.forget", "validation.forget", "ticks.expire",
    "intents.expire", "phase_dates.reopen", "observer.expire_events", "observer.expire_sightings", "intents.forget",
    "baseline.retire",
]  # fmt: skip
"""What takes rows away, so that there is something to ask about."""


def test_every_query_of_the_kernel_is_asked_here() -> None:
    assert sorted(ASKED) == sorted(NAMES)


class Both:
    """The two stores, asked alike."""

    def __init__(self, sqlite: SqliteDatabase, postgres: PostgresDatabase) -> None:
        self.sqlite = sqlite
        self.postgres = postgres

    def ask(self, name: str, asked: Asked) -> int:
        """Return how many rows it gave or changed."""
        told = f"{name} {asked}"
        text = statement(sql(name))
        if text.lstrip().startswith("SELECT") or "RETURNING " in text:
            ours = normal(self.sqlite.rows(name, **asked), name)
            theirs = normal(self.postgres.rows(name, **asked), name)
            assert theirs == ours, told
            return len(ours)
        changed = self.sqlite.run(name, **asked)
        assert self.postgres.run(name, **asked) == changed, told
        return changed


def normal(rows: list[Row], name: str) -> list[dict[str, Any]]:
    found = [{column: plain(row[column]) for column in row.keys() if column not in ONLY_ONE_HAS} for row in rows]  # noqa: SIM118
    in_order = "ORDER BY" in re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", sql(name))))
    return found if in_order else sorted(found, key=repr)


def plain(value: Value) -> object:
    """A value with its type; JSON as what it says."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return ("json", json.loads(value))
    return (type(value).__name__, value)


@pytest.fixture
def both(tmp_path: Path, cluster: Cluster) -> Iterator[Both]:
    sqlite = SqliteDatabase(os.path.join(tmp_path, "kloros.db"))
    postgres = PostgresDatabase(cluster.new_database(), here="one")
    lease = postgres.rows("leases.look")[0]
    postgres.rows("leases.take", epoch=lease["epoch"], seconds=3600)
    yield Both(sqlite, postgres)
    sqlite.close()
    postgres.close()


def test_both_stores_give_the_same_rows_after_the_same_history(both: Both) -> None:
    world, met = World(4), dict.fromkeys(NAMES, 0)
    for turn in range(120):
        names = [name for name in NAMES if name not in RARELY] + OFTEN * 3 + (RARELY * 5 if turn % 12 == 11 else [])
        world.random.shuffle(names)
        world.note(both.sqlite.rows("cycles.recent", limit=1000))
        if turn % 12 == 5:
            both.postgres.connection.ask("ANALYZE")  # other plans, and the same rows in the same order all the same
        with both.sqlite.transaction(), both.postgres.transaction():
            for name in names:
                met[name] += both.ask(name, ASKED[name](world))
    del met["cycles.hosts_ticked"]  # of hosts that SQLite does not have
    assert " ".join(name for name, rows in met.items() if not rows) == "", "queries that met no row at all"
