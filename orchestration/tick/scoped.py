"""The tick of one host among several: who leads decides, all others see to what is their own.

Imported only where hosts share a PostgreSQL; `tick.lead` is what the leader does, and all that a single host does.

    wait ─► lock ─► check in ─► take, renew or leave the lease ─► before_leading ─┬─ leads ─► lead ───┬─► after_tick
                                                                                  └─ not ───► stand_by ┘

What is shared (`shared.py`) has its place in `before_leading` (what a host brings and what it fetches) and `after_tick`
(what this very tick answered); between them the leader works on what all hosts brought.

A leader's writes are fenced. When another has taken the lease meanwhile, the next of them raises `LeaseLost`: then nothing
of what was decided is written, and the tick ends as a standby's. What a standby writes is its own host's, and is not
fenced.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from orchestration import __version__
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cycle, CycleEvent, CycleNumber, JobName, Result
from orchestration.cycles.orphan import Leftover
from orchestration.errors import KlorosError, LeaseLost, StoreUnreachable
from orchestration.exits import Exit
from orchestration.host.journal import Event, Priority, log
from orchestration.scope.leading import Leading, Turn
from orchestration.scope.lease import Standing, describe, standing, why_not
from orchestration.store.counters import count
from orchestration.tick import history, shared
from orchestration.tick.history import Aside, Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.prune import prune
from orchestration.tick.reap import reap
from orchestration.tick.settle import settle
from orchestration.tick.tick import Decided, launch, lead, note

_LATELY = timedelta(minutes=2)


def tick_of_host(kernel: Kernel, tick_id: str, *, patience: float) -> Tick:
    """Do this host's tick and return its record; raises as `tick` does, and:

    HostDoubled: another machine ticks under this host's name.
    """
    assert kernel.leading is not None
    leading = kernel.leading
    seen = leading.wait()
    leading.follow(seen)
    with kernel.lock.held(tick_id, patience=patience):
        heard = leading.check_in(seen, boot_id=kernel.boot_id, release=__version__)
        if heard.is_restarted and leading.release():  # what led before may be a copy of this machine: it is fenced off
            seen = leading.see()
        exit_code, led = Exit.DEFECT, False
        try:
            turn = leading.take_turn(seen)
            if turn.leads and turn.lease.epoch != seen.lease.epoch:
                log(Event.LEASE_TAKEN, describe(turn.lease), host=leading.here, epoch=turn.lease.epoch)
            record, led = _decided(kernel, tick_id, turn, heard.to_reap)
            exit_code = record.exit
        except KlorosError as error:
            exit_code = error.exit
            if error.exit is Exit.UNWRITABLE:
                _leave_to_the_fit(leading)
            raise
        finally:
            leading.db.fence(None)  # what is still to be said is this host's own
            with suppress(StoreUnreachable):
                leading.ended(exit_code, leads=led)
    return record


def _leave_to_the_fit(leading: Leading) -> None:
    """Give up the lead where our disk is full or may not be written, if another host is better off."""
    with suppress(StoreUnreachable):
        lease = leading.look()
        fit = leading.db.rows("hosts.fit", seconds=_LATELY.total_seconds())
        if lease.holder == leading.here and fit and leading.hand_over(lease):
            message = f"{leading.here} can't write, so it leaves the lead of its scope to {fit[0]['host']} or another"
            log(Event.LEASE_GIVEN_UP, message, priority=Priority.WARNING)


def turned_away(kernel: Kernel, exit_code: Exit) -> None:
    """Tell the scope that this host lives, though its tick did nothing; one that may do nothing gives up the lead.

    Raises:
        HostDoubled: another machine ticks under this host's name.
    """
    assert kernel.leading is not None
    leading = kernel.leading
    leading.check_in(leading.see(), boot_id=kernel.boot_id, release=__version__)
    if exit_code in (Exit.DISABLED, Exit.HALTED) and leading.release():
        log(Event.LEASE_GIVEN_UP, f"{leading.here} gives up the lead of its scope: its ticks may do nothing")
    leading.ended(exit_code, leads=leading.look().holder == leading.here)


def _decided(kernel: Kernel, tick_id: str, turn: Turn, left: tuple[str, ...]) -> tuple[Tick, bool]:
    """Lead, or stand by; also returns whether this host led to the end."""
    assert kernel.leading is not None
    started_at = kernel.now()
    try:
        _reap_lost(kernel.leading, left)
        shared.before_leading(kernel, leads=turn.leads)
        if not turn.leads:
            return stand_by(kernel, tick_id, started_at, Aside.STANDBY, why_not(turn.lease, kernel.leading.here)), False
        end_cycles_of_silent_hosts(kernel)
        record = lead(kernel, tick_id)
        shared.after_tick(kernel, record, leads=True)
    except LeaseLost as lost:
        log(Event.LEASE_LOST, lost.message, priority=Priority.WARNING, tick_id=tick_id)
        stands = kernel.leading.stand_aside()
        if (decided := history.get(kernel.db, tick_id)) is not None:  # lost after that; the next leader does what is left
            kernel.publish()
            return decided, False
        evidence = f"led under epoch {turn.lease.epoch}, but {describe(stands)}"
        return stand_by(kernel, tick_id, started_at, Aside.LEASE_LOST, evidence), False
    return record, True


def settle_as_leader(kernel: Kernel) -> None:
    """Settle outside a tick if this host leads now; else nothing. Under the tick's lock."""
    assert kernel.leading is not None
    leading = kernel.leading
    lease = leading.look()
    if standing(lease, leading.here) is not Standing.OURS:
        return
    leading.db.fence(lease.epoch)
    try:
        shared.before_leading(kernel, leads=True)
        settle(kernel)
    except LeaseLost as lost:
        log(Event.LEASE_LOST, lost.message, priority=Priority.WARNING)
    finally:
        leading.db.fence(None)
    shared.write_back(kernel, leads=True)


