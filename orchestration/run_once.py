"""One tick, as a process: `python -m orchestration.run_once [--dry-run] [--wait] [--json]`.

Owns the gates before the lock (settings, mode, kill switch), the exit code and the line that a person reads.
"""

if __name__ == "__main__":  # before the imports: collecting what they make is a twentieth of a tick, and frees nothing
    import gc

    gc.disable()

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from orchestration import configuration, wiring
from orchestration.errors import HostDoubled, KlorosError, LockHeld, StoreUnreachable
from orchestration.exits import Exit
from orchestration.host import clock, process_identity
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import PATIENCE
from orchestration.store import opening
from orchestration.store.counters import count, gauges
from orchestration.store.instants import to_text
from orchestration.tick import history
from orchestration.tick.gate import gate
from orchestration.tick.history import LEASE, SKIPPED, Refusal, Tick
from orchestration.tick.kernel import Kernel
from orchestration.tick.tick import tick

if TYPE_CHECKING:
    import argparse

    from orchestration.pulse.liveness import Beat
    from orchestration.settings import Settings


class Options(NamedTuple):
    """What the command line asks for; the timer asks for nothing."""

    dry_run: bool = False
    wait: bool = False
    json: bool = False


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(options, environ)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.TICK_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        if isinstance(error, StoreUnreachable | HostDoubled) and not options.dry_run:
            _tell_away(environ, error)
        return error.exit
    except Exception:
        import traceback

        log(Event.TICK_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _tell_away(environ: Mapping[str, str], error: StoreUnreachable | HostDoubled) -> None:
    """Have the files for readers say that this tick could not use its store, which they would otherwise hide."""
    from orchestration.pulse import away

    away.tell(wiring.settings(environ), error, clock.now())


def _options(arguments: Sequence[str]) -> Options:
    return Options(**vars(_parser().parse_args(arguments))) if arguments else Options()


def _parser() -> "argparse.ArgumentParser":
    from orchestration.command_line import Parser  # 3 ms of CPU: a tenth of a tick that is given no argument

    parser = Parser(
        prog="python -m orchestration.run_once",
        description="Do one tick: look, decide, start what is due, record, exit.",
        epilog="exit codes: 0 done, 1 failed, 2 disabled, 20 halted, 64 usage, 69 store, 70 defect, 74 disk, 75 lock held, "
        "78 settings; "
        "with --wait also 10/11 PHASE failed/timed out, 12/13 D-REAM failed/timed out",
    )
    parser.add_argument("--dry-run", action="store_true", help="decide and print, change no byte anywhere")
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for the cycle that is started or at work, and for a tick at work before it; exit with its code",
    )
    parser.add_argument("--json", action="store_true", help="print the tick's record as one line of JSON")
    return parser


def _run(options: Options, environ: Mapping[str, str]) -> Exit:
    settings = wiring.settings(environ)
    wiring.become_owner(settings.state_dir)
    if options.dry_run:
        from orchestration.tick.preview import print_preview

        with wiring.detached_kernel(settings) as kernel:
            return print_preview(kernel, gate(settings) or wiring.standing_by(settings), as_json=options.json)
    tick_id = new_tick_id()
    refused = gate(settings)
    if refused is not None:
        return _answer(_turned_away(settings, environ, _refusal(tick_id, *refused)), as_json=options.json)
    beat = _beat(settings, environ) if settings.heartbeat.url else None
    try:
        return _tick(options, settings, environ, tick_id, beat)
    except Exception as error:
        if beat is not None:
            beat.end(error.exit if isinstance(error, KlorosError) else Exit.DEFECT)
        raise


def _beat(settings: "Settings", environ: Mapping[str, str]) -> "Beat":
    """Have the dead-man's switch pinged for this tick, beside it."""
    from orchestration.pulse.liveness import Beat

    beat = Beat(settings.state_dir)
    wiring.start_notifier(settings, environ)
    return beat


def _tick(options: Options, settings: "Settings", environ: Mapping[str, str], tick_id: str, beat: "Beat | None") -> Exit:
    with wiring.kernel(settings, environ) as kernel:
        try:
            record = tick(kernel, tick_id, patience=PATIENCE if options.wait else 0.0)
        except LockHeld as error:
            if beat is not None:
                beat.cancel()
            refusal = _refusal(tick_id, Exit.LOCK_HELD, Refusal.LOCK_HELD, error.message)
            return _answer(_note_turned_away(kernel, refusal), as_json=options.json)
        except Exception as error:
            _note_failed(kernel, tick_id, error)
            raise
        if beat is not None:
            beat.end(record.exit)
        if not configuration.is_remembered(settings):
            _remember(settings, environ)
        _say(record)
        exit_code = _answer(record, as_json=options.json)
        return _wait(kernel, record, as_json=options.json) if options.wait else exit_code


