"""When room on a disk counts as low."""

from __future__ import annotations

import pytest

from orchestration.host.disk import Room

GIB = 1024**3


@pytest.mark.parametrize(
    ("free", "total", "below", "low"),
    [
        (10 * GIB - 1, 500 * GIB, 10 * GIB, True),
        (10 * GIB, 500 * GIB, 10 * GIB, False),
        (3 * GIB, 20 * GIB, 10 * GIB, False),
        (2 * GIB - 1, 20 * GIB, 10 * GIB, True),
        (0, 20 * GIB, 0, False),
    ],
)
def test_the_smaller_of_what_is_set_and_a_tenth_counts(free: int, total: int, below: int, low: bool) -> None:
    assert Room(free, total).is_low(below) is low