def stand_by(kernel: Kernel, tick_id: str, started_at: datetime, reason: Aside, evidence: str) -> Tick:
    """See to what is this host's own, and record that it left deciding to another."""
    reap(kernel)
    inside = kernel.window.containing(kernel.now()) is not None
    record = Tick(
        tick_id=tick_id,
        started_at=started_at,
        ended_at=kernel.now(),
        boot_id=kernel.boot_id,
        decision=Decided.NOOP,
        exit=Exit.DONE,
        cycle=None,
        blocker=reason if inside else None,
        findings=((history.LEASE, str(reason), evidence),),
    )
    with kernel.db.transaction():
        record = note(kernel, record, [reason])
    if not launch(kernel):
        record = history.failed(kernel.db, record, Exit.FAILED)
    try:
        shared.after_tick(kernel, record, leads=False)
    finally:
        prune(kernel)
        kernel.publish()
    return record


def end_cycles_of_silent_hosts(kernel: Kernel) -> None:
    """End as lost what runs on hosts that have not ticked for `[scope] silent_after`; they reap it when they come back."""
    seconds = kernel.settings.scope.silent_after.total_seconds()
    for row in kernel.db.rows("hosts.silent_cycles", seconds=seconds):
        cycle = ledger.get(kernel.db, CycleNumber(int(str(row["cycle"]))))
        if cycle is not None:
            _end_silent(kernel, cycle, str(row["host"]), str(row["silent_since"]))


def _end_silent(kernel: Kernel, cycle: Cycle, host: str, since: str) -> None:
    why = f"its host {host} has been silent since {since[:19]}Z; how far it came is unknown"
    with kernel.db.transaction():
        if not ledger.finish(kernel.db, cycle, CycleEvent.LOSE, Result(reason=why), now=kernel.now()):
            return  # it came back
        count(kernel.db, "kloros_orchestrator_reaped_total", kind=Leftover.CYCLE)
        kernel.db.run("hosts.leave_to_reap", host=host, token=cycle.token)
        if cycle.job is JobName.WAKE:
            ledger.settle(kernel.db, cycle.cycle, now=kernel.now())
    message = f"cycle {cycle.cycle} ({cycle.job}) is lost: {why}"
    log(Event.CYCLE_LOST, message, priority=Priority.ERROR, cycle=cycle.cycle, host=host)


def _reap_lost(leading: Leading, tokens: tuple[str, ...]) -> None:
    """End what still runs here of cycles that were ended while this host was silent."""
    if not tokens:
        return
    from orchestration.host.process import kill_marked

    killed = sum(kill_marked(token) for token in tokens)
    message = f"{len(tokens)} cycles were ended as lost while this host was silent; {killed} processes of theirs ended"
    log(Event.LEFTOVER_REAPED, message, priority=Priority.WARNING)
    leading.reaped(tokens)
