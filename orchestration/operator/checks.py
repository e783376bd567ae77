"""The checks of what is ours: settings, folders, locks, store, runner, ticks, queues."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from datetime import timedelta

from orchestration.baseline import escrow_ledger
from orchestration.baseline import history as baseline_history
from orchestration.cycles import claims, ledger, orphan
from orchestration.cycles.cycle import Cycle, CycleState, Executor, JobName
from orchestration.errors import KlorosError, SettingsInvalid
from orchestration.host.lock import FileLock
from orchestration.operator.baseline import faults
from orchestration.operator.check import Check, Level
from orchestration.operator.config import strays
from orchestration.operator.console import Console
from orchestration.operator.screen import span
from orchestration.promotions.scan import scan_unacked
from orchestration.pulse import notice_ledger
from orchestration.pulse.evidence import TICKS_MISSED
from orchestration.store import opening
from orchestration.tick import history
from orchestration.tick.gate import KILL_SWITCH
from orchestration.tick.kernel import Kernel
from orchestration.tick.observe import MAINTENANCE_FILE

UNCLAIMED_AFTER = timedelta(minutes=2)
_FOLDERS = ("locks", "intents", "intents/processed", "signals", "cycles", "baseline", "kick")


def settings(console: Console) -> Iterator[Check]:
    """Check that the settings are valid, and that they let ticks work."""
    try:
        mode = console.settings.orchestration_mode
        stray = strays(console.environ)
    except SettingsInvalid as error:
        yield Check("settings", Level.ERROR, error.message, error.hint)
        return
    if stray:
        yield Check("settings", Level.WARNING, f"no setting: {', '.join(stray)}", "klorosctl config check")
    else:
        yield Check("settings", Level.OK, "every setting is valid")
    source = console.mode_source()
    if mode == "enabled":
        yield Check("mode", Level.OK, f"enabled, says {source}")
    else:
        yield Check("mode", Level.WARNING, f"{mode}, says {source}: no tick does anything", "klorosctl enable")
    for name, undo in ((KILL_SWITCH, "klorosctl unhalt"), (MAINTENANCE_FILE, "klorosctl maintenance off")):
        path = console.path(name)
        if os.path.lexists(path):
            yield Check(name, Level.WARNING, f"{path} exists: nothing new is started", undo)


def folders(console: Console) -> Iterator[Check]:
    """Check that every folder can be written, or made."""
    settings = console.settings
    paths = [settings.state_dir, *(console.path(name) for name in _FOLDERS), settings.promotions_dir, settings.acks_dir]
    faults = [(path, fault) for path in paths if (fault := _unwritable(path))]
    if faults and faults[0][0] == settings.state_dir:
        del faults[1:]  # the others follow from it
    for path, fault in faults:
        advice = f"ls -ld {path}; be the user that ticks run as (sudo), or give it to that user"
        yield Check("folder", Level.ERROR, f"{path}: {fault}", advice)
    if faults:
        return
    full = _write_some(settings.state_dir)
    if full:
        yield Check("folders", Level.ERROR, f"{settings.state_dir}: {full}", f"df -h {settings.state_dir}")
        return
    absent = [path for path in paths if not os.path.isdir(path)]
    later = f"; {len(absent)} are made when they are needed" if absent else ""
    yield Check("folders", Level.OK, f"{len(paths)} can be written below {settings.state_dir} and as set{later}")


def _unwritable(path: str) -> str:
    """Say why a folder can't be written; empty when it can, or can be made."""
    if os.path.isdir(path):
        return "" if os.access(path, os.R_OK | os.W_OK | os.X_OK) else "can't be read and written by this user"
    if os.path.lexists(path):
        return "is no folder"
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    fit = os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)
    return "" if fit else f"is not there, and {above} does not let this user make it"


def _write_some(folder: str) -> str:
    """Write a file without a name, so that no watcher sees it; says why that fails."""
    if not os.path.isdir(folder):
        return ""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def locks(console: Console) -> Iterator[Check]:
    """Check that locks can be taken; who holds one, is told."""
    for name, who in (("orchestrator.lock", "a tick"), ("runner.lock", "a runner")):
        lock = FileLock(console.path("locks", name))
        try:
            free = lock.is_free()
        except OSError as error:
            yield Check(name, Level.ERROR, f"{lock.path}: {error.strerror}", f"ls -l {lock.path}")
            continue
        if os.path.exists(lock.path) and not os.access(lock.path, os.R_OK | os.W_OK):
            yield Check(name, Level.ERROR, f"{lock.path} can't be opened by this user", f"ls -l {lock.path}")
        elif free:
            yield Check(name, Level.OK, "free")
        elif (gone := lock.outlived()) is not None and not lock.is_free() and lock.outlived() == gone:
            evidence = f"held by another process; its record (pid {gone}) is old"
            yield Check(name, Level.WARNING, evidence, f"lslocks --output COMMAND,PID,TYPE,MODE,PATH | grep {lock.path}")
        else:
            yield Check(name, Level.OK, f"held by {who}: {lock.record()}")


