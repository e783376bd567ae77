"""The metrics of the tick: their names, kinds and help, and every series that exists before anything has happened.

Owns the text that node_exporter's textfile collector reads; refuses to know where it is written and when. Values come
from the store alone, so any process at any moment writes the same text. A series whose labels are known beforehand is
there at 0 from the first tick on: `rate()` then sees its first increase, and `absent()` means that nothing writes.

Written directly, for importing prometheus_client costs more than a whole quiet tick; the tests read it back with
prometheus_client's parser and `promtool check metrics`.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4)
"""

from collections.abc import Container, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias, cast

from orchestration import __version__
from orchestration.cycles import ledger
from orchestration.cycles.cycle import FINISHED, CycleState, Federated, JobName, Packed
from orchestration.cycles.orphan import Leftover
from orchestration.intents.intent import FINAL
from orchestration.loop.status import Status
from orchestration.promotions.state import AckVerdict
from orchestration.pulse.health import Condition, Judgement, Signs, Verdict
from orchestration.store.counters import bound_text, label_text
from orchestration.store.instants import from_text_or_none
from orchestration.store.port import Database, Row
from orchestration.tick import tick
from orchestration.tick.calendar import DateResult
from orchestration.tick.decision import SKIPPING
from orchestration.tick.history import Aside, Refusal

Values: TypeAlias = dict[tuple[str, str], float]
"""What stands behind the metrics: the value of each series, by name and label text."""


WAKE_RESULTS = (
    "triggered", "already_active", "deferred", "fallback_resumed", "fallback_spawned", "failed", "dead_lettered"
)  # fmt: skip
"""As `bridge/wake/state.py` has them, which no tick imports."""
WAKE_LATENCY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
PASS_RESULTS = ("completed", "idle", "failed")


class Family(NamedTuple):
    """One metric: what `# HELP` and `# TYPE` say, and its series that are known beforehand."""

    name: str
    kind: str  # counter, gauge, histogram
    help: str
    series: tuple[tuple[str, str], ...]  # name and label text, in the order of publishing


def _plain(name: str, kind: str, text: str) -> Family:
    return Family(name, kind, text, ((name, ""),))


def _labelled(name: str, kind: str, text: str, label: str, values: Iterable[str]) -> Family:
    return Family(name, kind, text, tuple((name, label_text({label: value})) for value in values))


def _histogram(name: str, text: str, buckets: Sequence[float], labels: Iterable[dict[str, str]]) -> Family:
    series: list[tuple[str, str]] = []
    for of in labels:
        series += ((f"{name}_bucket", label_text({**of, "le": bound_text(bound)})) for bound in (*buckets, float("inf")))
        series += ((f"{name}_sum", label_text(of)), (f"{name}_count", label_text(of)))
    return Family(name, "histogram", text, tuple(series))


def _cycle_results() -> tuple[tuple[str, str], ...]:
    finished = [state for state in CycleState if state in FINISHED]
    return tuple(("kloros_cycles_total", label_text({"job": job, "result": state})) for job in JobName for state in finished)


