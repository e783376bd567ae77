"""Reads the signs that health is judged by, from store and state folder, and remembers since when each condition holds."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from orchestration.cycles import ledger
from orchestration.host.disk import room
from orchestration.pulse import evidence, health
from orchestration.pulse.health import Cause, Condition, Judgement, Mode, Signs
from orchestration.pulse.judgement import BridgeSigns, WakeSigns
from orchestration.pulse.metrics import Family, Values
from orchestration.store.instants import from_text, from_text_or_none, to_text
from orchestration.store.port import Database, Row
from orchestration.tick import calendar, gate
from orchestration.tick.observe import MAINTENANCE_FILE

if TYPE_CHECKING:
    from orchestration.pulse.scope import Scope
    from orchestration.settings import Settings


def since(db: Database) -> dict[str, datetime]:
    """Return since when (aware UTC) each condition has held that the last look found."""
    return {str(row["condition"]): from_text(str(row["since"])) for row in db.rows("pulse.conditions")}


def judged(db: Database, now: datetime) -> Judgement:
    """Return what the last look judged, as the store has it: another process may see another mode than the tick."""
    rules = {str(rule.condition): rule for rule in health.RULES}
    found = {str(row["condition"]): row for row in db.rows("pulse.conditions")}
    causes = [
        Cause(rule.condition, rule.verdict, began, str(found[name]["evidence"]), rule.advice)
        for name, rule in rules.items()
        if name in found and now - (began := from_text(str(found[name]["since"]))) >= rule.after
    ]
    return Judgement(health.worst(causes), tuple(causes), ())


def remember(db: Database, judgement: Judgement, before: Iterable[str]) -> None:
    """Keep since when each condition holds, for the next look; `before` held at the last. Inside a transaction."""
    for condition, began, found in judgement.holding:
        db.run("pulse.condition_holds", condition=condition, since=to_text(began), evidence=found)
    for ended in set(before) - {condition for condition, _, _ in judgement.holding}:
        db.run("pulse.condition_ended", condition=ended)


def scope(settings: "Settings", db: Database, values: Values, *, everyone: bool = False) -> "Scope | None":
    """Read how the scope of several hosts stands, and put its numbers among the metrics'; None: the host is alone.

    Args:
        everyone: with every host, also while another leads, which nobody needs who tells of itself only.
    """
    if not db.is_shared:
        return None
    from orchestration.pulse import scope_metrics, scope_rows

    found = scope_rows.read(db, settings.scope.silent_after, everyone=everyone)
    if found is not None:
        scope_metrics.note(values, found)
    return found


def families(of: "Scope | None") -> tuple[Family, ...]:
    """Return the metrics that only a host of a scope has."""
    if of is None:
        return ()
    from orchestration.pulse import scope_metrics

    return scope_metrics.FAMILIES


def cycles_ended(db: Database) -> Values:
    """Return the counters of cycles that ended, of all hosts of a scope together."""
    from orchestration.pulse import scope_rows

    return scope_rows.cycles_ended(db)


def told(judgement: Judgement, *, elsewhere: bool) -> Judgement:
    """Leave out of a judgement what another host of the scope tells people and metrics, if one does."""
    if not elsewhere:
        return judgement
    from orchestration.pulse import scope

    return scope.told_here(judgement)


def is_told_elsewhere(settings: "Settings", db: Database) -> bool:
    """Tell whether another host of the scope tells what concerns all of it."""
    of = scope(settings, db, {})
    return bool(of and _of_scope(of)["elsewhere"])


def shared_conditions() -> frozenset[Condition]:
    """Return what concerns the whole scope."""
    from orchestration.pulse.scope import SHARED

    return SHARED


def read(settings: "Settings", db: Database, values: Values, now: datetime, of: "Scope | None" = None) -> Signs:
    """Read the signs as they are now (aware UTC).

    Args:
        values: the metrics' of the same transaction.
        of: the scope that this host is one of.
    """
    (row,) = db.rows(
        "pulse.signs",
        contention_since=to_text(now - evidence.CONTENTION_WITHIN),
        dream_since=to_text(now - evidence.DREAM_WITHIN),
        lost_since=to_text(now - evidence.LOST_WITHIN),
        rolled_back_since=to_text(now - evidence.ROLLED_BACK_WITHIN),
        overflow_since=to_text(now - evidence.OVERFLOW_WITHIN),
        urgent_since=to_text(now - evidence.URGENT_WITHIN),
    )
    held, held_since, held_expires = _list(row, "escrow")
    active = next(iter(ledger.active(db)), None)
    newest = next(iter(calendar.recent(db, 1)), None)
    return Signs(
        now=now,
        switches=switches(settings),
        last_tick_at=_instant(values, "kloros_orchestrator_last_tick_timestamp_seconds"),
        last_attempt_at=_instant(values, "kloros_orchestrator_last_attempt_timestamp_seconds"),
        tick_exits=tuple(_list(row, "tick_exits")),
        contentions=cast("int", row["contentions"]),
        iteration_at=from_text_or_none(cast("str | None", row["iteration_at"])),
        loop_failure_limit=values.get(("kloros_loop_failure_limit_reached", ""), 0.0) > 0,
        archives_stale=values.get(("kloros_loop_archives_stale", ""), 0.0) > 0,
        active_cycle=None if active is None else active.cycle,
        active_deadline=None if active is None or active.started_at is None else active.started_at + active.timeout,
        phase_date=None if newest is None else newest.date.isoformat(),
        phase_result=None if newest is None else newest.result,
        phase_reason=None if newest is None else f"{newest.reason}: {newest.evidence}",
        phase_ends=tuple(_list(row, "phase_ends")),
        phase_seconds=tuple(float(seconds) for seconds in _list(row, "phase_seconds") if seconds is not None),
        dream_ends=tuple(_list(row, "dream_ends")),
        lost=cast("int", row["lost"]),
        promotions_unacked=int(values.get(("kloros_promotions_unacked", ""), 0)),
        promotions_parked=int(values.get(("kloros_promotions_parked", ""), 0)),
        escrow_pending=held,
        escrow_since=from_text_or_none(held_since),
        escrow_expires=from_text_or_none(held_expires),
        rolled_back=_rolled_back(row),
        intents_pending=int(values.get(("kloros_intents_pending", ""), 0)),
        intents_max=settings.intents.max_pending,
        intents_dropped=cast("int", row["intents_dropped"]),
        urgent=tuple(_list(row, "urgent")),
        federation_since=from_text_or_none(cast("str | None", row["federation_since"])),
        bridge=None if row["bridge"] is None else _bridge(json.loads(str(row["bridge"]))),
        wake=None if row["wake"] is None else _wake(json.loads(str(row["wake"]))),
        disk_free=_disk_free(settings.state_dir),
        disk_low_below=settings.retention.low_disk,
        **_of_scope(of),
    )


def _of_scope(of: "Scope | None") -> dict[str, Any]:
    if of is None:
        return {}
    from orchestration.pulse.scope import findings, is_told_elsewhere

    return {"scope": findings(of), "elsewhere": is_told_elsewhere(of)}


def _rolled_back(row: Row) -> tuple[int, datetime, str] | None:
    if row["rolled_back"] is None:
        return None
    version, at, reason = _list(row, "rolled_back")
    return version, from_text(at), reason


def _bridge(told: dict[str, Any]) -> BridgeSigns:
    return BridgeSigns(
        told_at=from_text(told["at"]),
        serving=told["serving"],
        blocked=told["blocked"],
        blocked_since=from_text_or_none(told["blocked_since"]),
        blocked_thread=told["blocked_thread"],
        behind=told["behind"],
        unread_since=from_text_or_none(told["unread_since"]),
        unread_by=told["unread_by"],
        unread_thread=told["unread_thread"],
    )


def _wake(told: dict[str, Any]) -> WakeSigns:
    """Read it; what began is an instant, whatever else there is stays as it was told."""
    since: dict[str, Any] = {name: from_text_or_none(value) for name, value in told.items() if name.endswith("_since")}
    told_at = from_text(told.pop("at"))
    return WakeSigns(**{**told, **since, "told_at": told_at})


def switches(settings: "Settings") -> tuple[Mode, ...]:
    """Return everything that settings and switches set against ticks now; the first says the mode, nothing is `enabled`."""
    found = [] if settings.orchestration_mode == "enabled" else [Mode.DISABLED]
    if gate.halted(settings) is not None:
        found.append(Mode.HALTED)
    if os.path.exists(os.path.join(settings.state_dir, MAINTENANCE_FILE)):
        found.append(Mode.MAINTENANCE)
    return tuple(found)


def _instant(values: Values, name: str) -> datetime | None:
    seconds = values.get((name, ""), 0.0)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds) if seconds else None


def _list(row: Row, column: str) -> list[Any]:
    return cast("list[Any]", json.loads(cast("str", row[column])))


def _disk_free(path: str) -> int | None:
    try:
        return room(path).free
    except OSError:
        return None
