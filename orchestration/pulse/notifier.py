"""One pass of telling: look at what the last tick judged and at failed units, work out the news, keep it, send it.

Level-triggered like a tick: it compares the store with what it told, so a lost kick costs a minute. It keeps before it
sends: killed in between, the next pass sends. Nothing here can fail or delay a tick, which only leaves a kick.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from orchestration.cycles.backoff import Backoff
from orchestration.errors import KlorosError
from orchestration.host import beside, clock
from orchestration.host.journal import Event, Priority, log
from orchestration.pulse import delivery, notice, notice_ledger, signs
from orchestration.pulse.delivery import Target
from orchestration.pulse.notice import Notice, Place, Rules, Seen, Severity, Standing, UnitFailure
from orchestration.store.instants import from_text
from orchestration.store.opening import here

if TYPE_CHECKING:
    from orchestration.settings import Settings
    from orchestration.store.port import Database

FAILURES = "notices"
"""Folder in the state folder where `kloros-alert@.service` leaves one file for each unit and status that failed."""
_LONGEST = 4096  # bytes of such a file
_TOLD = ".told-"  # before the name of one that was told without the store
_UNREADABLE_AGAIN = timedelta(minutes=5)


class _Failure(NamedTuple):
    path: str
    told: UnitFailure


def rules(settings: Settings) -> Rules:
    """Return what the settings say about telling."""
    found = settings.notices
    return Rules(per_hour=found.per_hour, settle=found.settle, backoff=Backoff(found.backoff))


def place(settings: Settings) -> Place:
    """Return where we are."""
    host = here(settings.scope) if settings.database_url else os.uname().nodename
    return Place(host=host, zone=settings.phase.time_zone)


def tell(settings: Settings, db: Database, to: tuple[Target, ...] | None) -> None:
    """Do one pass with the store at hand. Held by its lock: two passes would tell twice. `to` None: see `targets`."""
    if to is None:
        judged = signs.told(signs.judged(db, clock.now()), elsewhere=signs.is_told_elsewhere(settings, db))
        notice_ledger.keep(db, notice_ledger.standing(db), judged, clock.now() + _UNREADABLE_AGAIN)
        return
    failures = list(_failures(settings.state_dir))
    how = rules(settings)
    elsewhere = signs.is_told_elsewhere(settings, db)
    judged = signs.told(signs.judged(db, clock.now()), elsewhere=elsewhere)
    seen = Seen(
        now=clock.now(),
        causes=judged.causes,
        failures=[failure.told for failure in failures],
        well_at=_well_at(db, how.settle),
        elsewhere=signs.shared_conditions() if elsewhere else frozenset(),
    )
    meanwhile = list(_failures(settings.state_dir, _TOLD))
    before = notice.told_meanwhile(notice_ledger.standing(db), [failure.told for failure in meanwhile])
    news = notice.consider(before, seen, how, place(settings))
    standing = notice.put_out(news.standing, news.notices, [target.key for target in to], seen.now)
    held = [failure.told for failure in failures if failure.told not in news.done]
    notice_ledger.keep(db, standing, judged, notice.next_look(standing, seen, how, held))
    for failure in (*failures, *meanwhile):
        if failure.told in news.done or failure in meanwhile:
            _remove(failure.path)
    for one in news.notices if not to else ():
        log(Event.NOTICE_SENT, f"told nobody, for no URL is set: {one.title}", priority=Priority.DEBUG)
    sent = _send(standing, to, how)
    if sent != standing:
        notice_ledger.keep(db, sent, judged, notice.next_look(sent, seen, how, held))


def tell_without_store(settings: Settings, to: tuple[Target, ...] | None) -> None:
    """Tell of failed units where the store can't be used: their files stay until somebody has taken the notice.

    That it was told is kept in a file as well, so that a pass with the store tells when the unit is well again.
    """
    if to is None:
        return
    for path, failure in _failures(settings.state_dir):
        seen = Seen(now=clock.now(), causes=(), failures=[failure])
        news = notice.consider(Standing(), seen, rules(settings), place(settings))
        faults = [_deliver(one, to) for one in news.notices]
        if not to:
            _remove(path)
        elif not all(faults):
            folder, name = os.path.split(path)
            os.replace(path, os.path.join(folder, f"{_TOLD}{name}"))


def test(settings: Settings, to: tuple[Target, ...]) -> list[str]:
    """Send a notice that says that it is a test; return why whom it did not reach."""
    where = place(settings)
    text = f"A test of the notices of {where.host}, asked for by a person. Nothing is wrong."
    one = Notice(subject="test", severity=Severity.SUCCESS, title=f"{where.host}: a test", body=text, made_at=clock.now())
    return list(delivery.deliver(one, to).values())


def _send(standing: Standing, to: tuple[Target, ...], how: Rules) -> Standing:
    """Try every notice that is due; what was meant for a URL that is no longer there is dropped."""
    for waiting in notice.due(standing, clock.now()):
        meant = [target for target in to if target.key in waiting.targets]
        faults = _deliver(waiting.notice, tuple(meant))
        standing = notice.attempted(standing, waiting.notice.subject, faults, clock.now(), how)
    return standing


def _deliver(one: Notice, to: tuple[Target, ...]) -> dict[str, str]:
    faults = delivery.deliver(one, to)
    if len(faults) < len(to):
        log(Event.NOTICE_SENT, f"told: {one.title}", subject=one.subject, targets=len(to) - len(faults))
    if faults:
        why = "; ".join(faults.values())
        log(Event.NOTICE_FAILED, f"not told: {one.title}: {why}", priority=Priority.WARNING, subject=one.subject)
    return faults


def _well_at(db: Database, settle: timedelta) -> dict[str, datetime]:
    """Return when each unit last did what it is for, where it ever has.

    Pulse writes nothing, nor does a bridge without threads. They are well when they have run for `settle`: what fails at
    each start does not come as far.
    """
    found = {}
    for unit in (notice.PULSE, notice.BRIDGE):
        since = beside.running_since(unit)
        if since is not None and clock.now() - since >= settle:
            found[unit] = since
    for row in db.rows("notices.last_tick"):
        found[notice.TICKS] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(str(row["value"])))
    for unit, query in (
        (notice.LOOP, "notices.last_iteration"),
        (notice.CYCLES, "notices.last_cycle"),
        (notice.BRIDGE, "notices.bridge_told"),
    ):
        for row in db.rows(query):
            found[unit] = from_text(str(row["ended_at"]))
    return found


def _failures(state_dir: str, prefix: str = "") -> Iterator[_Failure]:
    """Read the files of failed units, oldest first; what is none is removed. `prefix` is `_TOLD` for those told already."""
    folder, found = os.path.join(state_dir, FAILURES), []
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.endswith(".json") and name.startswith(_TOLD) == bool(prefix):
                path = os.path.join(folder, name)
                failure = _failure(path)
                if failure is not None:
                    found.append(_Failure(path, failure))
    yield from sorted(found, key=lambda failure: failure.told.ts)


def _failure(path: str) -> UnitFailure | None:
    try:
        with open(path, encoding="utf-8") as file:
            return UnitFailure.model_validate(json.loads(file.read(_LONGEST)))
    except (OSError, ValueError, ValidationError):
        _remove(path)
        return None


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def targets(settings: Settings, environ: Mapping[str, str]) -> tuple[Target, ...] | None:
    """Return whom to tell; None, with a line in the log, where the URLs can't be read: then nothing counts as told."""
    try:
        return delivery.targets(settings.notices.urls_file, environ)
    except KlorosError as error:
        log(Event.NOTICE_FAILED, f"nobody can be told: {error}", priority=Priority.ERROR)
        return None