FAMILIES = (
    Family(
        "kloros_build_info",
        "gauge",
        "Always 1; the label says which version writes this.",
        (("kloros_build_info", label_text({"version": __version__})),),
    ),
    _labelled(
        "kloros_health_verdict", "gauge", "1 for the verdict on the loop's health, 0 for the others.", "verdict", Verdict
    ),
    _labelled(
        "kloros_health_condition", "gauge", "1 while a condition is a cause of the verdict, else 0.", "condition", Condition
    ),
    _plain(
        "kloros_store_unreachable_timestamp_seconds",
        "gauge",
        "Since when no tick of this host can use its store; 0 while they can. Most other numbers are of before then.",
    ),
    _plain("kloros_state_free_bytes", "gauge", "Free disk space for the state folder, in bytes."),
    _labelled("kloros_orchestrator_ticks_total", "counter", "Ticks that decided, by decision.", "decision", tick.Decided),
    _labelled(
        "kloros_orchestrator_skipped_total",
        "counter",
        "Reasons for which a tick started nothing or was turned away; one NOOP may have several.",
        "reason",
        (*SKIPPING, *Refusal, *Aside),
    ),
    _plain(
        "kloros_orchestrator_lock_contention_total", "counter", "Ticks that were turned away because another held the lock."
    ),
    _labelled(
        "kloros_orchestrator_reaped_total",
        "counter",
        "Leftovers of dead processes that were cleared away, by kind.",
        "kind",
        Leftover,
    ),
    _histogram(
        "kloros_orchestrator_tick_duration_seconds",
        "Time that deciding took, from the start of a tick to its record.",
        tick.DURATION_BUCKETS,
        [{}],
    ),
    _plain(
        "kloros_orchestrator_last_tick_timestamp_seconds",
        "gauge",
        "When a tick last decided anything, NOOP included; 0 before the first.",
    ),
    _plain(
        "kloros_orchestrator_last_attempt_timestamp_seconds",
        "gauge",
        "When a tick last came as far as the store, turned away or not; 0 before the first.",
    ),
    Family("kloros_cycles_total", "counter", "Cycles that ended, by job and result.", _cycle_results()),
    _plain("kloros_cycles_pruned_total", "counter", "Cycles whose folder and bundle were removed by retention."),
    _histogram(
        "kloros_cycle_duration_seconds",
        "Time from claim to end of a cycle, by job.",
        ledger.DURATION_BUCKETS,
        [{"job": job} for job in JobName],
    ),
    _labelled("kloros_cycle_active", "gauge", "1 while a cycle of the job is queued or runs, else 0.", "job", JobName),
    _plain(
        "kloros_cycle_deadline_timestamp_seconds", "gauge", "When the running cycle is ended by force; 0 while none runs."
    ),
    _plain("kloros_bundles_pending", "gauge", "Finished cycles whose bundle is still to be made."),
    _labelled("kloros_bundles_total", "counter", "Attempts to make a cycle's bundle, by result.", "result", Packed),
    _plain("kloros_federation_pending", "gauge", "Cycles whose bundle is still to be copied to the federation's target."),
    _labelled(
        "kloros_federation_total",
        "counter",
        "Attempts to copy a cycle's bundle to the federation's target, by result.",
        "result",
        Federated,
    ),
    _plain(
        "kloros_federation_oldest_timestamp_seconds",
        "gauge",
        "When the bundle that has waited longest was to be copied; 0 while none waits.",
    ),
    _labelled(
        "kloros_loop_iterations_total",
        "counter",
        "Iterations of the continuous loop that ended, by status.",
        "status",
        Status,
    ),
    _plain(
        "kloros_loop_last_iteration_timestamp_seconds",
        "gauge",
        "When an iteration of the loop last ended; 0 before the first.",
    ),
    _plain("kloros_loop_consecutive_failures", "gauge", "Failed iterations of the loop since the last one that ended well."),
    _plain(
        "kloros_loop_failure_limit_reached",
        "gauge",
        "1 while these failures are as many as the loop's max_failures, so that it has given up; else 0.",
    ),
    _plain(
        "kloros_loop_archives_stale",
        "gauge",
        "1 when the last iterations of the loop, three or more, left no new archive; else 0.",
    ),
    _plain(
        "kloros_loop_next_run_timestamp_seconds",
        "gauge",
        "When the loop is to begin its next iteration; 0 when it has ended and none is planned.",
    ),
    _plain("kloros_promotions_unacked", "gauge", "Promotions without an ack that are not parked."),
    _plain("kloros_promotions_parked", "gauge", "Promotions that failed too often and wait for a person."),
    _plain(
        "kloros_promotions_oldest_timestamp_seconds",
        "gauge",
        "When the oldest valid promotion that waits for a cycle was first seen; 0 while none waits.",
    ),
    _labelled(
        "kloros_promotions_total",
        "counter",
        "Promotions answered, by verdict; invalid ones are rejected without a cycle.",
        "verdict",
        AckVerdict,
    ),
    _plain("kloros_baseline_version", "gauge", "Number of the baseline version in force; 0 before the first."),
    _plain(
        "kloros_baseline_changed_timestamp_seconds",
        "gauge",
        "When the accepted parameters last changed; 0 before the first.",
    ),
    _labelled(
        "kloros_baseline_verdicts_total",
        "counter",
        "Versions of the baseline whose PHASE results were judged, by verdict.",
        "verdict",
        ("kept", "neutral", "rolled_back", "escrowed", "worse"),
    ),
    _plain("kloros_escrow_pending", "gauge", "Accepted changes that wait for a person."),
    _plain("kloros_escrow_oldest_timestamp_seconds", "gauge", "Since when the oldest of them waits; 0 while none does."),
    _labelled(
        "kloros_escrow_total",
        "counter",
        "Entries of escrow that were decided, by what became of them.",
        "status",
        ("approved", "rejected", "expired"),
    ),
    _plain("kloros_threads_blocked", "gauge", "Threads of agents that wait for a person, as the bridge told last."),
    _plain(
        "kloros_threads_blocked_oldest_timestamp_seconds",
        "gauge",
        "Since when the one of them is blocked that has been so longest; 0 while none is.",
    ),
    _plain(
        "kloros_threads_unread_oldest_timestamp_seconds",
        "gauge",
        "When the message was posted that has waited longest for a reader in an active thread; 0 while none waits.",
    ),
    _plain("kloros_threads_told_timestamp_seconds", "gauge", "When the bridge last told of threads; 0: never."),
    _labelled(
        "kloros_wake_attempts_total",
        "counter",
        "Attempts of this host's supervisor to wake an agent, by what came of them.",
        "result",
        WAKE_RESULTS,
    ),
    _labelled(
        "kloros_wake_triggers_total",
        "counter",
        "Triggers that this host's supervisor has ended, by what came of them.",
        "result",
        WAKE_RESULTS,
    ),
    _histogram(
        "kloros_wake_wait_duration_seconds",
        "Time from the oldest message that an agent has not read, or from the wish to wake it, to the first attempt.",
        WAKE_LATENCY_BUCKETS,
        [{}],
    ),
    _plain("kloros_wake_deferrals_total", "counter", "Prompts that were put off because a person typed there."),
    _labelled(
        "kloros_supervisor_passes_total", "counter", "Passes of this host's supervisor, by result.", "result", PASS_RESULTS
    ),
    _plain("kloros_supervisor_told_timestamp_seconds", "gauge", "When the supervisor last told how it stands; 0: never."),
    _plain("kloros_wake_queue", "gauge", "Triggers that are open, as the supervisor told last."),
    _plain(
        "kloros_wake_queue_oldest_timestamp_seconds",
        "gauge",
        "When the trigger was made that has waited longest for an attempt; 0 while none waits.",
    ),
    _plain("kloros_wake_dead_letters", "gauge", "Triggers that were given up and that nobody has tried again since."),
    _plain("kloros_wake_unmanaged", "gauge", "Those of them whose agent has no runtime that may be used."),
    _plain(
        "kloros_wake_collisions", "gauge", "Prompts within an hour that took another way because a person went on typing."
    ),
    _plain("kloros_intents_pending", "gauge", "Intents that wait in the inbox."),
    _plain("kloros_intents_max", "gauge", "How many intents may wait, as set; more are dropped."),
    _plain(
        "kloros_intents_oldest_timestamp_seconds",
        "gauge",
        "Since when the oldest intent in the inbox counts; 0 while none waits.",
    ),
    _labelled("kloros_intents_total", "counter", "Intents that got their final status, by status.", "status", FINAL),
    _plain("kloros_phase_last_success_timestamp_seconds", "gauge", "When a PHASE last succeeded; 0 before the first."),
    _plain(
        "kloros_phase_last_duration_seconds", "gauge", "How long the last PHASE that succeeded took; 0 before the first."
    ),
    _labelled(
        "kloros_phase_dates_total",
        "counter",
        "Local dates accounted for, by what became of their PHASE.",
        "result",
        DateResult,
    ),
)


