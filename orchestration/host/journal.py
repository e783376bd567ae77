"""What happened, said once: to journald with native fields, or to stderr.

Owns the names of our log events, their fixed message ids, and where a line goes; refuses to know what it
means for anybody. `journalctl -t kloros-orchestrator DECISION=PHASE` and `journalctl MESSAGE_ID=…` find them.

Where a line goes:
- journald answers and `systemd-python` is installed: native fields (sd_journal_send(3)), and on a terminal
  the readable line as well;
- otherwise stderr: a readable line on a terminal, else one JSON object per line.

It uses the binding's C half, `systemd._journal.sendv`: `systemd.journal` itself imports logging and uuid,
which costs 8 ms of CPU, a quarter of what a quiet tick may use in all. The record is built the same way as
there (`MESSAGE=…`, one string or bytes per field). Nothing here ever raises: a log line is no reason to fail.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Final

from orchestration.host import clock

SYSLOG_IDENTIFIER: Final = "kloros-orchestrator"
_SOCKET: Final = "/run/systemd/journal/socket"
_STDERR: Final = 2
_before_line = ""


class Priority(IntEnum):
    """syslog(3) levels, as journald keeps them; the lower the graver."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class Event(Enum):
    """What a log line reports; the value is its name in JSON lines and in the field EVENT."""

    TICK_COMPLETED = "tick.completed"
    TICK_IDLE = "tick.idle"
    TICK_FAILED = "tick.failed"
    LEASE_TAKEN = "lease.taken"  # this host leads its scope from now on
    LEASE_LOST = "lease.lost"  # in the middle of a tick: what it decided is not written
    LEASE_GIVEN_UP = "lease.given_up"  # yielded, disabled, halted, stopped
    TICK_REFUSED = "tick.refused"  # disabled, halted, or another tick holds the lock
    SETTINGS_REFUSED = "settings.refused"
    LEFTOVER_REAPED = "leftover.reaped"
    CYCLE_STARTED = "cycle.started"
    CYCLE_HELD = "cycle.held"  # waits for something that is not ours, such as Slurm
    CYCLE_ENDED = "cycle.ended"
    CYCLE_LOST = "cycle.lost"
    CYCLE_SETTLED = "cycle.settled"
    CYCLE_PRUNED = "cycle.pruned"
    CYCLE_PACKED = "cycle.packed"
    CYCLE_FEDERATED = "cycle.federated"
    RUNNER_IDLE = "runner.idle"  # nothing queued, or another runner is at it
    RUNNER_FAILED = "runner.failed"
    COMMAND_STARTED = "command.started"
    COMMAND_ENDED = "command.ended"
    LAUNCH_FAILED = "launch.failed"
    PHASE_MISSED = "phase.missed"
    HINTS_LEFT = "hints.left"  # a PHASE runs without
    PROMOTION_ACKED = "promotion.acked"
    PROMOTION_LEFT = "promotion.left"
    PROMOTION_PARKED = "promotion.parked"
    BASELINE_REPLACED = "baseline.replaced"
    BASELINE_JUDGED = "baseline.judged"  # by the PHASEs under it
    ESCROW_HELD = "escrow.held"  # waits for a person
    ESCROW_CLOSED = "escrow.closed"  # not by a person
    INTENTS_DROPPED = "intents.dropped"
    OBSERVED = "observer.fired"  # a rule of the observer makes an intent
    OBSERVER_HELD = "observer.held"  # its intents can't be written; the next tick tries again
    OUTPUT_UNSEARCHED = "output.unsearched"  # a rule's pattern takes too long for a cycle's output
    REFLECTION_HELD = "reflection.held"  # nothing runs, and still it is no time to reflect
    TEXTFILE_MISSING = "textfile.missing"
    LOOP_STARTED = "loop.started"
    LOOP_ITERATED = "loop.iterated"
    LOOP_STALE = "loop.stale"  # no new archive in several iterations
    LOOP_FAILED = "loop.failed"  # its failure limit, or it could not go on
    LOOP_ENDED = "loop.ended"
    NOTICE_SENT = "notice.sent"
    NOTICE_FAILED = "notice.failed"  # tried again later
    HEARTBEAT_FAILED = "heartbeat.failed"
    OPERATOR_ACTED = "operator.acted"
    PULSE_STARTED = "pulse.started"
    PULSE_ENDED = "pulse.ended"
    PULSE_FAILED = "pulse.failed"
    REQUEST_ANSWERED = "request.answered"
    REQUEST_REFUSED = "request.refused"
    BRIDGE_KEYS_LOADED = "bridge.keys_loaded"
    BRIDGE_KEYS_FAILED = "bridge.keys_failed"  # tried again; the last ones stay for a while
    BRIDGE_FAILED = "bridge.failed"
    THREAD_BLOCKED = "thread.blocked"  # by a loop guard
    THREAD_EXPIRED = "thread.expired"  # archived, and out of the store
    SUPERVISOR_STARTED = "supervisor.started"
    SUPERVISOR_ENDED = "supervisor.ended"
    SUPERVISOR_FAILED = "supervisor.failed"
    WAKE_ATTEMPTED = "wake.attempted"
    WAKE_ENDED = "wake.ended"  # one attempt, or the trigger
    WAKE_DEFERRED = "wake.deferred"  # a person types there
    WAKE_COLLIDED = "wake.collided"  # for so long that another way is taken
    SUMMARY_LEFT = "summary.left"  # its command gave none, so our own is used
    FILTER_FAILED = "filter.failed"  # its command could not judge, so nothing passes


