"""What is told, when, and what is held back: deduplication, recovery, flapping, the rate limit, and notices on their way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestration.cycles.backoff import Backoff
from orchestration.exits import Exit
from orchestration.pulse.health import RULES, Cause, Condition, Verdict
from orchestration.pulse.notice import (
    BRIDGE,
    CYCLES,
    HEALTH,
    LOOP,
    PULSE,
    RUNBOOKS,
    TICKS,
    News,
    Notice,
    Place,
    Rules,
    Seen,
    Severity,
    Standing,
    UnitFailure,
    attempted,
    consider,
    due,
    next_look,
    put_out,
)

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOW = Rules(per_hour=3, settle=5 * MINUTE, backoff=Backoff((MINUTE, 5 * MINUTE)))
HERE = Place(host="ada", zone="America/New_York")


def cause(condition: Condition) -> Cause:
    (rule,) = [rule for rule in RULES if rule.condition is condition]
    return Cause(condition, rule.verdict, NOW - MINUTE, f"evidence of {condition}", rule.advice)


class Story:
    """Looks one after another, each at its minute."""

    def __init__(self) -> None:
        self.standing = Standing()
        self.news = News(standing=self.standing, notices=(), done=())

    def look(
        self,
        minute: float,
        *conditions: Condition,
        failures: tuple[UnitFailure, ...] = (),
        last_tick: float | None = None,
        last: tuple[str, float] | None = None,
    ) -> list[str]:
        """Look, and return the titles of what is told. `last`: a unit, and the minute when it last did well."""
        last = last if last_tick is None else (TICKS, last_tick)
        self.seen = Seen(
            now=NOW + minute * MINUTE,
            causes=[cause(condition) for condition in conditions],
            failures=failures,
            well_at={} if last is None else {last[0]: NOW + last[1] * MINUTE},
        )
        self.news = consider(self.standing, self.seen, HOW, HERE)
        self.standing = self.news.standing
        return [notice.title for notice in self.news.notices]

    @property
    def next_look(self) -> float | None:
        at = next_look(self.standing, self.seen, HOW)
        return None if at is None else (at - NOW) / MINUTE


@pytest.fixture
def story() -> Story:
    return Story()


def test_all_well_is_no_news(story: Story) -> None:
    assert story.look(0) == []
    assert story.next_look is None


def test_a_condition_is_told_once(story: Story) -> None:
    assert story.look(0, Condition.TICK_FAILING) == ["ada: KLoROS is failing: tick_failing"]
    assert [story.look(minute, Condition.TICK_FAILING) for minute in (1, 60, 6000)] == [[], [], []]
    assert story.next_look is None


def test_another_condition_is_news_also_where_the_verdict_stays(story: Story) -> None:
    story.look(0, Condition.DISK_LOW)
    assert story.look(1, Condition.CYCLE_LOST, Condition.DISK_LOW) == ["ada: KLoROS is degraded: cycle_lost"]
    (notice,) = story.news.notices
    assert "cycle_lost (new): evidence of cycle_lost" in notice.body
    assert "\ndisk_low: evidence of disk_low" in notice.body


def test_recovery_is_told_when_it_has_lasted(story: Story) -> None:
    story.look(0, Condition.TICK_STALE)
    assert story.look(1) == []
    assert story.next_look == 6, "five minutes after a look first found it gone"
    assert story.look(5.9) == []
    assert story.look(6) == ["ada: KLoROS is ok again"]
    assert story.news.notices[0].severity is Severity.SUCCESS
    assert "tick_stale" in story.news.notices[0].body
    assert story.look(7) == []
    assert story.next_look is None


def test_what_flaps_is_told_once(story: Story) -> None:
    told = [story.look(minute, *([Condition.LOCK_CONTENTION] if minute % 2 == 0 else [])) for minute in range(40)]
    assert [titles for titles in told if titles] == [["ada: KLoROS is degraded: lock_contention"]]
    assert story.look(44) == ["ada: KLoROS is ok again"]


def test_a_verdict_that_is_less_bad_is_told_when_that_has_lasted(story: Story) -> None:
    story.look(0, Condition.TICK_FAILING, Condition.DISK_LOW)
    assert story.look(1, Condition.DISK_LOW) == []
    assert story.look(6, Condition.DISK_LOW) == ["ada: KLoROS is degraded, no longer failing"]


def test_fewer_conditions_under_the_same_verdict_are_no_news(story: Story) -> None:
    story.look(0, Condition.CYCLE_LOST, Condition.DISK_LOW)
    assert [story.look(minute, Condition.DISK_LOW) for minute in (1, 6, 60)] == [[], [], []]
    assert story.look(61, Condition.CYCLE_LOST, Condition.DISK_LOW) == ["ada: KLoROS is degraded: cycle_lost"], "news again"


def test_the_rate_limit_holds_news_back_and_tells_them_as_they_stand_then(story: Story) -> None:
    three = (Condition.DISK_LOW, Condition.CYCLE_LOST, Condition.MAINTENANCE)
    for minute, condition in enumerate(three):
        assert story.look(minute, *three[: minute + 1])[0].endswith(condition)
    assert "That was 3 within an hour; the next waits until 2026-11-21 04:00:00 EST" in story.news.notices[0].body
    assert story.look(10, Condition.TICK_FAILING, *three) == []
    assert story.next_look == 60
    assert story.look(59.9, Condition.DREAM_FAILING, *three) == []
    assert story.look(60, Condition.DREAM_FAILING, *three) == ["ada: KLoROS is failing: dream_failing"]


def test_a_clock_that_was_set_back_holds_nothing_up(story: Story) -> None:
    for minute, condition in enumerate((Condition.DISK_LOW, Condition.CYCLE_LOST, Condition.MAINTENANCE)):
        story.look(minute, condition)
    assert story.look(-5000, Condition.TICK_FAILING) != []


def test_the_text_says_what_where_why_and_what_to_do(story: Story) -> None:
    story.look(0, Condition.DISK_LOW)
    (notice,) = story.news.notices
    assert notice.subject == HEALTH
    assert notice.severity is Severity.WARNING
    assert notice.body.splitlines() == [
        "The verdict is degraded (ok before).",
        "",
        "disk_low: evidence of disk_low",
        "  since 2026-11-21 02:59:00 EST = 2026-11-21 07:59:00 UTC",
        "  do: klorosctl prune --dry-run",
        "  runbook: docs/runbooks/disk-full.md",
        "",
        "On ada, 2026-11-21 03:00:00 EST = 2026-11-21 08:00:00 UTC. How things stand: klorosctl status",
    ]


def test_a_failed_unit_is_told_with_the_meaning_of_its_exit_code(story: Story) -> None:
    failure = UnitFailure(unit=TICKS, result="exit-code", exit_status="78", ts=NOW.timestamp())
    assert story.look(0, failures=(failure,)) == [f"ada: {TICKS} failed"]
    assert story.news.done == (failure,)
    (notice,) = story.news.notices
    assert "(exit-code, exit status 78): the settings are invalid." in notice.body
    assert "do: klorosctl config check" in notice.body


def test_a_unit_that_a_kill_switch_ended_leads_to_the_page_of_the_kill_switch(story: Story) -> None:
    story.look(0, failures=(UnitFailure(unit=TICKS, exit_status=str(int(Exit.HALTED)), ts=NOW.timestamp()),))
    assert f"docs/runbooks/{RUNBOOKS[Condition.HALTED]}.md" in story.news.notices[0].body


def test_ticks_that_come_again_are_a_recovery(story: Story) -> None:
    story.look(0, failures=(UnitFailure(unit=TICKS, exit_status="69", ts=NOW.timestamp()),), last_tick=-1)
    assert story.look(6, last_tick=-1) == [], "none has decided since"
    assert story.look(7, last_tick=6.5) == ["ada: KLoROS ticks again"]
    assert story.look(8, last_tick=7.5) == []


@pytest.mark.parametrize(
    ("unit", "title"),
    [
        (LOOP, "the loop of KLoROS works again"),
        (CYCLES, "the runner of KLoROS works again"),
        (PULSE, "Pulse serves again"),
        (BRIDGE, "the bridge serves again"),
    ],
)
def test_a_unit_that_does_well_again_is_a_recovery(story: Story, unit: str, title: str) -> None:
    story.look(0, failures=(UnitFailure(unit=unit, exit_status="1", ts=NOW.timestamp()),), last=(unit, -1))
    assert story.next_look == 5
    assert story.look(4, last=(unit, 3)) == [], "not settled"
    assert story.look(6, last=(unit, -1)) == [], "it has not done well since"
    assert story.next_look == 11
    assert story.look(7, last=(TICKS, 6)) == [], "another unit has"
    assert story.look(70, last=(unit, -1)) == []
    assert story.next_look == 130, "after an hour it is asked for once an hour"
    assert story.look(71, last=(unit, 70.5)) == [f"ada: {title}"]
    assert f"; {unit} failed at 2026-11-21 03:00:00 EST" in story.news.notices[0].body
    assert story.look(72, last=(unit, 71)) == []
    assert not story.standing.units
    assert story.next_look is None


def test_a_unit_whose_recovery_nobody_can_see_is_not_remembered(story: Story) -> None:
    other = UnitFailure(unit="kloros-other.service", exit_status="1", ts=NOW.timestamp())
    assert story.look(0, failures=(other,)) == ["ada: kloros-other.service failed"]
    assert not story.standing.units
    assert story.next_look is None
    story.standing = Standing(units={other.unit: NOW})
    story.look(1)
    assert story.standing.units == {}, "as an earlier version noted it"


def test_a_failure_that_the_rate_limit_holds_back_is_not_done(story: Story) -> None:
    failures = tuple(UnitFailure(unit=f"unit{n}", exit_status="1", ts=NOW.timestamp()) for n in range(4))
    assert len(story.look(0, failures=failures)) == 3
    assert story.news.done == failures[:3]
    assert next_look(story.standing, story.seen, HOW, failures[3:]) == NOW + 60 * MINUTE


def notice(title: str, subject: str = HEALTH) -> Notice:
    return Notice(subject=subject, severity=Severity.WARNING, title=title, body="", made_at=NOW)


def test_a_notice_that_is_not_taken_is_tried_again_with_longer_waits_by_those_who_did_not() -> None:
    standing = put_out(Standing(), [notice("one")], ["a", "b"], NOW)
    assert [one.targets for one in due(standing, NOW)] == [("a", "b")]
    standing = attempted(standing, HEALTH, {"b": "line 2: not taken"}, NOW, HOW)
    assert due(standing, NOW + 0.9 * MINUTE) == []
    (waiting,) = due(standing, NOW + MINUTE)
    assert (waiting.targets, waiting.fault) == (("b",), "line 2: not taken")
    assert next_look(standing, Seen(now=NOW, causes=()), HOW) == NOW + MINUTE
    standing = attempted(standing, HEALTH, {"b": "line 2: not taken"}, NOW + MINUTE, HOW)
    assert standing.waiting[HEALTH].next_at == NOW + 6 * MINUTE
    assert due(standing, NOW - MINUTE), "a clock that was set back makes nobody wait"
    assert attempted(standing, HEALTH, {}, NOW, HOW).waiting == {}


def test_a_newer_notice_takes_the_place_of_one_that_could_not_be_delivered() -> None:
    standing = put_out(Standing(), [notice("old"), notice("unit", subject="unit")], ["a"], NOW)
    standing = put_out(standing, [notice("new")], ["a"], NOW)
    assert sorted(one.notice.title for one in due(standing, NOW)) == ["new", "unit"]


def test_nobody_to_tell_is_nothing_on_its_way() -> None:
    assert put_out(Standing(), [notice("one")], [], NOW).waiting == {}


def test_what_is_remembered_comes_back_whole(story: Story) -> None:
    story.look(0, Condition.TICK_STALE, failures=(UnitFailure(unit=TICKS, ts=NOW.timestamp()),))
    story.look(1)
    kept = put_out(story.standing, [notice("one")], ["a"], NOW)
    assert Standing.model_validate_json(kept.model_dump_json()) == kept


def test_every_runbook_that_a_notice_names_is_there() -> None:
    pages = Path(__file__).parents[2] / "docs" / "runbooks"
    assert [page for page in RUNBOOKS.values() if not (pages / f"{page}.md").exists()] == []


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.OK])
def test_every_verdict_has_a_condition_that_is_told(story: Story, verdict: Verdict) -> None:
    condition = next(rule.condition for rule in RULES if rule.verdict is verdict)
    assert story.look(0, condition) == [f"ada: KLoROS is {verdict}: {condition}"]


def test_what_another_host_of_the_scope_tells_from_now_on_is_neither_news_nor_over() -> None:
    """A leader that hands over must not say that all is well: the new leader tells what is not."""
    story = Story()
    story.look(0, Condition.PHASE_MISSED, Condition.DISK_LOW)
    elsewhere = frozenset({Condition.PHASE_MISSED})
    seen = Seen(now=NOW + 10 * MINUTE, causes=[cause(Condition.DISK_LOW)], elsewhere=elsewhere)
    news = consider(story.standing, seen, HOW, HERE)
    assert (news.notices, set(news.standing.told)) == ((), {Condition.DISK_LOW})
    well = consider(news.standing, Seen(now=NOW + 30 * MINUTE, causes=[], elsewhere=elsewhere), HOW, HERE)
    assert well.notices == (), "it has to be gone for a while"
    later = consider(well.standing, Seen(now=NOW + 40 * MINUTE, causes=[], elsewhere=elsewhere), HOW, HERE)
    assert [one.title for one in later.notices] == ["ada: KLoROS is ok again"]
    assert "phase_missed" not in later.notices[0].body