_FORESEEN = frozenset(series for family in FAMILIES for series in family.series)
"""The store may hold more: labels that a release before or after this one counted."""


def read(db: Database) -> Values:
    """Read every number as the store has it now."""
    values = {(str(row["name"]), str(row["labels"])): cast("float", row["value"]) for row in db.rows("counters.all")}
    values["kloros_build_info", label_text({"version": __version__})] = 1.0
    (now,) = db.rows("pulse.now")
    for job in JobName:
        values["kloros_cycle_active", label_text({"job": job})] = float(bool(now[f"{job}_active"]))
    values["kloros_intents_pending", ""] = float(now["intents_pending"] or 0)
    values["kloros_bundles_pending", ""] = float(now["bundles_pending"] or 0)
    values["kloros_federation_pending", ""] = float(now["federation_pending"] or 0)
    values["kloros_baseline_version", ""] = float(now["baseline_version"] or 0)
    _put_instant(values, "kloros_baseline_changed_timestamp_seconds", _instant(now, "baseline_changed_at"))
    _put_instant(values, "kloros_phase_last_success_timestamp_seconds", _instant(now, "phase_succeeded_at"))
    _put_instant(values, "kloros_intents_oldest_timestamp_seconds", _instant(now, "intents_oldest"))
    return values


def _instant(row: Row, column: str) -> datetime | None:
    return from_text_or_none(cast("str | None", row[column]))


