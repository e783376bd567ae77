"""The runner, as a process: `python -m orchestration.run_cycle`.

Owns the gates before any work (settings, mode, kill switch) and the exit code. Exits 0 when nothing is
queued, when everything queued has been run (whatever came of it: that is in the store), and when another
runner is at work.

With `--wake N` it runs the turn of an agent that was queued under this number, beside whatever else runs. With
`--cycle N --output-root DIR` the same runner runs one cycle there (cycles/direct.py), makes its bundle, and
exits with the cycle's typed code. Whoever types that has consented, so the mode does not matter; the kill switch does.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestration import wiring
from orchestration.command_line import Parser
from orchestration.errors import KlorosError, LeaseLost, LockHeld, Usage
from orchestration.exits import Exit
from orchestration.host.journal import Event, Priority, log
from orchestration.tick.gate import gate, halted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from orchestration.cycles.cycle import Cycle, CycleNumber
    from orchestration.cycles.direct import Existing
    from orchestration.settings import Settings
    from orchestration.store.port import Database
    from orchestration.tick.kernel import Kernel


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.wake is not None:
            return _run_turn(options.wake, environ)
        return _run_queued(environ) if options.output_root is None else _run_direct(options, environ)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.RUNNER_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except Exception:
        import traceback

        log(Event.RUNNER_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _parser() -> Parser:
    parser = _Parser(
        prog="python -m orchestration.run_cycle",
        description="Run the queued cycles, one at a time, each to its end; or one cycle directly under an output root.",
        epilog="exit codes: 0 done or nothing to do, 2 disabled, 20 halted, 64 usage, 69 store, 70 defect, 74 disk, "
        "75 another run is at work under the output root, 78 settings; with --output-root also 10/11 PHASE failed/timed "
        "out, 12/13 D-REAM failed/timed out",
    )
    parser.add_argument("--wake", metavar="N", help="run the turn of an agent that is queued under this number, and no more")
    direct = parser.add_argument_group("one cycle directly")
    direct.add_argument("--output-root", metavar="DIR", help="make the cycle's folder and bundle here; made if absent")
    direct.add_argument("--cycle", metavar="N", help="the cycle's number (default: the variable CYCLE_ID)")
    direct.add_argument("--job", choices=("phase", "dream"), help="what to run (default: phase)")
    direct.add_argument("--no-federate", action="store_true", help="keep the bundle here, whatever [federation] says")
    direct.add_argument("--json", action="store_true", help="print the outcome as one line of JSON")
    again = direct.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="run a number again, beginning with its artifacts")
    again.add_argument("--replace", action="store_true", help="run a number again from nothing; the old is kept as .1")
    return parser


class _Parser(Parser):
    """Refuses what has no meaning without `--output-root`."""

    def parse_args(self, *given: Any, **more: Any) -> Any:
        options = super().parse_args(*given, **more)
        others = (name for name, value in vars(options).items() if value and name not in ("output_root", "wake"))
        if options.wake is not None and options.output_root is not None:
            self.error("--wake is for what a trigger has queued, --output-root for a cycle of one's own")
        if options.output_root is None and (first := next(others, None)):
            self.error(f"--{first.replace('_', '-')} needs --output-root DIR")
        return options


def _run_queued(environ: Mapping[str, str]) -> Exit:
    from orchestration.cycles.runner import Runner

    settings = wiring.settings(environ)
    wiring.become_owner(settings.state_dir)
    refused = gate(settings)
    if refused is not None:
        exit_code, reason, evidence = refused
        log(Event.RUNNER_IDLE, evidence, reason=reason, exit=exit_code)
        return exit_code
    with wiring.kernel(settings, environ) as kernel:
        if kernel.leading is not None:
            kernel.leading.follow()
        _look_at_slurm(kernel, environ)
        runner = Runner(settings, kernel.db, lock=kernel.runner_lock, environ=environ, start=kernel.start)
        log(Event.RUNNER_IDLE, f"{runner.run()} cycles run, none is queued", priority=Priority.DEBUG)
        if not runner.was_stopped:
            _follow_up(kernel.db, settings)
    return Exit.DONE


def _look_at_slurm(kernel: Kernel, environ: Mapping[str, str]) -> None:
    """Hand cycles to Slurm, and see what has become of those that were, unless somebody else is at it."""
    from orchestration.cycles import ledger
    from orchestration.cycles.cycle import Executor

    if all(cycle.executor is not Executor.SLURM for cycle in ledger.active(kernel.db)):
        return
    from orchestration.cycles.slurm.commands import Slurm
    from orchestration.cycles.slurm.executor import SlurmExecutor
    from orchestration.host.lock import FileLock

    slurm = Slurm(environ, patience=kernel.settings.slurm.patience.total_seconds())
    try:
        with FileLock(kernel.path("locks", "slurm.lock")).held("run_cycle"), _as_leader(kernel) as leads:
            if leads:
                SlurmExecutor(kernel.settings, kernel.db, slurm=slurm, environ=environ, start=kernel.start).look()
    except (LockHeld, LeaseLost) as error:
        log(Event.RUNNER_IDLE, f"another runner looks after Slurm: {error.message}", priority=Priority.DEBUG)


@contextmanager
def _as_leader(kernel: Kernel) -> Iterator[bool]:
    """Say whether this host leads, and let what is written in the block stand only while it does."""
    if kernel.leading is None:
        yield True
        return
    lease = kernel.leading.look()
    kernel.leading.db.fence(lease.epoch)
    try:
        yield lease.holder == kernel.leading.here
    finally:
        kernel.leading.db.fence(None)


def _run_turn(text: str, environ: Mapping[str, str]) -> Exit:
    from orchestration.cycles import direct, ledger, orphan
    from orchestration.cycles.cycle import JobName
    from orchestration.cycles.runner import Runner

    number = direct.number_of("--wake", text)
    settings = wiring.settings(environ)
    wiring.become_owner(settings.state_dir)
    refused = gate(settings)
    if refused is not None:
        exit_code, reason, evidence = refused
        log(Event.RUNNER_IDLE, evidence, reason=reason, exit=exit_code)
        return exit_code
    with wiring.kernel(settings, environ) as kernel:
        if kernel.leading is not None:
            kernel.leading.follow()
        found = None if number is None else ledger.get(kernel.db, number)
        if found is None or found.job is not JobName.WAKE:
            raise Usage(f"--wake {text}: there is no such turn of an agent", hint="klorosctl cycles lists what there is")
        lock = orphan.lock_of(settings.state_dir, found)
        runner = Runner(settings, kernel.db, lock=lock, environ=environ, start=lambda _entry: None)
        if not runner.run_turn(found.cycle):
            log(Event.RUNNER_IDLE, f"cycle {found.cycle} was not run: it is queued no more, or somebody else is at it")
    return Exit.DONE


def _follow_up(db: Database, settings: Settings) -> None:
    """Make the bundles that are wanted, and copy those that are due."""
    from orchestration.cycles.packing import pack

    pack(db, settings)
    if settings.federation.target:
        from orchestration.cycles.federation import federate

        federate(db, settings)


def _run_direct(options: argparse.Namespace, environ: Mapping[str, str]) -> Exit:
    from orchestration.cycles import artifacts, direct
    from orchestration.cycles.cycle import JobName
    from orchestration.cycles.runner import Runner

    if (refused := halted(wiring.settings(environ))) is not None:
        exit_code, reason, evidence = refused
        log(Event.RUNNER_IDLE, evidence, reason=reason, exit=exit_code)
        return exit_code
    root, number = os.path.realpath(options.output_root), _number(options.cycle, environ)
    _take_root(root)
    environ = {**environ, **direct.variables(root)}
    settings = wiring.settings(environ)
    with wiring.kernel(settings, environ) as kernel, direct.alone(settings):
        direct.enqueue(
            kernel.db,
            settings,
            number,
            name=JobName(options.job or "phase"),
            existing=_existing(options),
            runner_lock=kernel.runner_lock,
        )
        Runner(settings, kernel.db, lock=kernel.runner_lock, environ=environ, start=lambda _entry: None).run()
        cycle = direct.settle(kernel.db, number)
        folder = artifacts.cycle_dir(settings.cycles_dir, number)
        code = _tell(cycle, folder, settings.bundles_dir, as_json=options.json)
        if settings.federation.target and not options.no_federate:
            _federate(kernel.db, settings, number)
        return code


def _take_root(root: str) -> None:
    """Make the output root; with root's privileges become its owner, or see that nobody else can meddle with it.

    Raises:
        Usage: others can. Unwritable: it can't be made.
    """
    from orchestration.cycles import direct
    from orchestration.host import files, trust

    wiring.become_owner(trust.nearest(root))
    own = (direct.STATE, os.path.basename(direct.variables(root)["KLR_BUNDLES_DIR"]))
    is_root = os.geteuid() == 0
    if is_root:
        trust.check(root, below=own)
    files.make_folder(root, 0o755)
    if is_root:
        trust.check(root, below=own)  # somebody may have made it meanwhile


def _federate(db: Database, settings: Settings, number: CycleNumber) -> None:
    """Copy the bundle, and those that could not be copied before. Failing to is told, and does not fail the cycle."""
    from orchestration.cycles.federation import federate
    from orchestration.host import clock
    from orchestration.store.instants import to_text

    pending = [int(str(row["cycle"])) for row in db.rows("federation.pending")]
    for cycle in {*pending, number}:
        db.run("federation.ask_again", cycle=cycle, now=to_text(clock.now()))
    federate(db, settings)


def _number(given: str | None, environ: Mapping[str, str]) -> CycleNumber:
    from orchestration.cycles import direct

    number = direct.number_of("CYCLE_ID", environ.get("CYCLE_ID")) if given is None else direct.number_of("--cycle", given)
    if number is None:
        raise Usage("--output-root needs the number of the cycle", hint="--cycle N, or the variable CYCLE_ID")
    return number


def _existing(options: argparse.Namespace) -> Existing:
    from orchestration.cycles.direct import Existing

    return Existing.RESUME if options.resume else Existing.REPLACE if options.replace else Existing.REFUSE


def _tell(cycle: Cycle, folder: str, out: str, *, as_json: bool) -> Exit:
    """Make the bundle, print what has come of it, and return the typed code."""
    from orchestration.cycles import bundle
    from orchestration.cycles.bar import bar
    from orchestration.tick.wait import exit_of

    with bar(f"cycle {cycle.cycle}", bundle.size_of(folder)) as progress:
        made = bundle.make(folder, out, progress=progress)
    reason = "" if cycle.result is None else cycle.result.reason
    if as_json:
        told = {"cycle": cycle.cycle, "job": cycle.job, "state": cycle.state, "reason": reason}
        print(json.dumps({**told, "folder": folder, "bundle": made.path, "sha256": made.sha256}))
    else:
        print(f"cycle {cycle.cycle} ({cycle.job}) {cycle.state}: {reason}\n  {folder}\n  {made.path}")
    return exit_of(cycle)


if __name__ == "__main__":
    sys.exit(main())
