"""Reads `loop_health` from a tree of bare `cycle_NNNNN` folders, with no store: what the folders say, and no more."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from orchestration import __version__
from orchestration.cycles import artifacts, telemetry
from orchestration.cycles.cycle import ACTIVE, CycleState, JobName
from orchestration.errors import Usage
from orchestration.promotions.scan import read_regular
from orchestration.pulse import evidence, health, tails
from orchestration.pulse.bare import line_of
from orchestration.pulse.health import Condition, Judgement, Signs
from orchestration.pulse.loop_health import CycleLine, Failure, LoopHealth
from orchestration.pulse.summary import NEWEST, Ended, summarise, totals_of

_FOLDER: Final = re.compile(r"cycle_([0-9]{1,15})")
_LARGEST_MANIFEST: Final = 16 << 20
_UNSUCCESSFUL: Final = (CycleState.FAILED, CycleState.TIMED_OUT, CycleState.LOST)


def survey_tree(folder: str, now: datetime, *, cycles: int = 50, failures: int = 5) -> LoopHealth:
    """Read the `cycle_NNNNN` folders in a folder; a missing or damaged manifest is told of its cycle, never raised.

    Args:
        now: aware UTC. cycles, failures: at most so many of the newest.

    Raises:
        Usage: the folder itself can't be read.
    """
    places = dict(_folders(folder))
    lines = list(_lines(places))
    shown = lines[:cycles]
    return LoopHealth(
        generated_at=now,
        host="",
        version=__version__,
        state_dir=os.path.abspath(folder),
        judgement=_judge(lines, now),
        mode=None,
        last_tick=None,
        active=tuple(line for line in reversed(lines) if line.state in ACTIVE),
        time_zone="UTC",
        open_window=None,
        next_window=None,
        heartbeat=None,
        cycles=tuple(shown),
        failures=tuple(
            Failure(line=line, tail=_tail(places[line.cycle]))
            for line in [one for one in lines if one.state in _UNSUCCESSFUL][:failures]
        ),
        summary=summarise(
            [Ended(state, line.seconds, line.series) for line in lines if (state := _finished(line))][:NEWEST],
            totals_of((job, state, number) for (job, state), number in _count(lines).items()),
            # A folder without a manifest does not say how its cycle ended, and its telemetry says what it measured.
            measured=[line.series for line in lines if line.state not in ACTIVE][:NEWEST],
        ),
        phase_dates=(),
        queues=(),
        parked=(),
        backoffs=(),
        escrow=(),
        baseline=None,
        advice=None,
        threads=None,
        wakes=None,
        damaged_lines=sum(line.damaged_lines for line in shown),
    )


def _lines(places: Mapping[int, str]) -> Iterator[CycleLine]:
    """Give every cycle, newest first; telemetry only of those that figures are made of."""
    for position, (number, path) in enumerate(places.items()):
        measured = telemetry.read(path) if position < NEWEST else telemetry.NOTHING
        series = {name: figures.last for name, figures in measured.series.items()}
        yield line_of(number, _manifest(path), series, measured.damaged)


def _folders(folder: str) -> list[tuple[int, str]]:
    """Return numbers and paths, the greatest number first; of two folders of one number the first by name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name for entry in entries if entry.is_dir(follow_symlinks=False)), reverse=True)
    except OSError as error:
        raise Usage(f"{folder} can't be read: {error.strerror}", hint="name a folder of cycle_NNNNN folders") from error
    numbers = {int(match[1]): os.path.join(folder, name) for name in found if (match := _FOLDER.fullmatch(name))}
    return sorted(numbers.items(), reverse=True)


def _manifest(path: str) -> bytes | None:
    try:
        data, _ = read_regular(os.path.join(path, "manifest.json"), limit=_LARGEST_MANIFEST)
    except OSError:
        return None
    return data  # of one that is too long a part, which is no JSON


def _tail(path: str) -> str:
    found = tails.tail(artifacts.output_path(path))
    return "" if found is None else found.text


def _finished(line: CycleLine) -> CycleState | None:
    return line.state if isinstance(line.state, CycleState) and line.state not in ACTIVE else None


def _count(lines: list[CycleLine]) -> Counter[tuple[str, str]]:
    return Counter((str(line.job), str(line.state)) for line in lines if line.state not in ACTIVE)


def _judge(lines: list[CycleLine], now: datetime) -> Judgement:
    """Judge what folders can tell; whether anything still runs they can't, so the verdict is never better than `unknown`."""
    phases = [line for line in lines if line.job == JobName.PHASE and _finished(line)]
    dreams = [line for line in lines if line.job == JobName.DREAM and _finished(line)]
    signs = Signs(
        now=now,
        last_tick_at=None,
        last_attempt_at=None,
        tick_exits=(),
        contentions=0,
        iteration_at=None,
        loop_failure_limit=False,
        archives_stale=False,
        active_cycle=None,
        active_deadline=None,
        phase_date=None,
        phase_result=None,
        phase_reason=None,
        phase_ends=tuple(str(line.state) for line in phases[: evidence.PHASE_FAILURES]),
        phase_seconds=tuple(line.seconds for line in phases if line.state == "succeeded" and line.seconds is not None)[:15],
        dream_ends=tuple(str(line.state) for line in dreams[:10] if _is_within(line, now, evidence.DREAM_WITHIN)),
        lost=sum(line.state is CycleState.LOST and _is_within(line, now, evidence.LOST_WITHIN) for line in lines),
        promotions_unacked=0,
        promotions_parked=0,
        bridge=None,
        wake=None,
        escrow_pending=0,
        escrow_since=None,
        escrow_expires=None,
        rolled_back=None,
        intents_pending=0,
        intents_max=1,
        intents_dropped=0,
        urgent=(),
        federation_since=None,
        disk_free=None,
        disk_low_below=0,
    )
    judged = health.judge(signs, {})
    return judged._replace(causes=tuple(map(_as_told_by_folders, judged.causes)))


def _as_told_by_folders(cause: health.Cause) -> health.Cause:
    if cause.condition is not Condition.NO_TICK_YET:
        return cause
    told = "these are bare folders, without a store: whether anything still runs is not known"
    return cause._replace(evidence=told, advice="klorosctl status")


def _is_within(line: CycleLine, now: datetime, span: timedelta) -> bool:
    return line.recorded_at is not None and line.recorded_at >= now - span