def _put_instant(values: Values, name: str, instant: datetime | None) -> None:
    values[name, ""] = 0.0 if instant is None else instant.timestamp()


def note_health(values: Values, signs: Signs, judgement: Judgement) -> None:
    """Put the judgement of these values among them, with the signs that it rests on."""
    values.update(of_judgement(judgement))
    if signs.disk_free is not None:
        values["kloros_state_free_bytes", ""] = float(signs.disk_free)
    values["kloros_intents_max", ""] = float(signs.intents_max)
    values["kloros_phase_last_duration_seconds", ""] = signs.phase_seconds[0] if signs.phase_seconds else 0.0
    _put_instant(values, "kloros_cycle_deadline_timestamp_seconds", signs.active_deadline)
    values["kloros_escrow_pending", ""] = float(signs.escrow_pending)
    _put_instant(values, "kloros_escrow_oldest_timestamp_seconds", signs.escrow_since)
    if signs.bridge is not None:
        values["kloros_threads_blocked", ""] = float(signs.bridge.blocked)
        _put_instant(values, "kloros_threads_blocked_oldest_timestamp_seconds", signs.bridge.blocked_since)
        _put_instant(values, "kloros_threads_unread_oldest_timestamp_seconds", signs.bridge.unread_since)
        _put_instant(values, "kloros_threads_told_timestamp_seconds", signs.bridge.told_at)
    if signs.wake is not None:
        values["kloros_wake_queue", ""] = float(signs.wake.waiting)
        values["kloros_wake_dead_letters", ""] = float(signs.wake.dead)
        values["kloros_wake_unmanaged", ""] = float(signs.wake.unmanaged)
        values["kloros_wake_collisions", ""] = float(signs.wake.collided)
        _put_instant(values, "kloros_wake_queue_oldest_timestamp_seconds", signs.wake.waiting_since)
        _put_instant(values, "kloros_supervisor_told_timestamp_seconds", signs.wake.told_at)
    _put_instant(values, "kloros_federation_oldest_timestamp_seconds", signs.federation_since)


def of_judgement(judgement: Judgement) -> Values:
    """Return what a judgement comes to."""
    version = ("kloros_build_info", label_text({"version": __version__}))
    verdict = ("kloros_health_verdict", label_text({"verdict": judgement.verdict}))
    causes = [("kloros_health_condition", label_text({"condition": cause.condition})) for cause in judgement.causes]
    return dict.fromkeys([version, verdict, *causes], 1.0)


def exposition(
    values: Values, *, more: Sequence[Family] = (), only: Container[str] | None = None, openmetrics: bool = False
) -> str:
    """Write every metric; as OpenMetrics without the end mark, so that others can follow.

    There a counter's family has the name without `_total` (https://prometheus.io/docs/specs/om/open_metrics_spec/).

    Args:
        more: families beside those that every host has. One without a series has those that the values have of its name.
        only: names of families to write; None: all.
    """
    lines: list[str] = []
    foreseen = _FORESEEN.union(*(family.series for family in more)) if more else _FORESEEN
    unforeseen = sorted(values.keys() - foreseen)
    for family in (*FAMILIES, *more):
        if only is not None and family.name not in only:
            continue
        known_as = family.name.removesuffix("_total") if openmetrics and family.kind == "counter" else family.name
        lines += (f"# HELP {known_as} {family.help}", f"# TYPE {known_as} {family.kind}")
        lines += [_line(name, labels, values.get((name, labels), 0.0)) for name, labels in family.series]
        if unforeseen:
            names = {name for name, _ in family.series} or {family.name}
            lines += (_line(name, labels, values[name, labels]) for name, labels in unforeseen if name in names)
    return "\n".join(lines) + "\n"


def queues(values: Values) -> dict[str, int]:
    """Count what waits, as the gauges do."""
    names = ("promotions_unacked", "promotions_parked", "intents_pending", "escrow_pending")
    return {name: int(values.get((f"kloros_{name}", ""), 0)) for name in names}


def _line(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {value!r}" if labels else f"{name} {value!r}"
