"""A cycle by its folder alone: a manifest of ours is read whole, and no other bytes break anything."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles import manifest
from orchestration.cycles.cycle import Cause, Cycle, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.products import Products
from orchestration.pulse.bare import line_of
from orchestration.pulse.document import cycle as as_json

AT = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
CYCLE = Cycle(
    cycle=CycleNumber(42),
    job=JobName.PHASE,
    state=CycleState.FAILED,
    token="t",
    origin=Origin(Cause.WINDOW, "20261121T080000Z-1a2b3c4d"),
    command=("true",),
    working_dir="",
    timeout=timedelta(hours=1),
    phase_date=date(2026, 11, 21),
    queued_at=AT,
    started_at=AT + timedelta(seconds=1),
    ended_at=AT + timedelta(seconds=31),
    settled_at=None,
    cancel_asked_at=None,
    runner=None,
    result=Result(reason="exit code 1", exit_code=1, wall_seconds=29.5),
)


def test_a_manifest_of_ours_says_what_the_store_would() -> None:
    line = line_of(42, manifest.to_bytes(CYCLE, Products()), {"joy": 0.5}, 3)
    assert (line.cycle, line.job, line.state, line.cause) == (42, JobName.PHASE, CycleState.FAILED, Cause.WINDOW)
    assert (line.phase_date, line.queued_at, line.started_at, line.recorded_at) == (
        CYCLE.phase_date,
        CYCLE.queued_at,
        CYCLE.started_at,
        CYCLE.ended_at,
    )
    assert (line.seconds, line.timeout_seconds, line.reason) == (30.0, 3600.0, "exit code 1")
    assert (line.series, line.damaged_lines) == ({"joy": 0.5}, 3)


@pytest.mark.parametrize("state", [CycleState.RUNNING, CycleState.LOST])
def test_how_long_one_took_that_nobody_saw_end_is_not_known(state: CycleState) -> None:
    assert line_of(1, manifest.to_bytes(CYCLE._replace(state=state), Products()), {}, 0).seconds is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "it has no manifest.json that can be read"),
        (b"", "its manifest.json is damaged: no JSON"),
        (b'{"cycle": 1,', "its manifest.json is damaged: no JSON"),
        (b"\xff\xfe\x00", "its manifest.json is damaged: no JSON"),
        (b"[" * 100_000, "its manifest.json is damaged: no JSON"),
        (b"[]", "its manifest.json is damaged: no JSON object"),
        (b"{}", "its manifest names no state that we know"),
        (b'{"state": ["failed"]}', "its manifest names no state that we know"),
    ],
)
def test_a_missing_or_damaged_manifest_is_told(content: bytes | None, reason: str) -> None:
    line = line_of(7, content, {}, 0)
    assert (line.state, line.job, line.reason) == ("unknown", "unknown", reason)


def test_another_job_keeps_its_name_made_harmless() -> None:
    assert line_of(7, b'{"job": "evolve\\u001b[2J", "state": "succeeded"}', {}, 0).job == "evolve\\x1b[2J"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["failed", "phase", "2026-11-21"]),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text(), inside, max_size=2),
    max_leaves=6,
)
fields = ("job", "state", "origin", "phase_date", "queued_at", "started_at", "ended_at", "timeout_seconds", "result")


@given(st.dictionaries(st.sampled_from(fields), values) | values)
def test_whatever_a_manifest_says_it_becomes_a_line_of_json(content: object) -> None:
    line = line_of(7, json.dumps(content).encode(), {}, 0)
    json.dumps(as_json(line), allow_nan=False).encode("ascii")


@given(st.binary())
def test_whatever_bytes_become_a_line(content: bytes) -> None:
    assert line_of(7, content, {}, 0).cycle == 7
