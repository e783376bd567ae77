"""`loop_health` on the wire: `data/dashboard.json`, `/api/v1/health`, `klorosctl status --json`. Pure.

The form is in docs/reference/loop-health.md; a test compares the two. Instants as `store/instants.py` writes
them, durations in seconds. What is not known is null.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, Final, TypeVar

from orchestration.baseline import version
from orchestration.pulse import health, scope_document
from orchestration.pulse.loop_health import (
    Advice,
    AwaitedReader,
    CycleLine,
    Failure,
    Heartbeat,
    Held,
    LoopHealth,
    Parameters,
    Parked,
    PhaseLine,
    Queue,
    Stretch,
    Summary,
    ThreadLine,
    Threads,
    TickLine,
    Tried,
    TriggerLine,
    Waiting,
    Wakes,
    WindowLine,
)
from orchestration.store.instants import to_text

SCHEMA: Final = "v1"
_T = TypeVar("_T")
_Written = TypeVar("_Written")


def as_json(shown: LoopHealth) -> dict[str, Any]:
    """Write the document; JSON-serializable as it is."""
    return {
        "schema": SCHEMA,
        "generated_at": to_text(shown.generated_at),
        "host": shown.host,
        "version": shown.version,
        "state_dir": shown.state_dir,
        **health.as_json(shown.judgement),
        "mode": shown.mode,
        "last_tick": _or_null(shown.last_tick, tick),
        "active": [cycle(line) for line in shown.active],
        "window": {
            "time_zone": shown.time_zone,
            "open": _or_null(shown.open_window, _window),
            "next": _or_null(shown.next_window, _window),
        },
        "heartbeat": _or_null(shown.heartbeat, _heartbeat),
        "cycles": [cycle(line) for line in shown.cycles],
        "failures": [_failure(failure) for failure in shown.failures],
        "summary": _summary(shown.summary, shown.cycles[0].cycle if shown.cycles else None),
        "phase_dates": [phase_date(day) for day in shown.phase_dates],
        "queues": {queue.name: _queue(queue) for queue in shown.queues},
        "parked": [_parked(one) for one in shown.parked],
        "backoffs": [_waiting(one) for one in shown.backoffs],
        "escrow": [held(one) for one in shown.escrow],
        "baseline": _or_null(shown.baseline, baseline),
        "advice": _or_null(shown.advice, _advice),
        "threads": _or_null(shown.threads, threads),
        "wakes": _or_null(shown.wakes, wakes),
        "scope": _or_null(shown.scope, scope_document.as_json),
        "damaged_lines": shown.damaged_lines,
    }


def cycle(line: CycleLine) -> dict[str, Any]:
    """Write one cycle of a list."""
    return {
        "cycle": line.cycle,
        "job": line.job,
        "result": line.state,
        "cause": line.cause,
        "phase_date": _or_null(line.phase_date, date.isoformat),
        "queued_at": _text(line.queued_at),
        "start": _text(line.started_at),
        "duration": line.seconds,
        "timeout": line.timeout_seconds,
        "recorded_at": _text(line.recorded_at),
        "reason": line.reason,
        "series": dict(line.series),
        "damaged_lines": line.damaged_lines,
    }


def tick(line: TickLine) -> dict[str, Any]:
    """Write one tick of a list."""
    return {
        "tick": line.tick,
        "tick_id": line.tick_id,
        "started_at": to_text(line.started_at),
        "decision": line.decision,
        "exit_code": line.exit_code,
        "cycle": line.cycle,
        "reasons": [{"rule": rule, "reason": reason, "evidence": evidence} for rule, reason, evidence in line.findings],
    }


def phase_date(day: PhaseLine) -> dict[str, Any]:
    """Write what became of one local date."""
    return {
        "date": day.date.isoformat(),
        "result": day.result,
        "reason": day.reason,
        "evidence": day.evidence,
        "cycle": day.cycle,
        "opens_at": to_text(day.opens),
        "closes_at": to_text(day.closes),
    }


def held(one: Held) -> dict[str, Any]:
    """Write one change that waits for a person."""
    return {
        "entry": one.entry,
        "subject": one.subject,
        "changes": [version.difference(each) for each in one.changes],
        "rule": one.rule,
        "emitted_by": one.emitted_by,
        "cycle": one.cycle,
        "since": to_text(one.since),
        "expires_at": _text(one.expires),
    }


def baseline(shown: Parameters) -> dict[str, Any]:
    """Write the version in force, and the newest verdict."""
    return {
        **version.origin(shown.version),
        "sha256": shown.version.sha256,
        "parameters": dict(shown.version.parameters),
        "verdict": shown.verdict,
        "results": shown.results,
        "results_needed": shown.needed,
        "last_verdict": _or_null(shown.last, tried),
    }


def tried(one: Tried) -> dict[str, Any]:
    """Write what PHASE results said of a version."""
    return {
        "version": one.version,
        "verdict": one.verdict,
        "before": list(one.before),
        "after": list(one.after),
        "change": one.change,
        "reason": one.reason,
        "decided_at": to_text(one.at),
    }


def threads(shown: Threads) -> dict[str, Any]:
    """Write how the threads of agents stand."""
    return {
        "told_at": to_text(shown.told_at),
        "serving": shown.serving,
        "totals": dict(shown.totals),
        "unread": dict(shown.unread),
        "escalations": dict(shown.escalations),
        "behind": shown.behind,
        "waits": [_awaited(one) for one in shown.waits],
        "newest": [_thread(one) for one in shown.lines],
    }


def wakes(shown: Wakes) -> dict[str, Any]:
    """Write how the waking of agents stands."""
    return {
        "told_at": to_text(shown.told_at),
        "serving": shown.serving,
        "holder": shown.holder,
        "funnel": dict(shown.funnel),
        "open": shown.open,
        "triggers": [_trigger(one) for one in shown.lines],
    }


def _trigger(one: TriggerLine) -> dict[str, Any]:
    return {
        "trigger_id": one.trigger_id,
        "thread_id": one.thread_id,
        "agent_id": one.agent_id,
        "status": one.status,
        "outcome": one.outcome,
        "code": one.code,
        "attempts": one.attempts,
        "deferrals": one.deferrals,
        "created_at": to_text(one.created_at),
        "ended_at": _text(one.ended_at),
    }


def _awaited(one: AwaitedReader) -> dict[str, Any]:
    return {
        "thread_id": one.thread_id,
        "status": one.status,
        "agent_id": one.agent_id,
        "sender": one.sender,
        "since": to_text(one.since),
        "traceparent": one.traceparent,
    }


def _thread(one: ThreadLine) -> dict[str, Any]:
    return {
        "thread_id": one.thread_id,
        "workspace_id": one.workspace_id,
        "title": one.title,
        "status": one.status,
        "reason": one.reason,
        "last_seq": one.last_seq,
        "updated_at": to_text(one.updated_at),
        "participants": [
            {
                "agent_id": seat.agent_id,
                "last_read_seq": seat.last_read_seq,
                "unread": seat.unread,
                "heartbeat_at": _text(seat.heartbeat_at),
                "session": seat.session,
            }
            for seat in one.participants
        ],
    }


def _advice(advice: Advice) -> dict[str, Any]:
    return {"cycle": advice.cycle, "phase_type": advice.phase_type, "rationale": advice.rationale}


def _window(window: WindowLine) -> dict[str, Any]:
    return {"date": window.date.isoformat(), "opens_at": to_text(window.opens), "closes_at": to_text(window.closes)}


def _heartbeat(heartbeat: Heartbeat) -> dict[str, Any]:
    return {
        "start": to_text(heartbeat.start),
        "minutes": heartbeat.minutes,
        "stretches": [_stretch(one) for one in heartbeat.stretches],
        "gaps": [_stretch(one) for one in heartbeat.gaps],
    }


def _stretch(stretch: Stretch) -> dict[str, Any]:
    return {
        "beat": stretch.beat,
        "start": to_text(stretch.start),
        "minutes": stretch.minutes,
        "evidence": stretch.evidence,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {**cycle(failure.line), "tail": failure.tail}


def _summary(summary: Summary, latest: int | None) -> dict[str, Any]:
    return {
        "totals": {job: dict(states) for job, states in summary.totals.items()},
        "latest": latest,
        "over": summary.over,
        "success_rate": summary.success_rate,
        "streak": {"result": summary.streak_state, "length": summary.streak},
        "mean_duration": summary.mean_seconds,
        "p95_duration": summary.p95_seconds,
        "means": dict(summary.means),
    }


def _queue(queue: Queue) -> dict[str, Any]:
    return {"count": queue.count, "oldest": _text(queue.oldest)}


def _parked(parked: Parked) -> dict[str, Any]:
    return {"promotion": parked.stem, "failures": parked.failures, "reason": parked.reason, "since": to_text(parked.since)}


def _waiting(waiting: Waiting) -> dict[str, Any]:
    return {"job": waiting.job, "failures": waiting.failures, "until": to_text(waiting.until)}


def _text(instant: datetime | None) -> str | None:
    return _or_null(instant, to_text)


def _or_null(value: _T | None, write: Callable[[_T], _Written]) -> _Written | None:
    return None if value is None else write(value)
