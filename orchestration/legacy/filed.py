"""Acks, signals and intents of the older orchestrator: files that are taken over as they are, byte for byte.

Acks: every form that `promotions.scan` knows, by name (`<stem>_ack.json`) or by content (`promotion_id`). A name of the
first form answers its promotion whatever the file holds, in the older program as here, so it is taken over even when it
can't be read as JSON.
Signals: checked for their form only; their reports were written over by the next PHASE.
Intents: only those that wait; one that would be stale at once, or can't be read, is left where it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime

from orchestration.errors import Malformed
from orchestration.intents.document import Intent, parse
from orchestration.intents.inbox import key_of
from orchestration.intents.intent import FINAL, Category, category_of, waiting_since
from orchestration.legacy.item import Kind, Step, copying, refused, there
from orchestration.legacy.tree import Found
from orchestration.phase.epoch import SIGNAL_PREFIX
from orchestration.tick.kernel import Kernel

_ACK_ENDING = "_ack.json"
_PRIVATE, _SHARED = 0o600, 0o640


def plan_acks(kernel: Kernel, acks: Iterable[Found]) -> list[Step]:
    """Plan for each ack; a folder that is our own is not opened again."""
    folder = kernel.settings.acks_dir
    return [_unless_faulty(Kind.ACK, found) or _ack(found, folder) for found in acks]


def plan_signals(kernel: Kernel, signals: Iterable[Found], now: datetime) -> list[Step]:
    """Plan for each signal; one that retention would remove at once stays where it is. `now` is aware UTC."""
    kept = kernel.settings.retention.keep_processed
    return [
        _unless_faulty(Kind.SIGNAL, found) or _signal(found, kernel.path("signals"), (now - kept).timestamp())
        for found in signals
    ]


def plan_intents(kernel: Kernel, intents: Iterable[Found], now: datetime) -> list[Step]:
    """Plan for each intent that waits. `now` is aware UTC."""
    return [_unless_faulty(Kind.INTENT, found) or _intent(kernel, found, now) for found in intents]


def _unless_faulty(kind: Kind, found: Found) -> Step | None:
    if found.fault:
        return refused(kind, found.name, found.fault)
    try:
        found.name.encode()
    except UnicodeEncodeError:
        return refused(kind, key_of(found.name), "its name is not UTF-8")
    return None


def _object(data: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _ack(found: Found, folder: str) -> Step:
    value = _object(found.data) or {}
    identity = value.get("promotion_id")
    if isinstance(identity, str) and identity and identity.isprintable():
        return copying(Kind.ACK, found, folder, _SHARED)
    if found.name.endswith(_ACK_ENDING) and found.name != _ACK_ENDING and not found.name[0].isdigit():
        stem = found.name.removesuffix(_ACK_ENDING)
        return copying(Kind.ACK, found, folder, _SHARED, f"names no promotion_id; by its name it answers {stem}")
    return refused(Kind.ACK, found.name, "is no ack: it names no promotion_id")


def _signal(found: Found, folder: str, oldest: float) -> Step:
    value = _object(found.data)
    if value is None:
        return refused(Kind.SIGNAL, found.name, "is no JSON object")
    epoch = found.name.removeprefix(SIGNAL_PREFIX).removesuffix(".json")
    if value.get("epoch_id") != epoch:
        return refused(Kind.SIGNAL, found.name, f"is of epoch {str(value.get('epoch_id'))[:100]!a}, not of that in its name")
    if found.changed_at < oldest:
        return refused(Kind.SIGNAL, found.name, "older than [retention] keep_processed: the next tick would remove it")
    detail = "its PHASE left no report" if value.get("sha256") == "no_report" else ""
    return copying(Kind.SIGNAL, found, folder, _SHARED, detail)


def _intent(kernel: Kernel, found: Found, now: datetime) -> Step:
    try:
        intent = parse(found.data)
    except Malformed as error:
        return refused(Kind.INTENT, found.name, error.message)
    known = _known(kernel, found, intent)
    if known:
        return there(Kind.INTENT, found.name, known)
    changed = datetime.fromtimestamp(max(found.changed_at, 0.0), UTC)
    since = waiting_since(intent.emitted or changed, None, now)
    if now - since > kernel.settings.intents.expires_after:
        hours = kernel.settings.intents.expires_after.total_seconds() / 3600
        return refused(Kind.INTENT, found.name, f"stale: waits since {since:%Y-%m-%d %H:%MZ}, and expires after {hours:g} h")
    unknown = category_of(intent.intent_type) is Category.UNKNOWN
    detail = f"no rule for {intent.intent_type}: the next tick files it as unknown" if unknown else ""
    return copying(Kind.INTENT, found, kernel.path("intents"), _PRIVATE, detail)


def _known(kernel: Kernel, found: Found, intent: Intent) -> str:
    """Say what has become of an intent that came here before; empty for a new one."""
    for row in kernel.db.rows("operator.intents_named", name=key_of(found.name)):
        if row["content_sha"] == intent.content_sha and row["decided_at"]:
            return str(row["status"])
    filed = (str(status) for status in FINAL if os.path.lexists(kernel.path("intents/processed", status, found.name)))
    return next(filed, "")
