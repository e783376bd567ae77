"""What shows that a condition holds, in one sentence each: empty where it does not. Pure; the table is in `health.py`.

Of ticks, cycles, the loop, promotions and the host: each quiet tick imports this, so keep it small (decision 0002). Of
agents see `agents_evidence.py`, of a scope of several hosts `scope.py`: only hosts that have any import those.
"""

from datetime import timedelta

from orchestration.pulse.judgement import Mode, Signs, span

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
_FAILED_EXITS = frozenset({1, 69, 70, 74, 78})
_FAILED_IN_A_ROW = 3


def no_tick_yet(signs: Signs) -> str:
    nothing = signs.last_attempt_at is None and signs.iteration_at is None
    return (
        "no tick and no iteration of the loop has reached the store yet" if nothing and signs.mode != Mode.DISABLED else ""
    )


def disabled(signs: Signs) -> str:
    return "the mode is not 'enabled': no tick does anything" if _is(signs, Mode.DISABLED) else ""


def halted(signs: Signs) -> str:
    return "the kill switch is set: no tick does anything" if _is(signs, Mode.HALTED) else ""


def _is(signs: Signs, mode: Mode) -> bool:
    return mode in signs.switches


def tick_stale(signs: Signs) -> str:
    if signs.mode in (Mode.DISABLED, Mode.HALTED) or signs.last_tick_at is None:
        return ""
    age = signs.now - signs.last_tick_at
    if age <= TICKS_MISSED:
        return ""
    tried = signs.last_attempt_at is not None and signs.now - signs.last_attempt_at <= TICKS_MISSED
    return f"no tick has decided for {span(age)}, " + ("though ticks start" if tried else "and none has started")


def loop_stopped(signs: Signs) -> str:
    return "the loop reached its limit of failures in a row and ended" if signs.loop_failure_limit else ""


def loop_silent(signs: Signs) -> str:
    if signs.iteration_at is None or signs.last_attempt_at is not None or signs.active_cycle is not None:
        return ""  # where ticks are at work, the loop need not be
    age = signs.now - signs.iteration_at
    return f"the loop has done nothing for {span(age)} after it was to go on" if age > SILENT_AFTER else ""


def tick_failing(signs: Signs) -> str:
    newest = signs.tick_exits[:_FAILED_IN_A_ROW]
    failed = len(newest) == _FAILED_IN_A_ROW and all(code in _FAILED_EXITS for code in newest)
    return f"the last {_FAILED_IN_A_ROW} ticks failed, the newest with exit code {newest[0]}" if failed else ""


def phase_failing(signs: Signs) -> str:
    newest = signs.phase_ends[:PHASE_FAILURES]
    if len(newest) == PHASE_FAILURES and all(state in _UNSUCCESSFUL for state in newest):
        return f"the last {PHASE_FAILURES} PHASE cycles ended as {', '.join(newest)}"
    return f"the PHASE of {signs.phase_date} {signs.phase_reason}" if signs.phase_result == "failed" else ""


def phase_missed(signs: Signs) -> str:
    return f"{signs.phase_date} has no PHASE: {signs.phase_reason}" if signs.phase_result == "skipped" else ""


def dream_failing(signs: Signs) -> str:
    ended = len(signs.dream_ends)
    bad = sum(state in _UNSUCCESSFUL for state in signs.dream_ends)
    return f"{bad} of the last {ended} D-REAM cycles did not succeed" if ended >= DREAM_ENDS and bad * 2 > ended else ""


def cycle_overdue(signs: Signs) -> str:
    if signs.active_deadline is None or signs.now - signs.active_deadline <= OVERDUE_AFTER:
        return ""
    return f"cycle {signs.active_cycle} runs {span(signs.now - signs.active_deadline)} past its deadline"


def cycle_lost(signs: Signs) -> str:
    return f"{signs.lost} lost within a day: nobody knows how far they came" if signs.lost else ""


def maintenance(signs: Signs) -> str:
    return "maintenance: ticks start nothing new" if _is(signs, Mode.MAINTENANCE) else ""


def lock_contention(signs: Signs) -> str:
    many = signs.contentions > CONTENTIONS
    return f"{signs.contentions} ticks within an hour found the lock held" if many else ""


def phase_duration(signs: Signs) -> str:
    last, before = signs.phase_seconds[:1], sorted(signs.phase_seconds[1:])
    if not last or len(before) < PHASES_COMPARED:
        return ""
    usual = before[len(before) // 2]
    if usual / 3 <= last[0] <= usual * 3 or abs(last[0] - usual) < _NOTABLE_SECONDS:
        return ""
    return f"the last PHASE took {last[0]:.0f} s, usual are {usual:.0f} s (median of {len(before)})"


_NOTABLE_SECONDS = 60.0


def promotions_parked(signs: Signs) -> str:
    return f"{signs.promotions_parked} parked after too many failed cycles" if signs.promotions_parked else ""


def promotions_piling_up(signs: Signs) -> str:
    return f"{signs.promotions_unacked} promotions wait" if signs.promotions_unacked > UNACKED_MANY else ""


def escrow_waiting(signs: Signs) -> str:
    told = []
    if signs.escrow_since is not None and signs.now - signs.escrow_since > ESCROW_AFTER:
        told.append(f"the oldest for {span(signs.now - signs.escrow_since)}")
    if signs.escrow_expires is not None and signs.escrow_expires - signs.now < ESCROW_EXPIRES:
        told.append(f"the next expires in {span(max(signs.escrow_expires - signs.now, timedelta(0)))}")
    return f"{signs.escrow_pending} in escrow wait for a person, {', '.join(told)}" if told else ""


def baseline_rolled_back(signs: Signs) -> str:
    if signs.rolled_back is None:
        return ""
    version, _, why = signs.rolled_back
    return f"version {version} was rolled back automatically: {why}"


def intents_overflowing(signs: Signs) -> str:
    if signs.intents_dropped:
        return f"{signs.intents_dropped} intents were dropped within an hour: {signs.intents_max} may wait"
    full = signs.intents_pending >= signs.intents_max
    return f"{signs.intents_pending} intents wait, as many as may" if full else ""


def urgent_alert(signs: Signs) -> str:
    if not signs.urgent:
        return ""
    more = f", and {len(signs.urgent) - 1} before it" if len(signs.urgent) > 1 else ""
    return f"{signs.urgent[0]} was raised within an hour{more}"


def archives_stale(signs: Signs) -> str:
    return "the loop's last iterations left no new archive" if signs.archives_stale else ""


def federation_behind(signs: Signs) -> str:
    if signs.federation_since is None or signs.now - signs.federation_since <= FEDERATION_AFTER:
        return ""
    return f"a bundle waits to be copied for {span(signs.now - signs.federation_since)}"


def disk_low(signs: Signs) -> str:
    if signs.disk_free is None or signs.disk_free >= signs.disk_low_below:
        return ""
    free, wanted = (size / 1024**3 for size in (signs.disk_free, signs.disk_low_below))
    return f"{free:.1f} GiB are free for the state folder, less than the {wanted:.1f} GiB of retention.low_disk"


_UNSUCCESSFUL = frozenset({"failed", "timed_out", "lost"})
