"""What the notifier reads back of a judgement is what the tick judged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestration.pulse import signs
from orchestration.pulse.health import RULES, Condition, Judgement, Verdict
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def judged(condition: Condition, held: timedelta) -> Judgement:
    """Let a tick find a condition that has held so long, and read back what it judged."""
    db = SqliteDatabase(":memory:")
    signs.remember(db, Judgement(Verdict.OK, (), ((condition, NOW - held, f"evidence of {condition}"),)), ())
    found = signs.judged(db, NOW)
    db.close()
    return found


def test_every_condition_comes_back_with_its_verdict_and_advice() -> None:
    for rule in RULES:
        found = judged(rule.condition, rule.after)
        (cause,) = found.causes
        assert found.verdict is rule.verdict
        assert cause == (rule.condition, rule.verdict, NOW - rule.after, f"evidence of {rule.condition}", rule.advice)


def test_one_that_is_too_young_to_count_does_not() -> None:
    young = [rule for rule in RULES if rule.after]
    assert young
    for rule in young:
        assert judged(rule.condition, rule.after - MOMENT) == Judgement(Verdict.OK, (), ())
