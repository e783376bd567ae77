"""The composition root: the one place where adapters are built and given to the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from orchestration import configuration
from orchestration.errors import KlorosError, StoreEmpty, StoreUnreachable, Unwritable
from orchestration.exits import Exit
from orchestration.host import clock, process_identity, zones
from orchestration.host.journal import Event, Priority, log
from orchestration.store import opening
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.scope.leading import FencedDatabase, Leading
    from orchestration.scope.sharing import Sharing
    from orchestration.settings import Settings
    from orchestration.store.port import Database

STORE = opening.FILE


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings: those of the last valid reading when nothing has changed since, else read anew.

    Raises:
        SettingsInvalid: with every fault.
    """
    return configuration.load_remembered(environ) or configuration.load(environ)


def become_owner(state_dir: str) -> None:
    """Let root act as the owner of the state folder, so that a manual `sudo` tick leaves no file that the timer can't write.

    Does nothing for other users, and when the folder is root's own or absent.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(state_dir)
    except OSError:
        return
    if owner.st_uid != 0:
        from orchestration.host.borrowed import groups_of

        os.setgroups(groups_of(owner.st_uid, owner.st_gid))
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


@contextmanager
def kernel(settings: Settings, environ: Mapping[str, str]) -> Iterator[Kernel]:
    """Open the store, made if absent, and give a kernel that works on the real world.

    Raises:
        StoreUnreachable, Unwritable: the state folder or the store can't be used.
    """
    os.umask(0o077)  # as the units have it: the store, and what commands leave, is for the owner alone
    try:
        os.makedirs(settings.state_dir, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unwritable(
            f"{settings.state_dir} can't be made: {error.strerror}", hint="correct state_dir, or who may write there"
        ) from error
    db = opening.open_store(settings)
    try:
        found = _kernel(settings, db, start=_starter(settings, environ), publish=_publisher(settings, environ, db))
        if settings.database_url:
            found = found._replace(leading=leading(settings, db), shared=shared(settings, db))
        yield found
    finally:
        db.close()


@contextmanager
def detached_kernel(settings: Settings) -> Iterator[Kernel]:
    """Give a kernel over a copy of the store in memory: for looking, trying out and explaining. It changes no byte."""
    place = opening.place_of(settings)
    if opening.is_made(place):
        db = _copy(place)
    elif os.path.isdir(settings.state_dir) and not os.access(settings.state_dir, os.X_OK):
        raise StoreUnreachable(f"{settings.state_dir} may not be entered", hint="run it as the folder's owner: sudo")
    else:
        db = opening.empty()
    try:
        with seen_of_others(settings, db) as sharing:
            yield _kernel(settings, db, start=lambda _entry: None, publish=lambda: None)._replace(shared=sharing)
    finally:
        db.close()


def _copy(place: opening.Place) -> Database:
    try:
        return opening.copy_of(place)
    except StoreEmpty:
        return opening.empty()


def _kernel(settings: Settings, db: Database, *, start: Callable[[str], None], publish: Callable[[], None]) -> Kernel:
    zones.find(settings.phase.time_zone)
    return Kernel(
        settings=settings,
        db=db,
        start=start,
        publish=publish,
        now=clock.now,
        boot_id=process_identity.boot_id(),
    )


def leading(settings: Settings, db: Database) -> Leading:
    """Return this host's part in who decides, over the scope's store."""
    from orchestration.scope.leading import Leading

    return Leading(cast("FencedDatabase", db), opening.here(settings.scope), settings.scope.lease, settings.state_dir)


def standing_by(settings: Settings) -> tuple[Exit, str, str] | None:
    """Return why a tick of this host would leave deciding to another now: exit, reason, evidence; None when it would decide.

    Raises:
        StoreUnreachable: the database can't be read.
    """
    if not settings.database_url:
        return None
    from orchestration.scope.lease import Act, act, why_not

    here = opening.here(settings.scope)
    try:
        lease = opening.look(opening.place_of(settings), lambda db: leading(settings, db).look())
    except StoreEmpty:
        return None
    if act(lease, here) in (Act.TAKE, Act.RENEW):
        return None
    return Exit.DONE, "standby", f"{here} stands by: {why_not(lease, here)}"


def shared(settings: Settings, db: Database) -> Sharing:
    """Return this host's part in what the hosts of its scope share."""
    from orchestration.scope.sharing import Sharing

    return Sharing(settings, db, opening.here(settings.scope), boot_id=process_identity.boot_id())


@contextmanager
def seen_of_others(settings: Settings, db: Database) -> Iterator[Sharing | None]:
    """Give what the hosts of the scope share to somebody who only looks; None on a single host."""
    if not settings.database_url:
        yield None
        return
    from orchestration.scope.looking import looking

    def opened() -> Database:
        return opening.open_at(opening.place_of(settings), read_only=True)

    with looking(settings, db, opening.here(settings.scope), opened=opened) as sharing:
        yield sharing


def _starter(settings: Settings, environ: Mapping[str, str]) -> Callable[[str], None]:
    def start(entry: str) -> None:
        from orchestration.cycles.launch import launcher

        launcher(settings, environ).start(entry)

    return start


def _publisher(settings: Settings, environ: Mapping[str, str], db: Database) -> Callable[[], None]:
    def publish() -> None:
        from orchestration.pulse.publish import is_notice_due
        from orchestration.pulse.publish import publish as publish_all

        now = clock.now()
        judgement = publish_all(settings, db, now)
        somebody = settings.launcher == "systemd" or settings.notices.urls_file  # may be there to be told
        if somebody and is_notice_due(db, judgement, now):
            start_notifier(settings, environ)

    return publish


def start_notifier(settings: Settings, environ: Mapping[str, str]) -> None:
    """Get the notifier started; that it can't be is no reason to fail, for the next tick asks again."""
    try:
        _starter(settings, environ)("run_notice")
    except KlorosError as error:
        log(Event.NOTICE_FAILED, f"the notifier could not be started: {error.message}", priority=Priority.WARNING)
