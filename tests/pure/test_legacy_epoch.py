"""A line of the older ledger of PHASEs: which local date it answers, or why none."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.errors import Malformed
from orchestration.legacy.epoch import parse_epoch
from orchestration.phase.window import Window

NIGHT = Window(time(3), time(7), "America/New_York")
LATE = Window(time(22), time(2), "America/New_York")
NOW = datetime(2025, 11, 21, 20, tzinfo=UTC)


def at(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type,misc]  # year to second


@pytest.mark.parametrize(
    ("line", "window", "day"),
    [
        ({"epoch_id": "e", "date": "2025-11-20", "ts": at(2025, 11, 20, 9)}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "e", "date": "2025-11-20"}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "e", "ts": at(2025, 11, 20, 9)}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "e", "ts": at(2025, 11, 20, 9) * 1000}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "e", "ts": "2025-11-20T09:00:00+00:00"}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "e", "ts": at(2025, 11, 20, 1)}, NIGHT, date(2025, 11, 19)),  # no window: the local date
        ({"epoch_id": "phase_cycle_20251120_090000"}, NIGHT, date(2025, 11, 20)),
        ({"epoch_id": "20251120_090000_full"}, NIGHT, date(2025, 11, 20)),
        ({"date": "2025-11-20", "status": "success", "exit_code": 0}, NIGHT, date(2025, 11, 20)),
        # ended after midnight: the date on which the window opened, as ours are counted
        ({"epoch_id": "e", "date": "2025-11-20", "ts": at(2025, 11, 20, 6)}, LATE, date(2025, 11, 19)),
    ],
)
def test_the_date_it_answers(line: dict[str, object], window: Window, day: date) -> None:
    assert parse_epoch(json.dumps(line).encode(), window, NOW).day == day


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"epoch_id": "e", "da', "no JSON"),
        ("[1]", "no JSON object"),
        ('{"epoch_id": "e"}', "neither date nor time"),
        ('{"date": "2025-13-01"}', "no date"),
        ('{"ts": 1e300}', "no instant"),
        ('{"ts": true, "epoch_id": "e"}', "neither date nor time"),
        ('{"date": "2025-11-22"}', "to come"),
        ('{"date": "1970-01-01"}', "before there was any"),
        ('{"date": "2025-11-20", "success": false}', "did not succeed"),
        ('{"date": "2025-11-20", "status": "failed"}', "did not succeed"),
        ('{"date": "2025-11-20", "exit_code": 124}', "did not succeed"),
    ],
)
def test_why_it_answers_none(line: str, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_epoch(line.encode(), NIGHT, NOW)


@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_whatever_the_line_it_is_read_or_refused(line: object) -> None:
    try:
        parse_epoch(line if isinstance(line, bytes) else json.dumps(line).encode(), NIGHT, NOW)
    except Malformed as error:
        assert error.message  # noqa: PT017 - either is fine
