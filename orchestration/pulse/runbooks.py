"""Which page of docs/runbooks a notice leads to, and what is advised about the exit code of a unit that failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestration.exits import Exit
from orchestration.pulse.health import Condition

RUNBOOKS: Mapping[Condition, str] = {
    Condition.NO_TICK_YET: "tick-stale",
    Condition.DISABLED: "maintenance-forgotten",
    Condition.HALTED: "maintenance-forgotten",
    Condition.STORE_UNREACHABLE: "database-away",
    Condition.HOST_DOUBLED: "host-doubled",
    Condition.TICK_STALE: "tick-stale",
    Condition.NOBODY_LEADS: "nobody-leads",
    Condition.LOOP_STOPPED: "loop-stopped",
    Condition.LOOP_SILENT: "loop-stopped",
    Condition.TICK_FAILING: "tick-failing",
    Condition.PHASE_FAILING: "phase-missed",
    Condition.PHASE_MISSED: "phase-missed",
    Condition.DREAM_FAILING: "dream-failing",
    Condition.CYCLE_OVERDUE: "cycle-lost",
    Condition.CYCLE_LOST: "cycle-lost",
    Condition.HOST_SILENT: "host-silent",
    Condition.CLOCK_OFFSET: "clock-wrong",
    Condition.MAINTENANCE: "maintenance-forgotten",
    Condition.LOCK_CONTENTION: "store-locked",
    Condition.PHASE_DURATION: "phase-duration",
    Condition.PROMOTIONS_PARKED: "promotion-parked",
    Condition.PROMOTIONS_PILING_UP: "dream-failing",
    Condition.ESCROW_WAITING: "escrow-waiting",
    Condition.BASELINE_ROLLED_BACK: "baseline-rolled-back",
    Condition.INTENTS_OVERFLOWING: "intents-overflowing",
    Condition.URGENT_ALERT: "urgent-alert",
    Condition.ARCHIVES_STALE: "archives-stale",
    Condition.FEDERATION_BEHIND: "federation-behind",
    Condition.BRIDGE_SILENT: "bridge-unavailable",
    Condition.THREADS_BLOCKED: "escalation-flood",
    Condition.MESSAGES_UNREAD: "message-delivery-delay",
    Condition.SUPERVISOR_SILENT: "wake-trigger-failure",
    Condition.WAKES_DEAD_LETTERED: "wake-trigger-failure",
    Condition.WAKES_WAITING: "wake-trigger-failure",
    Condition.AGENTS_UNMANAGED: "unmanaged-runtime",
    Condition.PROMPTS_COLLIDED: "human-input-collision",
    Condition.DISK_LOW: "disk-full",
}
"""Pages of docs/runbooks, the same as of the alerts in docs/reference/prometheus."""

EXITS: Mapping[int, tuple[str, str, str]] = {
    Exit.SETTINGS_INVALID: ("the settings are invalid", "klorosctl config check", "service-unavailable"),
    Exit.STORE_UNREACHABLE: ("the store can't be opened, read or migrated", "klorosctl doctor", "database-away"),
    Exit.UNWRITABLE: ("the disk is full, read-only, or not ours", "klorosctl doctor", "disk-full"),
    Exit.HALTED: ("the kill switch is set", "klorosctl unhalt", "maintenance-forgotten"),
    Exit.FAILURE_LIMIT: ("the loop reached its limit of failures in a row", "klorosctl loop --help", "loop-stopped"),
    Exit.DEFECT: ("a defect of ours; its traceback is in the log", "klorosctl doctor", "service-unavailable"),
}

ADVICE = frozenset(advice for _, advice, _ in EXITS.values())
"""What is advised about a failed unit; checked to exist."""
