"""Any history of promotions, cycles, reviews, rollbacks, rules and crashes leaves a whole chain and loses no promotion.

The steps are those of a tick and of klorosctl, in this process; a step that crashes runs in a child that is killed at one
of its changes of files. What must hold is checked after every step, also right after a crash.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.baseline import copies, escrow_files, escrow_ledger, history
from orchestration.baseline.escrow import Entry, Kind, Reviewer, Status, file_name, to_bytes
from orchestration.baseline.escrow_ledger import NotReviewable, Terms
from orchestration.baseline.version import Kind as VersionKind
from orchestration.baseline.version import Provenance, broken_links
from orchestration.cycles import artifacts, ledger
from orchestration.cycles.cycle import CycleEvent, Result
from orchestration.errors import Usage
from orchestration.promotions.baseline import Accepted, conflicts
from orchestration.promotions.handover import Handed
from orchestration.settings import Settings
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick.kernel import Kernel
from orchestration.tick.tick import tick
from tests.faults.kill import killed

RULES: tuple[list[dict[str, object]], ...] = (
    [],
    [{"parameter": "a"}],
    [{"change_over": 0.5}],
    [{"parameter": "*", "actor": "nobody-we-know"}, {"parameter": "b", "change_over": 0.1}],
    [{"parameter": "*"}],
)
CRASHES = st.one_of(st.none(), st.integers(0, 25))
VALUES = st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 1.2, 2, 40]), min_size=1)
MOSTLY = st.booleans() | st.just(True)
HOUR = timedelta(hours=1)
ADA = Reviewer("ada", frozenset({"ada"}))

STEPS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "cycle": {
        "promotions": st.lists(st.tuples(VALUES, st.sampled_from([0.1, 0.5, 0.9]), MOSTLY), min_size=1, max_size=4),
        "required": st.sampled_from(RULES),
        "succeeds": MOSTLY,
        "crash": CRASHES,
    },
    "review": {"which": st.integers(0, 20), "approves": st.booleans(), "anyway": st.booleans(), "crash": CRASHES},
    "roll_back": {"which": st.integers(1, 6), "asks": st.booleans(), "crash": CRASHES},
    "set_by_hand": {"given": VALUES, "crash": CRASHES},
    "tick_later": {"minutes": st.integers(1, 6), "crash": CRASHES},
}
STEP = st.sampled_from([*STEPS, "cycle", "review"]).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(STEPS[name]))
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=5, max_size=20))
def test_any_history_is_a_whole_chain_that_loses_nothing(steps: list[tuple[str, dict[str, Any]]], memory: Path) -> None:
    shutil.rmtree(memory / "state", ignore_errors=True)
    (memory / "state" / "kick").mkdir(parents=True)
    history_ = History(memory / "state")
    for name, given_ in steps:
        getattr(history_, name)(**given_)
        history_.holds()
    history_.end()


class History:
    """One host."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.now = datetime.now(UTC)
        self.promoted = 0
        self.required: list[dict[str, object]] = []
        self.good: set[str] = set()  # what a cycle that succeeds accepts
        self.expected: set[str] = set()  # what ended cycles have accepted, whether a tick has settled it or not

    def end(self) -> None:
        """Tick until all is done; then the files agree with the store, and every answer with what became of it."""
        for _ in range(2):
            self.act(_tick)
        with closing(self.store()) as db:
            self.whole(db)
            assert copies.verify(db, str(self.state / "baseline")) == []
            entries = escrow_ledger.recent(db, limit=1000)
            for entry in entries:
                assert (self.state / "escrow" / file_name(entry.entry)).read_bytes() == to_bytes(entry)
            acks = [json.loads(path.read_text()) for path in (self.state / "promotions_ack").glob("*")]
            held = {ack["promotion_id"]: ack["escrow"] for ack in acks if "escrow" in ack}
            # An ack may lack the name: the tick was killed behind it, and only the rules of the next one hold the promotion.
            assert held.items() <= {entry.stem: entry.entry for entry in entries if entry.kind is Kind.PROMOTION}.items()
            assert {ack["promotion_id"] for ack in acks if ack["accepted"]} == self.expected

    def cycle(
        self,
        promotions: list[tuple[dict[str, float], float, bool]],
        required: list[dict[str, object]],
        succeeds: bool,
        crash: int | None,
    ) -> None:
        """Promotions come in, a cycle tries all that wait, and a tick settles it, under rules that may be new."""
        for changes, fitness, accepted in promotions:
            self._promote(changes, fitness, accepted)
        self.act(_tick)
        with closing(self.store()) as db:
            with db.transaction():
                cycle = ledger.claim_next(db, runner="{}", now=self.now)
            if cycle is None:
                return
            folder = artifacts.make_folder(str(self.state / "cycles"), cycle.cycle)
            artifacts.hand_over(cycle, folder, self.configured(), now=self.now)
            verdicts = [{"promotion": stem, "accepted": stem in self.good} for stem in cycle.origin.promotions]
            Path(artifacts.verdicts_path(folder)).write_text(json.dumps({"schema": "v1", "verdicts": verdicts}))
            result = Result(reason="exit code 0", report_sha=artifacts.check_verdicts(folder))
            with db.transaction():
                ledger.finish(db, cycle, CycleEvent.SUCCEED if succeeds else CycleEvent.FAIL, result, now=self.now)
            if succeeds:
                self.expected |= _winners(artifacts.read_handover(folder).promotions, self.good)
        self.required = required
        self.act(_tick, crash)

    def _promote(self, changes: dict[str, float], fitness: float, accepted: bool) -> None:
        self.promoted += 1
        stem = f"p{self.promoted}"
        self.good |= {stem} if accepted else set()
        content = {"schema": "v1", "id": stem, "timestamp": 1, "fitness": fitness, "changes": changes}
        (self.state / "promotions").mkdir(exist_ok=True)
        (self.state / "promotions" / f"{stem}.json").write_text(json.dumps(content))

    def review(self, which: int, approves: bool, anyway: bool, crash: int | None) -> None:
        """A person decides on any entry, also on one that is closed."""

        def act(kernel: Kernel) -> None:
            with kernel.lock.held("test"):
                entries = escrow_ledger.recent(kernel.db, limit=1000)
                if not entries:
                    return
                with kernel.db.transaction():
                    entry = entries[which % len(entries)]
                    if approves:
                        _approve(kernel, entry, anyway=anyway)
                    else:
                        _reject(kernel, entry)
                copies.bring_up(kernel.db, kernel.path("baseline"))
                escrow_files.bring_up(kernel.db, kernel.path("escrow"))

        self.act(act, crash)

    def roll_back(self, which: int, asks: bool, crash: int | None) -> None:
        """Back to an earlier version, at once or by way of escrow."""

        def back(kernel: Kernel) -> None:
            with kernel.lock.held("test"):
                with kernel.db.transaction():
                    if asks:
                        at, lasts = kernel.now(), timedelta(minutes=5)
                        escrow_ledger.hold_rollback(kernel.db, which, rule="r", evidence={}, at=at, expires_after=lasts)
                    else:
                        history.put_back(kernel.db, which, _by(kernel, VersionKind.ROLLBACK))
                copies.bring_up(kernel.db, kernel.path("baseline"))

        self.act(back, crash)

    def set_by_hand(self, given: dict[str, float], crash: int | None) -> None:
        self.act(lambda kernel: _set(kernel, given), crash)

    def tick_later(self, minutes: int, crash: int | None) -> None:
        self.now += timedelta(minutes=minutes)
        self.act(_tick, crash)

    def holds(self) -> None:
        if (self.state / "kloros.db").exists():
            with closing(self.store()) as db:
                self.whole(db)

    def whole(self, db: Database) -> None:
        """The chain holds, and what is accepted is in exactly one place."""
        versions, entries = history.every(db), escrow_ledger.recent(db, limit=1000)
        assert broken_links(versions) == []
        taken = [stem for version in versions for stem in version.promotions]
        kept_back = [entry.stem for entry in entries if entry.stem and entry.status is not Status.APPROVED]
        accepted = [str(row["stem"]) for row in db.rows("promotions.recent", limit=1000) if row["state"] == "accepted"]
        assert sorted(taken + kept_back) == sorted(accepted)
        assert set(accepted) <= self.expected
        for entry in entries:
            assert (entry.version is None) == (entry.status is not Status.APPROVED)
            if entry.version is not None and entry.kind is Kind.PROMOTION:
                assert versions[entry.version - 1].promotions == (entry.stem,)

    def act(self, act: Callable[[Kernel], object], crash: int | None = None) -> None:
        """Do something, in a child when it may crash; what the rules refuse is refused."""

        def attempt() -> None:
            with closing(self.store()) as db, suppress(NotReviewable, Usage):
                act(Kernel(self.configured(), db, lambda _: None, lambda: None, lambda: self.now, "boot"))

        if crash is None:
            attempt()
        else:
            killed(attempt, crash)

    def store(self) -> SqliteDatabase:
        return SqliteDatabase(str(self.state / "kloros.db"))

    def configured(self) -> Settings:
        closed = self.now + 8 * HOUR
        return Settings.model_validate(
            {
                "state_dir": str(self.state),
                "orchestration_mode": "enabled",
                "phase": {"time_zone": "UTC", "window_opens": closed.time(), "window_closes": (closed + HOUR).time()},
                "dream": {"backoff": ["0"], "park_after": 9},
                "promotions": {"bounds": {"c": (0, 10)}},
                "escrow": {"require": self.required, "expires_after": "10min"},
            }
        )