# Random once (sd_id128_randomize), fixed for ever: operators and catalogues refer to them.
MESSAGE_IDS: Final = {
    Event.TICK_COMPLETED: "ceaae6856a3720104297d26858ae5736",
    Event.TICK_IDLE: "1720cd7bc9924c57622e49737abe7b0a",
    Event.TICK_FAILED: "e5e07979fb4877464dfca297b131fee4",
    Event.LEASE_TAKEN: "9f40cb4a73f64e1db3109799f100d239",
    Event.LEASE_LOST: "c27f130c96484453a63f98de4410d7e5",
    Event.LEASE_GIVEN_UP: "1bc6a306872546d7be0667d805b10d80",
    Event.TICK_REFUSED: "52e594c68a4b5e1aa80192e863255b77",
    Event.SETTINGS_REFUSED: "4d9880104bd860d7f58767db7d334dc5",
    Event.LEFTOVER_REAPED: "a39714d3afdc2a39ca8845b07e94bee3",
    Event.CYCLE_STARTED: "4b7761e22501bdd69b4bc59829617d40",
    Event.CYCLE_HELD: "357d41a8fd3b47029fdaf948746a7f29",
    Event.CYCLE_ENDED: "44f5d97e851ffb1d553aac71d4228865",
    Event.CYCLE_LOST: "07364f700971b35289d0ba82087cf1f9",
    Event.CYCLE_SETTLED: "1cd934ff29883f62c995fc0b4885600a",
    Event.CYCLE_PRUNED: "d4de9d730200421ba5923c2eca793af8",
    Event.CYCLE_PACKED: "8298ef3e44087da7c1b096ffebd3f204",
    Event.CYCLE_FEDERATED: "0ecbd4a7505e1d821ce8cc16fe110496",
    Event.RUNNER_IDLE: "af664b1bfe6404b1e787c16fdb476a10",
    Event.RUNNER_FAILED: "7e2f5888eab92020c62894a278c57d33",
    Event.COMMAND_STARTED: "4f04efd927f8fac83e821f4d1e34b1f4",
    Event.COMMAND_ENDED: "5f9cdec2f504f956624bde0550ccc0a9",
    Event.LAUNCH_FAILED: "3959d851a2043c4d42a6c5c29149e229",
    Event.PHASE_MISSED: "f5331947e9ccf4b938cb1bb62020faa1",
    Event.HINTS_LEFT: "439c3241cc904a778d93da4b6d94c259",
    Event.PROMOTION_ACKED: "9294ad0cf904bda6165b49f2e7409ca7",
    Event.PROMOTION_LEFT: "7c1f2b0c9d0e4a52b8d5a5f3f1c86e0d",
    Event.PROMOTION_PARKED: "20fdb7c1b4e437da2de6dd64c377a0de",
    Event.BASELINE_REPLACED: "eeb12652ad98c802a019add5b218e5de",
    Event.BASELINE_JUDGED: "f4aa7d9dc0984b8d832fdb9c741c6420",
    Event.ESCROW_HELD: "46324320785c1a1911f40c8aadc40fa7",
    Event.ESCROW_CLOSED: "819a0f6b22ff0e5d49e0de6a8427cbcb",
    Event.INTENTS_DROPPED: "4741aa5e7e4015d935d7a26d73f7738a",
    Event.OBSERVED: "7d51e1f535086446d80c2321ae3d6c60",
    Event.OBSERVER_HELD: "05e6a7c46c0d3ce00904753bd0d6f612",
    Event.OUTPUT_UNSEARCHED: "739389b40e34c7b4e2912e2fafeed003",
    Event.REFLECTION_HELD: "5f90c2f844f1650c1d34307f1a0bf5db",
    Event.TEXTFILE_MISSING: "a84c8805a25fd4f69df752fa4030b6f8",
    Event.LOOP_STARTED: "052be62388c4fbb5d110f04b5f712b3f",
    Event.LOOP_ITERATED: "a75e1aea6b8dd4d62585d9d4863ef4a3",
    Event.LOOP_STALE: "05f1c638c5e6d43f3c2c96d9e5531d86",
    Event.LOOP_FAILED: "984f4080e2c5f78e8d04956c9fcd9fae",
    Event.LOOP_ENDED: "c5c263de212f7e8b30cee3625f9a8ca3",
    Event.NOTICE_SENT: "2f7f2bb0d060bfd842246165cc75217f",
    Event.NOTICE_FAILED: "62a4b409684c8f4b442ca12894e46690",
    Event.HEARTBEAT_FAILED: "013392178681f0e7821fbf10b6f4ad10",
    Event.OPERATOR_ACTED: "e1508c080f2906a3b2efc9e27a58c57e",
    Event.PULSE_STARTED: "96c4f7ca049c5b7c70b3e48f2b4e5581",
    Event.PULSE_ENDED: "a282b1179be18da928888b4c347effb3",
    Event.PULSE_FAILED: "ebafe1c8a0690a4ff810b5b7d3ac725c",
    Event.REQUEST_ANSWERED: "5843d27919e1cdccfe94e8d0662d18b4",
    Event.REQUEST_REFUSED: "e4512aa5e31f9c68b59fa17a4469a12f",
    Event.BRIDGE_KEYS_LOADED: "38ea225fe2645e7276f3595261d2bb29",
    Event.BRIDGE_KEYS_FAILED: "43c39cecd7dc61abd779cc7011d68af5",
    Event.BRIDGE_FAILED: "79fe12cf694db7a3f8792547ebfe21a0",
    Event.THREAD_BLOCKED: "8b4dcadf4a4b8e83439facd79beaded6",
    Event.THREAD_EXPIRED: "3d0a5c8f5a5e4d0f9a1f6c2c7be4d913",
    Event.SUPERVISOR_STARTED: "67b72ff158255c046369e22f9681d6bc",
    Event.SUPERVISOR_ENDED: "159a2993ae08173e2eac392a83242d11",
    Event.SUPERVISOR_FAILED: "b6cf5df22c6e30018848cde6aa129b5e",
    Event.WAKE_ATTEMPTED: "17bd84b510f9a1c750ef2001c93db82b",
    Event.WAKE_ENDED: "180f960a4adfcfbc710133796d86273b",
    Event.WAKE_DEFERRED: "89fd54d014b7af249c5a766bdc94365f",
    Event.WAKE_COLLIDED: "4d81415634bab89aa7662fec4f5270f5",
    Event.SUMMARY_LEFT: "86260bccb99475225725fc1a409a433b",
    Event.FILTER_FAILED: "2d1251043e3e0dc2e3102e8ef38cb87d",
}