def store(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that the store answers."""
    place = opening.place_of(console.settings)
    path = str(place)
    if not opening.is_made(place):
        yield Check("store", Level.OK, f"{path} is not there yet; the first tick makes it")
        return
    newest = history.recent(kernel.db, 1)
    ledger.recent(kernel.db, 1)
    if not place.url and not os.access(path, os.W_OK):
        yield Check("store", Level.ERROR, f"{path} can't be written by this user", f"ls -l {path}")
        return
    yield Check("store", Level.OK, f"{path} answers" + (f", tick {newest[0].tick} is the last" if newest else ""))


def running(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that what is queued gets its runner, and that what runs has one."""
    try:
        idle = FileLock(console.path("locks", "runner.lock")).is_free()
    except OSError:
        idle = True
    for turn in ledger.standing(kernel.db):
        if turn.job is JobName.WAKE and turn.started_at and orphan.lock_of(console.settings.state_dir, turn).is_free():
            evidence = f"cycle {turn.cycle} (a turn) stands as running and no runner lives"
            yield Check("runner", Level.WARNING, evidence, "the next tick records it as lost: klorosctl tick")
    here = claims.here(console.settings)
    waiting = [cycle for cycle in ledger.active(kernel.db) if cycle.executor is Executor.LOCAL]
    active = [cycle for cycle in waiting if claims.is_ours(cycle, here) and not (here and _is_left(console, cycle))]
    for cycle in waiting:
        if cycle not in active:
            told = claims.why_queued(kernel.db, cycle, console.settings) or f"it runs on {cycle.host}"
            yield Check("runner", Level.OK, f"cycle {cycle.cycle} is not this host's: {told}")
    for cycle in active if idle else ():
        if cycle.state is CycleState.RUNNING:
            evidence = f"cycle {cycle.cycle} stands as running and no runner lives"
            yield Check("runner", Level.WARNING, evidence, "the next tick records it as lost: klorosctl tick")
        elif console.now - cycle.queued_at > UNCLAIMED_AFTER:
            evidence = f"cycle {cycle.cycle} is queued for {span(console.now - cycle.queued_at)} and no runner takes it"
            yield Check("runner", Level.ERROR, evidence, _start_runner(console))
        else:
            yield Check("runner", Level.OK, f"cycle {cycle.cycle} is queued, its runner is starting")
    if not active:
        yield Check("runner", Level.OK, "nothing is queued or running")
    elif not idle:
        yield Check("runner", Level.OK, f"a runner is at cycle {active[0].cycle}")


def needs(console: Console) -> Iterator[Check]:
    """Check that this host has what its local jobs say they need."""
    settings = console.settings
    for job, section in ((JobName.PHASE, settings.phase), (JobName.DREAM, settings.dream)):
        if section.executor == "slurm" or not (lacks := claims.unmet(job, settings)):
            continue
        if settings.database_url:
            yield Check("needs", Level.OK, f"{lacks}: another host must run it")
        else:
            hint = f"correct [{job}.needs]: klorosctl config"
            yield Check("needs", Level.ERROR, f"{lacks}: every cycle of it fails", hint)


def _is_left(console: Console, cycle: Cycle) -> bool:
    return cycle.state is CycleState.QUEUED and bool(claims.unmet(cycle.job, console.settings))


def slurm(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that Slurm answers, if a job is run by it, and say how what it has stands."""
    settings = console.settings
    if Executor.SLURM not in (settings.phase.executor, settings.dream.executor):
        return
    from orchestration.cycles.slurm import commands, executor, jobs

    try:
        commands.Slurm(console.environ, patience=settings.slurm.patience.total_seconds()).ping()
    except KlorosError as error:
        yield Check("slurm", Level.ERROR, error.message, error.hint or "scontrol ping; queued cycles wait until it answers")
    else:
        yield Check("slurm", Level.OK, "its controller answers")
    for cycle in executor.handed_over(kernel.db):
        job = jobs.get(kernel.db, cycle.cycle)
        yield Check("slurm", Level.OK, f"cycle {cycle.cycle} is {cycle.state}: {jobs.told(job)}")
    yield from _shared_folder(console)


def _shared_folder(console: Console) -> Iterator[Check]:
    """Check that nodes, and hosts that may lead, can see the folder of the cycles: that it is not on a disk of this host."""
    from orchestration.host import mounts

    folder = console.settings.cycles_dir
    kind = mounts.kind_of(folder)
    if not mounts.is_local(kind):
        yield Check("slurm", Level.OK, f"{folder} is on a shared file system ({kind})")
        return
    whom = "Slurm's nodes and the hosts that may lead" if console.settings.database_url else "Slurm's nodes"
    evidence = f"{folder} is on a file system of this host ({kind}): {whom} must have it under the same path"
    hint = "see docs/how-to/slurm.md for a shared cycles_dir; no matter if this host exports it, or is the only node"
    yield Check("slurm", Level.WARNING, evidence, hint)


def _start_runner(console: Console) -> str:
    if console.units.fragment("kloros-cycle.service"):
        user = "--user " if console.units.user else ""
        return f"systemctl {user}status kloros-cycle.path kloros-cycle.service; start it: systemctl {user}start kloros-cycle"
    return "start one by hand and see why it fails: python -m orchestration.run_cycle"


def ticks(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that ticks come."""
    newest = history.recent(kernel.db, 1)
    if not newest:
        yield Check("ticks", Level.OK, "no tick yet; the first one: klorosctl tick")
        return
    age = console.now - newest[0].started_at
    if console.settings.orchestration_mode != "enabled" or age <= TICKS_MISSED:
        yield Check("ticks", Level.OK, f"the last one was {console.times.ago(newest[0].started_at)}")
    elif console.units.fragment("kloros-orchestrator.timer"):
        user = "--user " if console.units.user else ""
        advice = f"systemctl {user}list-timers kloros-orchestrator.timer; journalctl {user}-u kloros-orchestrator -n 20"
        yield Check("ticks", Level.ERROR, f"none for {span(age)}, although a timer is installed", advice)
    else:
        yield Check("ticks", Level.WARNING, f"none for {span(age)}, and no timer is installed", "klorosctl tick")


def queues(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that nothing waits for a person."""
    settings = console.settings
    try:
        scan = scan_unacked(kernel.db, promotions_dir=kernel.promotions_dir, acks_dir=kernel.acks_dir, remember=False)
    except (OSError, KlorosError) as error:
        yield Check("promotions", Level.ERROR, str(error), f"ls -ld {settings.promotions_dir} {settings.acks_dir}")
        return
    if scan.parked:
        evidence = f"{len(scan.parked)} parked, each after {settings.dream.park_after} failed cycles"
        yield Check("promotions", Level.WARNING, evidence, "klorosctl promotions list, then retry or reject")
    else:
        yield Check("promotions", Level.OK, f"{len(scan.waiting)} unacked, none parked")


def baseline(kernel: Kernel) -> Iterator[Check]:
    """Check that baseline and escrow are as they were committed; while their files are being written, nobody can say."""
    unwritten = [*baseline_history.unwritten(kernel.db), *escrow_ledger.unwritten(kernel.db)]  # before the files are read
    found = faults(kernel)
    wrong = [*found.in_store, *found.in_files]
    if not wrong:
        yield Check("baseline", Level.OK, "every version, its files, and the files of escrow are as they were committed")
    elif unwritten and not found.in_store:
        yield Check("baseline", Level.WARNING, f"{len(unwritten)} files are still to be written", "klorosctl tick")
    else:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield Check("baseline", Level.ERROR, f"{wrong[0]}{more}", "; ".join(found.advice))


def notices(console: Console, kernel: Kernel) -> Iterator[Check]:
    """Check that what the host has to say reaches somebody."""
    untold, ping = notice_ledger.undelivered(kernel.db), notice_ledger.ping_fault(kernel.db)
    where = console.settings.notices.urls_file or "/etc/kloros/notices.urls"
    for one in untold:
        yield Check("notices", Level.WARNING, f"can't be delivered: {one}", f"correct {where}; they are tried again")
    if ping and console.settings.heartbeat.url:
        evidence = f"the dead-man's switch did not take the last ping: {ping}"
        yield Check("heartbeat", Level.WARNING, evidence, "see [heartbeat] url, and whether this host reaches it: curl")
    if not untold:
        yield Check("notices", Level.OK, "none waits")
