"""Health: one verdict with its causes, worked out in one place for the page, `latest.json`, `status`, metrics and alerts.

Pure. `signs.py` reads the store and the host into `Signs`; `judge` turns them into a `Judgement` by the table `RULES`, whose
order is the order in which causes are told. A rule names the condition, how bad it is, how long it must have held, and what
an operator types about it. What nobody can know is a condition of its own, never `ok`.

Everything here is imported by each quiet tick: keep it small (decision 0002).
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from orchestration.pulse import evidence
from orchestration.pulse.judgement import Cause as Cause
from orchestration.pulse.judgement import Condition as Condition
from orchestration.pulse.judgement import Judgement as Judgement
from orchestration.pulse.judgement import Mode as Mode
from orchestration.pulse.judgement import Rule as Rule
from orchestration.pulse.judgement import Signs as Signs
from orchestration.pulse.judgement import Verdict as Verdict
from orchestration.pulse.judgement import as_json as as_json
from orchestration.pulse.judgement import worst as worst


def judge(signs: Signs, since: Mapping[str, datetime]) -> Judgement:
    """Judge the signs.

    Args:
        since: of each condition that the look before found, when it began (aware UTC).
    """
    causes: list[Cause] = []
    holding: list[tuple[Condition, datetime, str]] = []
    for rule in RULES:
        found = rule.evidence(signs)
        if found:
            known = rule.began(signs) or since.get(rule.condition, signs.now)
            began = min(known, signs.now)
            holding.append((rule.condition, began, found))
            if signs.now - began >= rule.after:
                causes.append(Cause(rule.condition, rule.verdict, began, found, rule.advice))
    return Judgement(worst(causes), tuple(causes), tuple(holding))


def _of_agents(condition: Condition) -> Callable[[Signs], str]:
    """Ask for evidence that only a host with a bridge or a supervisor can have."""

    def found(signs: Signs) -> str:
        if signs.bridge is None and signs.wake is None:
            return ""
        from orchestration.pulse import agents_evidence

        return agents_evidence.EVIDENCE[condition](signs)

    return found


def _refused(condition: Condition) -> Callable[[Signs], str]:
    """Ask for what kept the last tick from the store."""
    return lambda signs: signs.refused[1] if signs.refused is not None and signs.refused[0] is condition else ""


def _of_scope(condition: Condition) -> Callable[[Signs], str]:
    """Ask for what `scope.py` found, where several hosts share a store."""
    return lambda signs: next((found for name, _, found in signs.scope if name is condition), "")


def _scope_began(condition: Condition) -> Callable[[Signs], datetime | None]:
    return lambda signs: next((since for name, since, _ in signs.scope if name is condition), None)


RULES = (
    Rule(Condition.NO_TICK_YET, Verdict.UNKNOWN, evidence.no_tick_yet, "klorosctl doctor"),
    Rule(Condition.DISABLED, Verdict.STOPPED, evidence.disabled, "klorosctl enable"),
    Rule(Condition.HALTED, Verdict.STOPPED, evidence.halted, "klorosctl unhalt"),
    Rule(Condition.STORE_UNREACHABLE, Verdict.STOPPED, _refused(Condition.STORE_UNREACHABLE), "klorosctl doctor"),
    Rule(Condition.HOST_DOUBLED, Verdict.STOPPED, _refused(Condition.HOST_DOUBLED), "klorosctl doctor"),
    Rule(
        Condition.TICK_STALE,
        Verdict.STOPPED,
        evidence.tick_stale,
        "klorosctl doctor",
        began=lambda signs: signs.last_tick_at,
    ),
    Rule(
        Condition.NOBODY_LEADS,
        Verdict.STOPPED,
        _of_scope(Condition.NOBODY_LEADS),
        "klorosctl leader show",
        after=evidence.TICKS_MISSED,
        began=_scope_began(Condition.NOBODY_LEADS),
    ),
    Rule(Condition.LOOP_STOPPED, Verdict.STOPPED, evidence.loop_stopped, "systemctl start kloros-loop.service"),
    Rule(
        Condition.LOOP_SILENT,
        Verdict.STOPPED,
        evidence.loop_silent,
        "systemctl status kloros-loop.service",
        began=lambda signs: signs.iteration_at,
    ),
    Rule(Condition.TICK_FAILING, Verdict.FAILING, evidence.tick_failing, "klorosctl history"),
    Rule(Condition.PHASE_FAILING, Verdict.FAILING, evidence.phase_failing, "klorosctl history --dates"),
    Rule(Condition.PHASE_MISSED, Verdict.FAILING, evidence.phase_missed, "klorosctl history --dates"),
    Rule(Condition.DREAM_FAILING, Verdict.FAILING, evidence.dream_failing, "klorosctl history --cycles"),
    Rule(
        Condition.CYCLE_OVERDUE,
        Verdict.DEGRADED,
        evidence.cycle_overdue,
        "klorosctl status",
        began=lambda signs: signs.active_deadline,
    ),
    Rule(Condition.CYCLE_LOST, Verdict.DEGRADED, evidence.cycle_lost, "klorosctl history --cycles"),
    Rule(
        Condition.HOST_SILENT,
        Verdict.DEGRADED,
        _of_scope(Condition.HOST_SILENT),
        "klorosctl status",
        began=_scope_began(Condition.HOST_SILENT),
    ),
    Rule(
        Condition.CLOCK_OFFSET,
        Verdict.DEGRADED,
        _of_scope(Condition.CLOCK_OFFSET),
        "klorosctl status",
        after=evidence.TICKS_MISSED,
    ),
    Rule(Condition.MAINTENANCE, Verdict.DEGRADED, evidence.maintenance, "klorosctl maintenance off"),
    Rule(Condition.LOCK_CONTENTION, Verdict.DEGRADED, evidence.lock_contention, "klorosctl doctor"),
    Rule(Condition.PHASE_DURATION, Verdict.DEGRADED, evidence.phase_duration, "klorosctl history --cycles"),
    Rule(Condition.PROMOTIONS_PARKED, Verdict.DEGRADED, evidence.promotions_parked, "klorosctl promotions list"),
    Rule(
        Condition.PROMOTIONS_PILING_UP,
        Verdict.DEGRADED,
        evidence.promotions_piling_up,
        "klorosctl explain",
        after=timedelta(hours=1),
    ),
    Rule(
        Condition.ESCROW_WAITING,
        Verdict.DEGRADED,
        evidence.escrow_waiting,
        "klorosctl escrow list",
        began=lambda signs: signs.escrow_since,
    ),
    Rule(
        Condition.BASELINE_ROLLED_BACK,
        Verdict.DEGRADED,
        evidence.baseline_rolled_back,
        "klorosctl baseline history",
        began=lambda signs: signs.rolled_back and signs.rolled_back[1],
    ),
    Rule(Condition.INTENTS_OVERFLOWING, Verdict.DEGRADED, evidence.intents_overflowing, "klorosctl intents list"),
    Rule(Condition.URGENT_ALERT, Verdict.DEGRADED, evidence.urgent_alert, "klorosctl intents list"),
    Rule(Condition.ARCHIVES_STALE, Verdict.DEGRADED, evidence.archives_stale, "klorosctl loop --help"),
    Rule(
        Condition.FEDERATION_BEHIND,
        Verdict.DEGRADED,
        evidence.federation_behind,
        "klorosctl federation status",
        began=lambda signs: signs.federation_since,
    ),
    Rule(
        Condition.BRIDGE_SILENT,
        Verdict.DEGRADED,
        _of_agents(Condition.BRIDGE_SILENT),
        "systemctl status kloros-bridge.service",
        began=lambda signs: signs.bridge and signs.bridge.told_at,
    ),
    Rule(
        Condition.THREADS_BLOCKED,
        Verdict.DEGRADED,
        _of_agents(Condition.THREADS_BLOCKED),
        "klorosctl threads list --status blocked",
        began=lambda signs: signs.bridge and signs.bridge.blocked_since,
    ),
    Rule(
        Condition.MESSAGES_UNREAD,
        Verdict.DEGRADED,
        _of_agents(Condition.MESSAGES_UNREAD),
        "klorosctl threads list --status active",
        began=lambda signs: signs.bridge and signs.bridge.unread_since,
    ),
    Rule(
        Condition.SUPERVISOR_SILENT,
        Verdict.DEGRADED,
        _of_agents(Condition.SUPERVISOR_SILENT),
        "systemctl status kloros-supervisor.service",
        began=lambda signs: signs.wake and signs.wake.told_at,
    ),
    Rule(
        Condition.WAKES_DEAD_LETTERED,
        Verdict.DEGRADED,
        _of_agents(Condition.WAKES_DEAD_LETTERED),
        "klorosctl triggers list --status dead_lettered",
        began=lambda signs: signs.wake and signs.wake.dead_since,
    ),
    Rule(
        Condition.WAKES_WAITING,
        Verdict.DEGRADED,
        _of_agents(Condition.WAKES_WAITING),
        "klorosctl triggers list --open",
        began=lambda signs: signs.wake and signs.wake.waiting_since,
    ),
    Rule(
        Condition.AGENTS_UNMANAGED,
        Verdict.DEGRADED,
        _of_agents(Condition.AGENTS_UNMANAGED),
        "klorosctl triggers list --status dead_lettered",
        began=lambda signs: signs.wake and signs.wake.unmanaged_since,
    ),
    Rule(
        Condition.PROMPTS_COLLIDED,
        Verdict.DEGRADED,
        _of_agents(Condition.PROMPTS_COLLIDED),
        "klorosctl triggers list",
        began=lambda signs: signs.wake and signs.wake.collided_since,
    ),
    Rule(Condition.DISK_LOW, Verdict.DEGRADED, evidence.disk_low, "klorosctl prune --dry-run"),
)
