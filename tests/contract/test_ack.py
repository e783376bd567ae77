"""A promotion is answered once, in a file that is whole or not there; the store counts each thing once."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.promotions import ledger
from orchestration.promotions.ack import Ack, answered_elsewhere, write_ack
from orchestration.promotions.state import PromotionState
from orchestration.store.port import Database

NOW = datetime(2026, 11, 21, 3, 0, 0, 900_000, tzinfo=UTC)
ACK = Ack(
    stem="p",
    promotion_id="dream:p",
    accepted=True,
    reason="better",
    phase_epoch="phase_cycle_20261121_080000",
    phase_sha="ab" * 32,
    cycle=42,
    at=NOW,
)


@pytest.fixture
def db(kernel_db: Database) -> Database:
    return kernel_db


def test_an_accepted_promotion_s_ack(tmp_path: Path) -> None:
    assert write_ack(str(tmp_path / "acks"), ACK)

    assert json.loads((tmp_path / "acks" / "p_ack.json").read_text()) == {
        "promotion_id": "dream:p",
        "accepted": True,
        "phase_epoch": "phase_cycle_20261121_080000",
        "phase_sha": "ab" * 32,
        "ts": int(NOW.timestamp()),
        "schema": "v1",
        "cycle": 42,
    }


def test_a_rejected_one_says_why(tmp_path: Path) -> None:
    rejected = replace(ACK, accepted=False, reason="fitness: -1 is below 0", cycle=None, phase_epoch="", phase_sha="")

    write_ack(str(tmp_path), rejected)

    content = json.loads((tmp_path / "p_ack.json").read_text())
    assert content["accepted"] is False
    assert content["rejection_reason"] == "fitness: -1 is below 0"
    assert content["cycle"] is None


def test_an_ack_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "p_ack.json").write_text("whoever wrote this")

    assert not write_ack(str(tmp_path), ACK)

    assert (tmp_path / "p_ack.json").read_text() == "whoever wrote this"
    assert [path.name for path in tmp_path.iterdir()] == ["p_ack.json"]


def test_an_ack_that_exists_is_not_written_anew_to_be_told_so(tmp_path: Path) -> None:
    """A tick killed among thousands of acks must come further each time; writing syncs a file and the folder."""
    assert write_ack(str(tmp_path), ACK)
    before = tmp_path.stat().st_mtime_ns
    assert not write_ack(str(tmp_path), ACK)
    assert tmp_path.stat().st_mtime_ns == before, "something was written beside it"


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    gate_out, gate_in = os.pipe()
    children = []
    for cycle in range(8):
        child = os.fork()
        if child == 0:
            os.read(gate_out, 1)  # all start together
            os._exit(1 if write_ack(str(tmp_path), replace(ACK, cycle=cycle)) else 0)
        children.append(child)
    os.write(gate_in, b"x" * len(children))
    won = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(gate_in)
    os.close(gate_out)

    assert sum(won) == 1
    assert json.loads((tmp_path / "p_ack.json").read_text())["cycle"] == won.index(1)
    assert [path.name for path in tmp_path.iterdir()] == ["p_ack.json"]


def test_the_longest_name_that_the_scan_lets_through_can_be_acked(tmp_path: Path) -> None:
    assert write_ack(str(tmp_path), replace(ACK, stem="x" * 246))


@pytest.mark.parametrize(
    ("existing", "elsewhere"),
    [
        (None, False),
        ('{"promotion_id": "p", "cycle": 42}', False),
        ('{"promotion_id": "p", "cycle": 41}', True),
        ('{"promotion_id": "p", "cycle": null}', True),
        ('{"promotion_id": "p"}', True),
        ("[42]", True),
        ("{", True),
    ],
)
def test_an_answer_that_this_cycle_did_not_give_is_told_apart(tmp_path: Path, existing: str | None, elsewhere: bool) -> None:
    if existing is not None:
        (tmp_path / "p_ack.json").write_text(existing)

    assert answered_elsewhere(str(tmp_path), "p", cycle=42) is elsewhere


def see(db: Database, *stems: str) -> None:
    for stem in stems:
        ledger.see(db, stem, promotion_id=f"id:{stem}", fitness=0.5, at=NOW)


def fail(db: Database, cycle: int, *stems: str) -> int:
    return ledger.fail(db, stems, cycle=cycle, reason=f"cycle {cycle} failed", park_after=3, at=NOW)


def answer(db: Database, stem: str, *, accepted: bool = True, cycle: int | None = 9) -> bool:
    return ledger.answer(
        db,
        stem,
        promotion_id=f"id:{stem}",
        accepted=accepted,
        reason="why",
        fitness=0.6,
        cycle=cycle,
        at=NOW + timedelta(minutes=1),
    )


def state(db: Database, stem: str) -> tuple[str, int]:
    found = ledger.known(db, [stem])[stem]
    return found.state.value, found.failures


def test_failures_in_a_row_park_a_promotion_and_only_it(db: Database) -> None:
    see(db, "p", "q")

    assert [fail(db, cycle, "p", "never seen") for cycle in (1, 2)] == [1, 1]
    assert state(db, "p") == ("unacked", 2)
    fail(db, 3, "p")

    assert state(db, "p") == ("parked", 3)
    assert state(db, "q") == ("unacked", 0)
    assert [one.stem for one in ledger.parked(db)] == ["p"]
    assert ledger.parked(db)[0].reason == "cycle 3 failed"


def test_one_cycle_counts_once(db: Database) -> None:
    see(db, "p")

    assert [fail(db, 1, "p"), fail(db, 1, "p")] == [1, 0]

    assert state(db, "p") == ("unacked", 1)


def test_seeing_it_again_forgets_no_failure(db: Database) -> None:
    see(db, "p")
    fail(db, 1, "p")
    see(db, "p")
    ledger.see(db, "p", promotion_id="renamed", fitness=0.7, at=NOW)

    assert state(db, "p") == ("unacked", 1)
    assert ledger.known(db, ["p"])["p"].promotion_id == "renamed"


def test_a_person_lets_a_parked_one_go_again(db: Database) -> None:
    see(db, "p")
    assert not ledger.retry(db, "p", at=NOW)
    for cycle in (1, 2, 3):
        fail(db, cycle, "p")

    assert ledger.retry(db, "p", at=NOW)

    assert state(db, "p") == ("unacked", 0)


@pytest.mark.parametrize("accepted", [True, False])
def test_an_answer_is_recorded_once(db: Database, accepted: bool) -> None:
    see(db, "p")

    assert answer(db, "p", accepted=accepted)
    assert not answer(db, "p", accepted=not accepted)

    found = ledger.known(db, ["p"])["p"]
    assert found.state is (PromotionState.ACCEPTED if accepted else PromotionState.REJECTED)
    assert (found.cycle, found.fitness, found.reason) == (9, 0.6, "why")
    assert found.first_seen_at == NOW


def test_a_malformed_file_that_was_never_seen_can_be_answered(db: Database) -> None:
    assert answer(db, "p", accepted=False, cycle=None)
    assert state(db, "p") == ("rejected", 0)


def test_a_person_may_reject_a_parked_one(db: Database) -> None:
    see(db, "p")
    for cycle in (1, 2, 3):
        fail(db, cycle, "p")

    assert answer(db, "p", accepted=False, cycle=None)
    assert ledger.parked(db) == []


def test_an_answered_promotion_that_has_no_ack_any_more_is_unacked_again(db: Database) -> None:
    answer(db, "p")

    see(db, "p")

    assert state(db, "p") == ("unacked", 0)
    assert fail(db, 10, "p") == 1


def test_an_answered_one_is_not_failed_by_a_late_cycle(db: Database) -> None:
    answer(db, "p")

    assert fail(db, 10, "p") == 0
    assert state(db, "p") == ("accepted", 0)


def test_counts_and_the_newest(db: Database) -> None:
    see(db, "p", "q")
    answer(db, "q")

    assert ledger.counts(db) == {
        PromotionState.UNACKED: 1,
        PromotionState.ACCEPTED: 1,
        PromotionState.REJECTED: 0,
        PromotionState.PARKED: 0,
    }
    assert [one.stem for one in ledger.recent(db, limit=1)] == ["q"]