def _remember(settings: "Settings", environ: Mapping[str, str]) -> None:
    """Keep the settings for later ticks, which only makes those cheaper."""
    try:
        configuration.remember(settings, environ)
    except KlorosError as error:
        log(Event.SETTINGS_REFUSED, f"settings are read anew by every tick: {error}", priority=Priority.WARNING)


def new_tick_id() -> str:
    """Return an id that sorts by time and is unique: `20261121T030000Z-1a2b3c4d`."""
    return f"{clock.now():%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}"


def _turned_away(settings: "Settings", environ: Mapping[str, str], refusal: Tick) -> Tick:
    """Account for a tick that may not run, where there is a store to do it in; never fail because of that."""
    _, reason, evidence = refusal.findings[0]
    if not opening.is_made(opening.place_of(settings)):
        log(Event.TICK_REFUSED, evidence, tick_id=refusal.tick_id, reason=reason, exit=refusal.exit)
        return refusal
    try:
        with wiring.kernel(settings, environ) as kernel:
            return _note_turned_away(kernel, refusal)
    except KlorosError as error:
        log(Event.TICK_FAILED, f"{evidence}; not recorded: {error.message}", priority=Priority.WARNING, reason=reason)
    return refusal


def _note_failed(kernel: Kernel, tick_id: str, error: Exception) -> None:
    """Account for a tick that an error ended before it could record itself; never hide that error behind another."""
    if kernel.leading is not None and isinstance(error, StoreUnreachable):
        return  # waiting for a silent server once more, the tick would come too near to being ended by its unit
    exit_code, evidence = (error.exit, error.message) if isinstance(error, KlorosError) else (Exit.DEFECT, repr(error))
    try:
        if history.get(kernel.db, tick_id) is None:
            _note_turned_away(kernel, _refusal(tick_id, exit_code, Refusal.FAILED, evidence))
    except (KlorosError, OSError) as fault:
        log(Event.TICK_FAILED, f"not recorded: {fault}", priority=Priority.WARNING, tick_id=tick_id)


def _refusal(tick_id: str, exit_code: Exit, reason: Refusal, evidence: str) -> Tick:
    now = clock.now()
    return Tick(
        tick_id=tick_id,
        started_at=now,
        ended_at=now,
        boot_id=process_identity.boot_id(),
        decision=SKIPPED,
        exit=exit_code,
        cycle=None,
        blocker=reason,
        findings=(("gate", str(reason), evidence),),
    )


def _note_turned_away(kernel: Kernel, refusal: Tick) -> Tick:
    _, reason, evidence = refusal.findings[0]
    if kernel.leading is not None:
        from orchestration.tick.scoped import turned_away

        turned_away(kernel, refusal.exit)
    with kernel.db.transaction():
        refusal = history.append(kernel.db, refusal)
        count(kernel.db, "kloros_orchestrator_skipped_total", reason=reason)
        if refusal.exit is Exit.LOCK_HELD:
            count(kernel.db, "kloros_orchestrator_lock_contention_total")
            kernel.db.run("facts.observer_news", now=to_text(refusal.started_at))
        if reason != Refusal.FAILED:  # whose alert is that no attempt is seen
            gauges(kernel.db, kloros_orchestrator_last_attempt_timestamp_seconds=refusal.started_at.timestamp())
    kernel.publish()
    log(Event.TICK_REFUSED, evidence, tick_id=refusal.tick_id, reason=reason, exit=refusal.exit)
    return refusal


def _say(record: Tick) -> None:
    reasons = ", ".join(record.reasons)
    who_leads = "".join(f": {evidence}" for rule, _, evidence in record.findings if rule == LEASE)
    started = "" if record.cycle is None else f" cycle {record.cycle}"
    log(
        Event.TICK_IDLE if record.decision == "noop" else Event.TICK_COMPLETED,
        f"{record.decision.upper()}{started}: {reasons}{who_leads}",
        tick_id=record.tick_id,
        decision=record.decision,
        reason=reasons,
        cycle=record.cycle,
    )


def _answer(record: Tick, *, as_json: bool) -> Exit:
    if as_json:
        print(json.dumps(history.as_json(record)), flush=True)
    return record.exit


def _wait(kernel: Kernel, record: Tick, *, as_json: bool) -> Exit:
    import gc

    from orchestration.tick.wait import wait

    gc.enable()
    return wait(kernel, record, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
