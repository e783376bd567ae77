"""Says in a host's files for readers that its ticks can't use the store: that is what its numbers rest on.

A tick that ends with 69 decides nothing and has nothing to count, and what the tick before it wrote would go on saying that
all is well. So verdict and condition are changed in the textfile and in `latest.json`, and what claims that this host leads
is taken out; counters and instants stay, for they were true and Prometheus knows how old they are. The next tick that
reaches the store writes both anew.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestration.errors import HostDoubled, KlorosError, StoreUnreachable
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log
from orchestration.pulse import health, metrics
from orchestration.pulse.health import Cause, Condition, Judgement
from orchestration.pulse.judgement import span

if TYPE_CHECKING:
    from orchestration.settings import Settings

PAGE = "docs/runbooks/database-away.md"
SINCE = "kloros_store_unreachable_timestamp_seconds"
_REWRITTEN = frozenset({"kloros_build_info", "kloros_health_verdict", "kloros_health_condition", SINCE})
_LONGEST = 4 * 1024**2  # bytes of a file of ours


def tell(settings: Settings, error: StoreUnreachable | HostDoubled, now: datetime) -> None:
    """Say at an instant (aware UTC) why ticks can't use the store, in both files as far as they can be written."""
    condition = Condition.HOST_DOUBLED if isinstance(error, HostDoubled) else Condition.STORE_UNREACHABLE
    before = _read(settings.textfile)
    judgement = judged(condition, error.message, since(before) or now)
    _replace(settings.textfile, exposition(before, judgement), mode=0o644)
    path = os.path.join(settings.state_dir, "latest.json")
    told = latest(_read(path), judgement)
    if told:
        _replace(path, told, mode=0o640)


def explained(settings: Settings, error: StoreUnreachable, now: datetime) -> StoreUnreachable:
    """Add to what a person is told of a store that hosts share: since when, and that nothing is lost by it."""
    if not settings.database_url or PAGE in error.hint:
        return error
    began = since(_read(settings.textfile))
    length = None if began is None else now - began
    words = "less than a minute" if length is None or length < timedelta(minutes=1) else span(length)
    how_long = "" if length is None else f"No tick of this host has used it for {words}. "
    hint = f"{error.hint}\n  {how_long}Meanwhile nothing is decided, and nothing is lost: files wait. See {PAGE}"
    told = type(error)(error.message, hint=hint)
    told.__cause__ = error
    return told


def judged(condition: Condition, why: str, began: datetime) -> Judgement:
    """Return what is left to judge without a store: that there is none."""
    (rule,) = [rule for rule in health.RULES if rule.condition is condition]
    cause = Cause(condition, rule.verdict, began, why, rule.advice)
    return Judgement(rule.verdict, (cause,), ())


def since(text: str) -> datetime | None:
    """Return since when a textfile says so already (aware UTC)."""
    for found in re.findall(rf"^{SINCE} ([0-9.eE+]+)$", text, re.MULTILINE):
        with suppress(ValueError, OverflowError):
            return datetime.fromtimestamp(float(found), UTC) if float(found) > 0 else None
    return None


def exposition(before: str, judgement: Judgement) -> str:
    """Write the metrics as the textfile had them, but for what is not so any more."""
    values = metrics.of_judgement(judgement)
    values[SINCE, ""] = judgement.causes[0].since.timestamp()
    kept = [line for line in before.splitlines() if not _is_changed(line)]
    return "\n".join([*kept, metrics.exposition(values, only=_REWRITTEN)])


def _is_changed(line: str) -> bool:
    """Tell whether a line, of a sample or about a family, is of one that says something else now."""
    words = line.split(" ")
    name = words[2] if words[0] == "#" and len(words) > 2 else words[0].partition("{")[0]
    return name in _REWRITTEN or name.startswith("kloros_scope_")


def latest(before: str, judgement: Judgement) -> str:
    """Write `latest.json` likewise; empty where there is none that can be read."""
    try:
        document: dict[str, Any] = json.loads(before)
        return json.dumps({**document, **health.as_json(judgement)}) + "\n"
    except (ValueError, TypeError):
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(_LONGEST)
    except (OSError, ValueError):
        return ""


def _replace(path: str, text: str, *, mode: int) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        return
    try:
        files.replace(path, text.encode(), mode=mode, durable=False)
    except (KlorosError, OSError) as error:
        log(Event.TEXTFILE_MISSING, f"{path} still says what it said before: {error}", priority=Priority.WARNING, path=path)
