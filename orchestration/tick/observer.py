"""The observer: asks its rules, and whether it is time to reflect, and leaves what they want as intents.

Owns when rules are asked and that each intent is made once; `observer_rules.py` judges, and intents are then taken in like
everybody's. An intent is a row first, committed together with its cooldown, and then a file of the name that the row has.
The next tick writes a file that may be missing, before anybody takes intents in, so a kill in between neither loses nor
doubles one.

Rules are asked when something happened that they could count: whoever notes such a thing says so in the same transaction
(`news`). Without news they are asked when a heartbeat or a cooldown runs out, when the settings were read anew, and once an
hour in any case. So a quiet tick pays for one query, which `tick.py` asks, and does not import this module.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from orchestration.host import files
from orchestration.host.journal import Event, Priority, log
from orchestration.intents.document import render
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database
from orchestration.tick import idle
from orchestration.tick.kernel import Kernel
from orchestration.tick.observer_rules import Firing, Heartbeat, Judged, Occurrence, Rule, Seen, Watch, judge

EMITTER: Final = "kloros-observer"
_IN_ANY_CASE: Final = timedelta(hours=1)
_DUE: Final = "observer.due"
_UNTOLD: Final = "observer.untold"
_MOST: Final = 1000  # occurrences that are looked at for one rule
_QUERIES: Final = {
    Watch.PROMOTIONS: "observer.arrivals",
    Watch.PHASE_FAILURES: "observer.phase_failures",
    Watch.LOCK_CONTENTION: "observer.contentions",
}


def look(kernel: Kernel) -> None:
    """Ask the rules, note what they want, and write it.

    Raises:
        StoreUnreachable: nothing was noted. Unwritable: an intent can't be written; the next tick tries again.
    """
    reflection = idle.look(kernel)
    with kernel.db.transaction():
        now = kernel.now()
        unwritten = kernel.db.rows("observer.unwritten")
        judged = _judge(kernel, now)
        wanted = [*judged.firings, *((reflection.firing,) if reflection.firing else ())]
        for firing in wanted:
            _note(kernel.db, firing, now)
        times = [now + _IN_ANY_CASE, *filter(None, (judged.again_at, reflection.again_at))]
        due = to_text(max(min(times), now))
        # until every file is in place it stays due, for this tick may be killed
        kernel.db.run("facts.set", name=_DUE, value=to_text(now) if wanted or unwritten else due)
    for firing in wanted:
        log(Event.OBSERVED, firing.reason, priority=_gravity(firing.priority), rule=firing.rule, intent_type=firing.intent)
    if wanted or unwritten:
        _write(kernel)
        with kernel.db.transaction():
            kernel.db.run("observer.rest", due=due, asked=to_text(now))


def _write(kernel: Kernel) -> None:
    """Put every intent that was noted into its folder."""
    for row in kernel.db.rows("observer.unwritten"):
        name, content = str(row["intent"]), str(row["content"]).encode()
        if kernel.shared is None:
            files.make_folder(kernel.intents_dir)
            files.create(os.path.join(kernel.intents_dir, name), content)
        with kernel.db.transaction():
            if kernel.shared is not None:
                kernel.shared.give_intents([(name, content)], now=kernel.now())
            kernel.db.run("observer.written", event=cast("int", row["event"]))


def asked_for(kernel: Kernel) -> tuple[Firing, ...]:
    """Return the intents that a tick would make now. Writes to the store, so on a copy of it only."""
    reflection = idle.look(kernel)
    firings = _judge(kernel, kernel.now()).firings
    return (*firings, reflection.firing) if reflection.firing else firings


def _judge(kernel: Kernel, now: datetime) -> Judged:
    rules = [
        Rule(name, Watch(one.watch), one.intent, one.priority, one.at_least, one.within, one.cooldown)
        for name, one in kernel.settings.observer.rules.items()
        if one.enabled
    ]
    rows = kernel.db.rows("observer.last", now=to_text(now))
    told = {(str(row["rule"]), str(row["subject"])): from_text(str(row["at"])) for row in rows}
    counted = {rule.name: _occurrences(kernel.db, rule, now) for rule in rules if rule.watch is not Watch.HEARTBEATS}
    beats = _heartbeats(kernel, now) if any(rule.watch is Watch.HEARTBEATS for rule in rules) else []
    return judge(rules, Seen(now, counted, beats, told))


def _occurrences(db: Database, rule: Rule, now: datetime) -> list[Occurrence]:
    since, until = to_text(now - rule.within), to_text(now)
    if rule.watch is Watch.OUTPUT:
        rows = db.rows("observer.sightings", rule=rule.name, since=since, now=until, limit=_MOST)
    else:
        rows = db.rows(_QUERIES[rule.watch], since=since, now=until, limit=_MOST)
    return [Occurrence(from_text(str(row["at"])), str(row["what"]), cast("int", row["number"])) for row in rows]


def _heartbeats(kernel: Kernel, now: datetime) -> list[Heartbeat]:
    """Look at the files.

    What can't be told by a file's time counts from when it was first seen so: one that is missing, so that a boot raises
    no alarm, and one that was touched in the future, when the clock was wrong, and never again.
    """
    known = kernel.db.rows("facts.get", name=_UNTOLD)
    before: dict[str, list[str]] = json.loads(str(known[0]["value"])) if known else {}
    untold: dict[str, list[str]] = {}
    beats = []
    for program, path in kernel.settings.observer.heartbeats.items():
        touched, fault = _touched(path)
        if touched is None or touched > now:
            mark = "" if touched is None else to_text(touched)
            told, since = before.get(path, (mark, to_text(now)))
            untold[path] = [mark, min(since, to_text(now)) if told == mark else to_text(now)]
            touched = from_text(untold[path][1])
        beats.append(Heartbeat(program, path, touched, fault))
    if untold != before:
        kernel.db.run("facts.set", name=_UNTOLD, value=json.dumps(untold))
    return beats


def _touched(path: str) -> tuple[datetime | None, str]:
    """Return when a file was touched last, or what is wrong with it."""
    try:
        return datetime.fromtimestamp(os.stat(path).st_mtime, UTC), ""
    except (FileNotFoundError, NotADirectoryError):
        return None, "is not there"
    except OSError as error:
        return None, f"can't be looked at ({error.strerror})"
    except (OverflowError, ValueError):
        return None, "has a time beyond all dates"


def _gravity(priority: int) -> Priority:
    """Say how loud the journal tells of an intent of this priority."""
    return Priority.ERROR if priority >= 8 else Priority.WARNING if priority >= 6 else Priority.NOTICE


def _note(db: Database, firing: Firing, now: datetime) -> None:
    name, content = render(
        intent_type=firing.intent,
        priority=firing.priority,
        reason=firing.reason,
        data=json.loads(json.dumps(firing.data)),
        emitted_by=EMITTER,
        now=now,
    )
    db.run(
        "observer.note",
        rule=firing.rule,
        subject=firing.subject,
        at=to_text(now),
        evidence=json.dumps(firing.data),
        intent=name,
        content=content.decode(),
    )
