"""Results and verdicts in the store: whatever PHASEs and people do, the chain holds and no two versions take turns."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration import configuration
from orchestration.baseline import history, verdicts
from orchestration.baseline.version import Kind, Provenance, broken_links
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, Cycle, CycleEvent, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.phase.result import PhaseResult
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick.kernel import Kernel
from orchestration.tick.validate import validate

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
PHASE = Job(JobName.PHASE, ("true",), "", timedelta(minutes=1))


def kernel_of(db: SqliteDatabase, folder: str, *, automatic: bool) -> Kernel:
    environ = {
        "KLR_STATE_DIR": folder,
        "KLR_CONFIG": os.path.join(folder, "orchestrator.toml"),
        "KLR_VALIDATION_AUTOMATIC": str(automatic).lower(),
    }
    Path(environ["KLR_CONFIG"]).touch()
    return Kernel(configuration.load(environ), db, lambda _entry: None, lambda: None, lambda: NOW, "boot")


def ended_phase(db: SqliteDatabase) -> Cycle:
    """Have a PHASE end under the version in force, whose files are in place."""
    origin = Origin(Cause.INTENT, "t")
    with db.transaction():
        for version in history.unwritten(db):
            db.run("baseline.written", version=version.version)
        ledger.enqueue(db, job=PHASE, origin=origin, token=os.urandom(8).hex(), now=NOW)
        cycle = ledger.claim_next(db, runner="{}", now=NOW)
        assert cycle is not None
        ledger.finish(db, cycle, CycleEvent.SUCCEED, Result(reason="test", exit_code=0), now=NOW)
        ledger.settle(db, cycle.cycle, now=NOW)
    return cycle


def person(kind: Kind) -> Provenance:
    return Provenance(at=NOW, actor="ada", kind=kind, reason="test")


PHASES = st.tuples(st.just("phase"), st.sampled_from((0.5, 1.0, 1.02)), st.sampled_from((1, 2, 3, 3, 3, 4)))
CHANGES = st.tuples(st.just("set"), st.floats(0.001, 0.1), st.just(1))
ROLLBACKS = st.tuples(st.just("back"), st.floats(0, 1), st.just(1))
BLOCKS = st.lists(st.tuples(st.one_of(CHANGES, CHANGES, ROLLBACKS), PHASES, PHASES), max_size=8)
STEPS = BLOCKS.map(lambda blocks: [(what, value) for pair in blocks for what, value, times in pair for _ in range(times)])


@given(steps=STEPS, automatic=st.booleans())
@settings(max_examples=100)
def test_whatever_happens_the_chain_holds_and_no_two_versions_take_turns(
    steps: list[tuple[str, float]], automatic: bool
) -> None:
    db = SqliteDatabase(":memory:")
    with TemporaryDirectory() as folder:
        kernel = kernel_of(db, folder, automatic=automatic)
        known: dict[int, verdicts.Concluded] = {}
        for what, value in steps:
            newest = history.newest(db)
            if what == "phase":
                cycle = ended_phase(db)
                with db.transaction():
                    validate(kernel, cycle, PhaseResult(value=value, measure="score"))
            elif what == "set":
                with db.transaction():
                    history.put(db, {"learning_rate": value}, person(Kind.SET), state_dir=folder)
            elif newest is not None and newest.version > 1:
                with db.transaction():
                    history.put_back(db, 1 + int(value * (newest.version - 2)), person(Kind.ROLLBACK))
            now = verdicts.verdicts(db, 1, 1000)
            assert {number: now[number] for number in known} == known, "a verdict is final"
            known = now
    versions = history.every(db)
    assert broken_links(versions) == []
    by_itself = [one for one in versions if one.provenance.kind is Kind.ROLLBACK and one.provenance.actor == history.PROGRAM]
    assert automatic or not by_itself
    for made in by_itself:
        worse, wanted = versions[made.version - 2], versions[made.version - 3]
        assert worse.provenance.kind is not Kind.ROLLBACK
        assert made.parameters == wanted.parameters
        assert known[worse.version].made == made.version
    assert [one.made for one in known.values() if one.made is not None] == [one.version for one in by_itself]
    escrowed = [one.entry for one in known.values() if one.verdict == "escrowed"]
    assert len(set(escrowed)) == len(escrowed)
    db.close()


def test_results_are_of_the_version_whose_files_were_in_place_from_beginning_to_end() -> None:
    db = SqliteDatabase(":memory:")
    first = ended_phase(db)
    with db.transaction():
        history.put(db, {"learning_rate": 0.01}, person(Kind.SET), state_dir="/nonexistent")
        ledger.enqueue(db, job=PHASE, origin=Origin(Cause.INTENT, "t"), token="aa", now=NOW)
        second = ledger.claim_next(db, runner="{}", now=NOW)  # the files are not in place yet
        assert second is not None
        ledger.finish(db, second, CycleEvent.SUCCEED, Result(reason="test"), now=NOW)
    third = ended_phase(db)
    for cycle in (first, second, third):
        verdicts.note_result(db, cycle.cycle, phase_type="", measure="score", value=1.0)
    assert [verdicts.version_of(db, one.cycle) for one in (first, second, third)] == [0, None, 1]
    ledger.forget(db, third.cycle)
    assert verdicts.version_of(db, third.cycle) is None
    db.close()