def _approve(kernel: Kernel, entry: Entry, *, anyway: bool) -> None:
    escrow_ledger.approve(
        kernel.db,
        entry,
        ADA,
        "",
        at=kernel.now(),
        terms=Terms(kernel.settings.promotions.bounds, False, False, kernel.settings.state_dir, anyway),
    )


def _reject(kernel: Kernel, entry: Entry) -> None:
    escrow_ledger.reject(kernel.db, entry, "ada", "no", at=kernel.now())


def _set(kernel: Kernel, given: dict[str, float]) -> None:
    with kernel.lock.held("test"), kernel.db.transaction():
        history.put(kernel.db, given, _by(kernel, VersionKind.SET), state_dir=kernel.settings.state_dir)


def _tick(kernel: Kernel) -> None:
    tick(kernel, os.urandom(8).hex())


def _by(kernel: Kernel, kind: VersionKind) -> Provenance:
    return Provenance(at=kernel.now(), actor="ada", kind=kind, reason="test")


def _winners(handed: tuple[Handed, ...], good: set[str]) -> set[str]:
    accepted = [one for one in handed if one.stem in good]
    lost = conflicts(Accepted(stem=one.stem, changes=one.changes, fitness=one.fitness) for one in accepted)
    return {one.stem for one in accepted} - lost.keys()
