"""Health: one verdict with its causes, worked out in one place for the page, `latest.json`, `status`, metrics and alerts.

Pure. `signs.py` reads the store and the host into `Signs`; `judge` turns them into a `Judgement` by the table `RULES`, whose
order is the order in which causes are told. A rule names the condition, how bad it is, how long it must have held, and what
an operator types about it. What nobody can know is a condition of its own, never `ok`.

Everything here is imported by each quiet tick: keep it small (decision 0002).
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from orchestration.pulse.judgement import Cause as Cause
from orchestration.pulse.judgement import Condition as Condition
from orchestration.pulse.judgement import Judgement as Judgement
from orchestration.pulse.judgement import Mode as Mode
from orchestration.pulse.judgement import Rule as Rule
from orchestration.pulse.judgement import Signs as Signs
from orchestration.pulse.judgement import Verdict as Verdict
from orchestration.pulse.judgement import as_json as as_json
from orchestration.pulse.judgement import worst as worst

TICKS_MISSED = timedelta(minutes=3)
"""A timer ticks each minute; this long without one is no accident."""
OVERDUE_AFTER = timedelta(minutes=2)
"""A runner ends its command at the deadline, and its tree some seconds later."""
SILENT_AFTER = timedelta(hours=1)
CONTENTION_WITHIN = timedelta(hours=1)
CONTENTIONS = 10
DREAM_WITHIN = timedelta(days=1)
DREAM_ENDS = 4
"""Fewer cycles than this say nothing about a ratio."""
LOST_WITHIN = timedelta(days=1)
OVERFLOW_WITHIN = timedelta(hours=1)
URGENT_WITHIN = timedelta(hours=1)
PHASE_FAILURES = 3
PHASES_COMPARED = 5
"""PHASEs before the last one that a usual duration needs."""
UNACKED_MANY = 20
ESCROW_AFTER = timedelta(days=1)
"""Somebody looks once a day."""
ESCROW_EXPIRES = timedelta(days=1)
ROLLED_BACK_WITHIN = timedelta(days=1)
FEDERATION_AFTER = timedelta(hours=6)
BRIDGE_TELLS_WITHIN = timedelta(minutes=3)
"""A server of the bridge tells once a minute at least."""
UNREAD_AFTER = timedelta(hours=1)
"""A message that nobody reads for so long was not delivered, whatever the reason."""
SUPERVISOR_TELLS_WITHIN = timedelta(minutes=3)
"""A supervisor tells once a minute at least."""
WAKE_WAITS = timedelta(minutes=10)
"""A trigger is attempted within seconds; with every deferral, retry and fallback it ends within minutes, but for a turn that
runs, which is no waiting."""
DISK_LOW = 10 * 1024**3
_FAILED_EXITS = frozenset({1, 69, 70, 74, 78})
_FAILED_IN_A_ROW = 3


def judge(signs: Signs, since: Mapping[str, datetime]) -> Judgement:
    """Judge the signs.

    Args:
        since: of each condition that the look before found, when it began (aware UTC).
    """
    causes: list[Cause] = []
    holding: list[tuple[Condition, datetime, str]] = []
    for rule in RULES:
        evidence = rule.evidence(signs)
        if evidence:
            known = rule.began(signs) or since.get(rule.condition, signs.now)
            began = min(known, signs.now)
            holding.append((rule.condition, began, evidence))
            if signs.now - began >= rule.after:
                causes.append(Cause(rule.condition, rule.verdict, began, evidence, rule.advice))
    return Judgement(worst(causes), tuple(causes), tuple(holding))


def _no_tick_yet(signs: Signs) -> str:
    nothing = signs.last_attempt_at is None and signs.iteration_at is None
    return (
        "no tick and no iteration of the loop has reached the store yet" if nothing and signs.mode != Mode.DISABLED else ""
    )


def _disabled(signs: Signs) -> str:
    return "the mode is not 'enabled': no tick does anything" if _is(signs, Mode.DISABLED) else ""


def _halted(signs: Signs) -> str:
    return "the kill switch is set: no tick does anything" if _is(signs, Mode.HALTED) else ""


def _is(signs: Signs, mode: Mode) -> bool:
    return mode in signs.switches


def _tick_stale(signs: Signs) -> str:
    if signs.mode in (Mode.DISABLED, Mode.HALTED) or signs.last_tick_at is None:
        return ""
    age = signs.now - signs.last_tick_at
    if age <= TICKS_MISSED:
        return ""
    tried = signs.last_attempt_at is not None and signs.now - signs.last_attempt_at <= TICKS_MISSED
    return f"no tick has decided for {_span(age)}, " + ("though ticks start" if tried else "and none has started")


def _loop_stopped(signs: Signs) -> str:
    return "the loop reached its limit of failures in a row and ended" if signs.loop_failure_limit else ""


def _loop_silent(signs: Signs) -> str:
    if signs.iteration_at is None or signs.last_attempt_at is not None or signs.active_cycle is not None:
        return ""  # where ticks are at work, the loop need not be
    age = signs.now - signs.iteration_at
    return f"the loop has done nothing for {_span(age)} after it was to go on" if age > SILENT_AFTER else ""


def _tick_failing(signs: Signs) -> str:
    newest = signs.tick_exits[:_FAILED_IN_A_ROW]
    failed = len(newest) == _FAILED_IN_A_ROW and all(code in _FAILED_EXITS for code in newest)
    return f"the last {_FAILED_IN_A_ROW} ticks failed, the newest with exit code {newest[0]}" if failed else ""


def _phase_failing(signs: Signs) -> str:
    newest = signs.phase_ends[:PHASE_FAILURES]
    if len(newest) == PHASE_FAILURES and all(state in _UNSUCCESSFUL for state in newest):
        return f"the last {PHASE_FAILURES} PHASE cycles ended as {', '.join(newest)}"
    return f"the PHASE of {signs.phase_date} {signs.phase_reason}" if signs.phase_result == "failed" else ""


def _phase_missed(signs: Signs) -> str:
    return f"{signs.phase_date} has no PHASE: {signs.phase_reason}" if signs.phase_result == "skipped" else ""


def _dream_failing(signs: Signs) -> str:
    ended = len(signs.dream_ends)
    bad = sum(state in _UNSUCCESSFUL for state in signs.dream_ends)
    return f"{bad} of the last {ended} D-REAM cycles did not succeed" if ended >= DREAM_ENDS and bad * 2 > ended else ""


def _cycle_overdue(signs: Signs) -> str:
    if signs.active_deadline is None or signs.now - signs.active_deadline <= OVERDUE_AFTER:
        return ""
    return f"cycle {signs.active_cycle} runs {_span(signs.now - signs.active_deadline)} past its deadline"


def _cycle_lost(signs: Signs) -> str:
    return f"{signs.lost} lost within a day: nobody knows how far they came" if signs.lost else ""


def _maintenance(signs: Signs) -> str:
    return "maintenance: ticks start nothing new" if _is(signs, Mode.MAINTENANCE) else ""


def _lock_contention(signs: Signs) -> str:
    many = signs.contentions > CONTENTIONS
    return f"{signs.contentions} ticks within an hour found the lock held" if many else ""


def _phase_duration(signs: Signs) -> str:
    last, before = signs.phase_seconds[:1], sorted(signs.phase_seconds[1:])
    if not last or len(before) < PHASES_COMPARED:
        return ""
    usual = before[len(before) // 2]
    if usual / 3 <= last[0] <= usual * 3 or abs(last[0] - usual) < _NOTABLE_SECONDS:
        return ""
    return f"the last PHASE took {last[0]:.0f} s, usual are {usual:.0f} s (median of {len(before)})"


_NOTABLE_SECONDS = 60.0


def _promotions_parked(signs: Signs) -> str:
    return f"{signs.promotions_parked} parked after too many failed cycles" if signs.promotions_parked else ""


def _promotions_piling_up(signs: Signs) -> str:
    return f"{signs.promotions_unacked} promotions wait" if signs.promotions_unacked > UNACKED_MANY else ""


def _escrow_waiting(signs: Signs) -> str:
    told = []
    if signs.escrow_since is not None and signs.now - signs.escrow_since > ESCROW_AFTER:
        told.append(f"the oldest for {_span(signs.now - signs.escrow_since)}")
    if signs.escrow_expires is not None and signs.escrow_expires - signs.now < ESCROW_EXPIRES:
        told.append(f"the next expires in {_span(max(signs.escrow_expires - signs.now, timedelta(0)))}")
    return f"{signs.escrow_pending} in escrow wait for a person, {', '.join(told)}" if told else ""


def _baseline_rolled_back(signs: Signs) -> str:
    if signs.rolled_back is None:
        return ""
    version, _, why = signs.rolled_back
    return f"version {version} was rolled back automatically: {why}"


def _intents_overflowing(signs: Signs) -> str:
    if signs.intents_dropped:
        return f"{signs.intents_dropped} intents were dropped within an hour: {signs.intents_max} may wait"
    full = signs.intents_pending >= signs.intents_max
    return f"{signs.intents_pending} intents wait, as many as may" if full else ""


def _urgent_alert(signs: Signs) -> str:
    if not signs.urgent:
        return ""
    more = f", and {len(signs.urgent) - 1} before it" if len(signs.urgent) > 1 else ""
    return f"{signs.urgent[0]} was raised within an hour{more}"


def _archives_stale(signs: Signs) -> str:
    return "the loop's last iterations left no new archive" if signs.archives_stale else ""


def _federation_behind(signs: Signs) -> str:
    if signs.federation_since is None or signs.now - signs.federation_since <= FEDERATION_AFTER:
        return ""
    return f"a bundle waits to be copied for {_span(signs.now - signs.federation_since)}"


def _bridge_silent(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or not bridge.serving or signs.now - bridge.told_at <= BRIDGE_TELLS_WITHIN:
        return ""
    return f"the bridge has told nothing of its threads for {_span(signs.now - bridge.told_at)}, and was not stopped"


def _threads_blocked(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or not bridge.blocked:
        return ""
    many = "1 thread is" if bridge.blocked == 1 else f"{bridge.blocked} threads are"
    return f"{many} blocked until a person has looked, {bridge.blocked_thread} for longest"


def _messages_unread(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or bridge.unread_since is None or signs.now - bridge.unread_since <= UNREAD_AFTER:
        return ""
    age = _span(signs.now - bridge.unread_since)
    return f"{bridge.unread_by} has not read for {age} what was said in {bridge.unread_thread}; {bridge.behind} are behind"


def _supervisor_silent(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.serving or signs.now - wake.told_at <= SUPERVISOR_TELLS_WITHIN:
        return ""
    return f"the supervisor has told nothing for {_span(signs.now - wake.told_at)}, and was not stopped: nobody wakes agents"


def _wakes_dead_lettered(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.dead:
        return ""
    many = "1 trigger was" if wake.dead == 1 else f"{wake.dead} triggers were"
    return f"{many} given up, {wake.dead_trigger} first: the agents were not woken"


def _wakes_waiting(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or wake.waiting_since is None or signs.now - wake.waiting_since <= WAKE_WAITS:
        return ""
    age = _span(signs.now - wake.waiting_since)
    return f"the trigger for {wake.waiting_agent} has waited for {age} for an attempt; {wake.waiting} are open"


def _agents_unmanaged(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.unmanaged:
        return ""
    return f"{wake.unmanaged_agent} can't be woken: it has no runtime that may be used ({wake.unmanaged} given up for that)"


def _prompts_collided(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.collided:
        return ""
    return f"somebody typed at {wake.collided_agent} for too long; {wake.collided} prompts within an hour took another way"


def _disk_low(signs: Signs) -> str:
    low = signs.disk_free is not None and signs.disk_free < DISK_LOW
    return f"{(signs.disk_free or 0) / 1024**3:.1f} GiB are free for the state folder" if low else ""


_UNSUCCESSFUL = frozenset({"failed", "timed_out", "lost"})

RULES = (
    Rule(Condition.NO_TICK_YET, Verdict.UNKNOWN, _no_tick_yet, "klorosctl doctor"),
    Rule(Condition.DISABLED, Verdict.STOPPED, _disabled, "klorosctl enable"),
    Rule(Condition.HALTED, Verdict.STOPPED, _halted, "klorosctl unhalt"),
    Rule(Condition.TICK_STALE, Verdict.STOPPED, _tick_stale, "klorosctl doctor", began=lambda signs: signs.last_tick_at),
    Rule(Condition.LOOP_STOPPED, Verdict.STOPPED, _loop_stopped, "systemctl start kloros-loop.service"),
    Rule(
        Condition.LOOP_SILENT,
        Verdict.STOPPED,
        _loop_silent,
        "systemctl status kloros-loop.service",
        began=lambda signs: signs.iteration_at,
    ),
    Rule(Condition.TICK_FAILING, Verdict.FAILING, _tick_failing, "klorosctl history"),
    Rule(Condition.PHASE_FAILING, Verdict.FAILING, _phase_failing, "klorosctl history --dates"),
    Rule(Condition.PHASE_MISSED, Verdict.FAILING, _phase_missed, "klorosctl history --dates"),
    Rule(Condition.DREAM_FAILING, Verdict.FAILING, _dream_failing, "klorosctl history --cycles"),
    Rule(
        Condition.CYCLE_OVERDUE,
        Verdict.DEGRADED,
        _cycle_overdue,
        "klorosctl status",
        began=lambda signs: signs.active_deadline,
    ),
    Rule(Condition.CYCLE_LOST, Verdict.DEGRADED, _cycle_lost, "klorosctl history --cycles"),
    Rule(Condition.MAINTENANCE, Verdict.DEGRADED, _maintenance, "klorosctl maintenance off"),
    Rule(Condition.LOCK_CONTENTION, Verdict.DEGRADED, _lock_contention, "klorosctl doctor"),
    Rule(Condition.PHASE_DURATION, Verdict.DEGRADED, _phase_duration, "klorosctl history --cycles"),
    Rule(Condition.PROMOTIONS_PARKED, Verdict.DEGRADED, _promotions_parked, "klorosctl promotions list"),
    Rule(
        Condition.PROMOTIONS_PILING_UP,
        Verdict.DEGRADED,
        _promotions_piling_up,
        "klorosctl explain",
        after=timedelta(hours=1),
    ),
    Rule(
        Condition.ESCROW_WAITING,
        Verdict.DEGRADED,
        _escrow_waiting,
        "klorosctl escrow list",
        began=lambda signs: signs.escrow_since,
    ),
    Rule(
        Condition.BASELINE_ROLLED_BACK,
        Verdict.DEGRADED,
        _baseline_rolled_back,
        "klorosctl baseline history",
        began=lambda signs: signs.rolled_back and signs.rolled_back[1],
    ),
    Rule(Condition.INTENTS_OVERFLOWING, Verdict.DEGRADED, _intents_overflowing, "klorosctl intents list"),
    Rule(Condition.URGENT_ALERT, Verdict.DEGRADED, _urgent_alert, "klorosctl intents list"),
    Rule(Condition.ARCHIVES_STALE, Verdict.DEGRADED, _archives_stale, "klorosctl loop --help"),
    Rule(
        Condition.FEDERATION_BEHIND,
        Verdict.DEGRADED,
        _federation_behind,
        "klorosctl federation status",
        began=lambda signs: signs.federation_since,
    ),
    Rule(
        Condition.BRIDGE_SILENT,
        Verdict.DEGRADED,
        _bridge_silent,
        "systemctl status kloros-bridge.service",
        began=lambda signs: signs.bridge and signs.bridge.told_at,
    ),
    Rule(
        Condition.THREADS_BLOCKED,
        Verdict.DEGRADED,
        _threads_blocked,
        "klorosctl threads list --status blocked",
        began=lambda signs: signs.bridge and signs.bridge.blocked_since,
    ),
    Rule(
        Condition.MESSAGES_UNREAD,
        Verdict.DEGRADED,
        _messages_unread,
        "klorosctl threads list --status active",
        began=lambda signs: signs.bridge and signs.bridge.unread_since,
    ),
    Rule(
        Condition.SUPERVISOR_SILENT,
        Verdict.DEGRADED,
        _supervisor_silent,
        "systemctl status kloros-supervisor.service",
        began=lambda signs: signs.wake and signs.wake.told_at,
    ),
    Rule(
        Condition.WAKES_DEAD_LETTERED,
        Verdict.DEGRADED,
        _wakes_dead_lettered,
        "klorosctl triggers list --status dead_lettered",
        began=lambda signs: signs.wake and signs.wake.dead_since,
    ),
    Rule(
        Condition.WAKES_WAITING,
        Verdict.DEGRADED,
        _wakes_waiting,
        "klorosctl triggers list --open",
        began=lambda signs: signs.wake and signs.wake.waiting_since,
    ),
    Rule(
        Condition.AGENTS_UNMANAGED,
        Verdict.DEGRADED,
        _agents_unmanaged,
        "klorosctl triggers list --status dead_lettered",
        began=lambda signs: signs.wake and signs.wake.unmanaged_since,
    ),
    Rule(
        Condition.PROMPTS_COLLIDED,
        Verdict.DEGRADED,
        _prompts_collided,
        "klorosctl triggers list",
        began=lambda signs: signs.wake and signs.wake.collided_since,
    ),
    Rule(Condition.DISK_LOW, Verdict.DEGRADED, _disk_low, "klorosctl prune --dry-run"),
)


def _span(span: timedelta) -> str:
    """Write a duration to a minute: `3 min`, `2 h 5 min`, `4 d 1 h`."""
    minutes = int(span.total_seconds() // 60)
    days, hours = minutes // 1440, minutes % 1440 // 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