def share_terminal() -> None:
    """From now on, begin what is shown on a terminal by clearing the line: a live one of ours may stand there."""
    global _before_line
    _before_line = "\r\033[K"


def log(event: Event, message: str, *, priority: Priority = Priority.INFO, **fields: object) -> None:
    """Report one event. Never raises. DEBUG is kept by the journal, and shown on a terminal, only.

    Args:
        event: what happened. message: one sentence for people. priority: syslog level. fields: further facts
        (`tick_id`, `decision`, `reason`, `cycle`…); upper-cased for the journal. None is left out.
            Instants, durations (seconds), enum members and numbers are written plainly, anything else by
            `str`.
    """
    try:
        plain = {name: _plain(value) for name, value in fields.items() if value is not None}
        native = _to_journal(event, message, priority, plain)
        if os.isatty(_STDERR):
            _to_terminal(event, message, priority, plain)
        elif not native and priority < Priority.DEBUG:
            _to_stderr(event, message, priority, plain)
    except Exception:  # noqa: S110 - the promise above; where would we report it
        pass


def _to_journal(event: Event, message: str, priority: Priority, fields: dict[str, str | int | float]) -> bool:
    if not os.path.exists(_SOCKET):
        return False
    try:
        from systemd._journal import sendv

        sendv(
            f"MESSAGE={message}",
            f"MESSAGE_ID={MESSAGE_IDS[event]}",
            f"PRIORITY={priority.value}",
            f"SYSLOG_IDENTIFIER={SYSLOG_IDENTIFIER}",
            f"EVENT={event.value}",
            *(f"{name.upper()}={value}" for name, value in fields.items()),
        )
    except (ImportError, OSError):
        return False
    return True


def _to_terminal(event: Event, message: str, priority: Priority, fields: dict[str, str | int | float]) -> None:
    mark = f"{priority.name.lower()}: " if priority <= Priority.WARNING else ""
    extra = " ".join(f"{name}={value}" for name, value in fields.items())
    _write(f"{_before_line}{event.value}  {mark}{message}" + (f"  ({extra})" if extra else ""))


def _to_stderr(event: Event, message: str, priority: Priority, fields: dict[str, str | int | float]) -> None:
    ts = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = {"ts": ts, "event": event.value, "priority": priority.name.lower(), "message": message, **fields}
    _write(json.dumps(line))


def _write(line: str) -> None:
    os.write(_STDERR, line.replace("\n", " ").encode("utf-8", "backslashreplace") + b"\n")


def _plain(value: object) -> str | int | float:
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
