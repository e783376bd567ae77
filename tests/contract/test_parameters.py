"""What a look says of the accepted parameters, over a real store that the writers of baseline and escrow have filled."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.baseline import escrow_ledger, verdicts
from orchestration.baseline.escrow import Status
from orchestration.baseline.validation import Verdict
from orchestration.cycles.cycle import CycleState, JobName
from orchestration.pulse import metrics, parameters
from orchestration.pulse.document import as_json
from orchestration.pulse.health import Condition
from orchestration.pulse.publish import publish
from tests.contract.accepted import advise, commit, conclude, hold
from tests.contract.seeded import NOW, Seeded

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> Seeded:
    return Seeded(tmp_path)


def test_what_waits_comes_oldest_first_with_what_it_would_change(world: Seeded) -> None:
    hold(world, "b" * 12, 2)
    hold(world, "a" * 12, 5, expires_in=30)
    found = world.survey()
    assert [one.entry[0] for one in found.escrow] == ["a", "b"]
    (queue,) = [one for one in found.queues if one.name == "escrow"]
    assert (queue.count, queue.oldest) == (2, NOW - 5 * HOUR)
    document = as_json(found)["escrow"][0]
    assert document == {
        "entry": "a" * 12,
        "subject": "stem-aaaaaaaaaaaa",
        "changes": [
            {"name": "beta", "before": None, "after": 2, "relative": None},
            {"name": "learning_rate", "before": 0.01, "after": 0.05, "relative": pytest.approx(4.0)},
        ],
        "rule": "learning_rate 0.01 → 0.05: {change_over = 0.5}",
        "emitted_by": "ada",
        "cycle": 7,
        "since": "2026-11-21T07:00:20.000000Z",
        "expires_at": "2026-11-22T18:00:20.000000Z",
    }
    assert Condition.ESCROW_WAITING not in [cause.condition for cause in found.judgement.causes], "it has waited for hours"


def test_a_rollback_that_waits_is_told_as_one(world: Seeded) -> None:
    commit(world, 9, rate=0.01)
    commit(world, 8, rate=0.02, beta=1)
    with world.db.transaction():
        escrow_ledger.hold_rollback(
            world.db, 1, rule="-9 %", evidence={}, at=NOW - HOUR, expires_after=timedelta(0), cycle=3
        )
    (one,) = world.survey().escrow
    assert (one.subject, one.emitted_by, one.expires) == ("rollback to version 1", "", None)
    assert [(change.name, change.before, change.after) for change in one.changes] == [
        ("beta", 1, None),
        ("rate", 0.02, 0.01),
    ]


def test_what_was_decided_waits_no_more_and_is_counted(world: Seeded) -> None:
    hold(world, "a" * 12, 30)
    hold(world, "b" * 12, 30, expires_in=-1)
    assert [cause.condition for cause in world.survey().judgement.causes if "escrow" in cause.condition] == [
        "escrow_waiting"
    ]
    entry = escrow_ledger.get(world.db, "a" * 12)
    assert entry is not None
    with world.db.transaction():
        escrow_ledger.reject(world.db, entry, "ada", "too much", at=NOW)
        escrow_ledger.expire(world.db, at=NOW)
    found = world.survey()
    assert found.escrow == ()
    assert Condition.ESCROW_WAITING not in [cause.condition for cause in found.judgement.causes]
    values = metrics.read(world.db)
    assert values["kloros_escrow_total", 'status="rejected"'] == values["kloros_escrow_total", 'status="expired"'] == 1


def test_the_labels_are_those_that_the_lifecycle_has() -> None:
    (family,) = [one for one in metrics.FAMILIES if one.name == "kloros_escrow_total"]
    assert {labels for _, labels in family.series} == {f'status="{one}"' for one in Status if one is not Status.PENDING}


def test_the_textfile_tells_what_waits_and_since_when(world: Seeded) -> None:
    world.tick(NOW)
    hold(world, "a" * 12, 30)
    hold(world, "b" * 12, 2)
    commit(world, 3, rate=1)
    publish(world.settings, world.db, NOW)
    lines = (world.home / "kloros.prom").read_text().splitlines()
    assert "kloros_escrow_pending 2.0" in lines
    assert f"kloros_escrow_oldest_timestamp_seconds {(NOW - 30 * HOUR).timestamp()!r}" in lines
    assert "kloros_baseline_version 1.0" in lines
    assert 'kloros_health_condition{condition="escrow_waiting"} 1.0' in lines
    assert json.loads((world.home / "latest.json").read_text())["queues"]["escrow_pending"] == 2


def test_a_version_is_undecided_until_it_has_a_verdict(world: Seeded) -> None:
    commit(world, 50, rate=0.01)
    commit(world, 40, rate=0.02)
    found = world.survey().baseline
    assert found is not None
    assert (found.version.version, found.verdict, found.last) == (2, "undecided", None)
    assert (found.results, found.needed) == (0, 3)


def phase(world: Seeded, version: int, result: float) -> None:
    """Let a PHASE run and be measured while a version is in force."""
    number = world.cycle(CycleState.SUCCEEDED, job=JobName.PHASE)
    verdicts.note_result(world.db, number, phase_type="DEEP", measure="fitness", value=result)
    assert verdicts.version_of(world.db, number) == version


def test_an_undecided_version_says_how_many_results_there_are(world: Seeded) -> None:
    commit(world, 50, rate=0.01)
    for _ in range(3):
        phase(world, 1, 0.5)
    commit(world, 40, rate=0.02)
    phase(world, 2, 0.6)
    phase(world, 2, 0.7)
    found = world.survey().baseline
    assert found is not None
    assert (found.verdict, found.results, found.needed) == ("undecided", 2, 3)


@pytest.mark.parametrize("verdict", Verdict)
def test_the_verdict_is_told_with_its_numbers_and_counted(world: Seeded, verdict: Verdict) -> None:
    commit(world, 50, rate=0.01)
    conclude(world, 1, verdict, -0.08)
    shown = as_json(world.survey())["baseline"]
    assert shown["verdict"] == verdict
    assert shown["last_verdict"] == {
        "version": 1,
        "verdict": verdict,
        "before": [0.7, 0.8, 0.9],
        "after": [0.6, 0.5, 0.7],
        "change": -0.08,
        "reason": "-8% in the median of 3 PHASEs",
        "decided_at": "2026-11-21T10:00:20.000000Z",
    }
    conclude(world, 1, verdict, -0.08)
    assert metrics.read(world.db)["kloros_baseline_verdicts_total", f'verdict="{verdict}"'] == 1, "a verdict is final"
    (family,) = [one for one in metrics.FAMILIES if one.name == "kloros_baseline_verdicts_total"]
    assert {labels for _, labels in family.series} == {f'verdict="{one}"' for one in Verdict}


def test_an_automatic_rollback_is_a_condition_for_a_day(world: Seeded) -> None:
    commit(world, 50, rate=0.01)
    commit(world, 40, rate=0.02)
    conclude(world, 1, Verdict.WORSE, -0.2)
    conclude(world, 2, Verdict.ROLLED_BACK, -0.08, hours_ago=24)
    commit(world, 24, rate=0.01)
    found = world.survey()
    (cause,) = [cause for cause in found.judgement.causes if cause.condition is Condition.BASELINE_ROLLED_BACK]
    assert cause.evidence == "version 2 was rolled back automatically: -8% in the median of 3 PHASEs"
    assert cause.since == NOW - 24 * HOUR
    assert found.baseline is not None
    assert (found.baseline.version.version, found.baseline.verdict) == (3, "undecided")
    assert found.baseline.last is not None
    assert found.baseline.last.version == 2
    later = world.survey(NOW + timedelta(seconds=1))
    assert Condition.BASELINE_ROLLED_BACK not in [cause.condition for cause in later.judgement.causes]


def test_the_newest_phase_tells_what_it_was_advised(world: Seeded) -> None:
    number = world.cycle(CycleState.RUNNING, job=JobName.PHASE)
    advise(world, number)
    found = world.survey().advice
    assert found is not None
    assert (found.cycle, found.phase_type, found.rationale) == (number, "LIGHT", "LIGHT was never tried.")


def test_a_phase_without_hints_has_no_advice(world: Seeded) -> None:
    number = world.cycle(CycleState.SUCCEEDED, job=JobName.PHASE)
    advise(world, number)
    world.cycle(CycleState.SUCCEEDED, job=JobName.PHASE)
    assert world.survey().advice is None


def test_a_document_lists_so_many_and_counts_all(world: Seeded) -> None:
    for number in range(parameters.MOST_HELD + 3):
        hold(world, f"{number:012x}", 1)
    found = world.survey()
    assert len(found.escrow) == parameters.MOST_HELD
    assert next(one.count for one in found.queues if one.name == "escrow") == parameters.MOST_HELD + 3
