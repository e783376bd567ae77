"""The epoch's name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.phase.epoch import epoch_id

instants = st.datetimes(timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("at", "name"),
    [
        (datetime(2026, 3, 8, 7, 5, 9, 999_999, tzinfo=UTC), "phase_cycle_20260308_070509"),
        (datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), "phase_cycle_20251231_233000"),
        (datetime(985, 1, 2, 3, 4, 5, tzinfo=UTC), "phase_cycle_09850102_030405"),
    ],
)
def test_an_epoch_is_named_by_its_second_in_utc(at: datetime, name: str) -> None:
    assert epoch_id(at) == name


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        epoch_id(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


@given(instants, instants)
def test_names_sort_as_the_instants_do(one: datetime, other: datetime) -> None:
    first, second = sorted([one, other])
    assert epoch_id(first) <= epoch_id(second)
