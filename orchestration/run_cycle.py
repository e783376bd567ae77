"""The runner, as a process: `python -m orchestration.run_cycle`.

Owns the gates before any work (settings, mode, kill switch) and the exit code. Exits 0 when nothing is
queued, when everything queued has been run (whatever came of it: that is in the store), and when another
runner is at work.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestration import wiring
from orchestration.command_line import Parser
from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.host.journal import Event, Priority, log
from orchestration.tick.gate import gate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    Parser(
        prog="python -m orchestration.run_cycle",
        description="Run the queued cycles, one at a time, each to its end.",
        epilog="exit codes: 0 done or nothing to do, 2 disabled, 20 halted, 69 store, 70 defect, 74 disk, 78 settings",
    ).parse_args(arguments)
    try:
        return _run(environ)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.RUNNER_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except Exception:
        import traceback

        log(Event.RUNNER_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _run(environ: Mapping[str, str]) -> Exit:
    from orchestration.cycles.runner import Runner

    settings = wiring.settings(environ)
    wiring.become_owner(settings.state_dir)
    refused = gate(settings)
    if refused is not None:
        exit_code, reason, evidence = refused
        log(Event.RUNNER_IDLE, evidence, reason=reason, exit=exit_code)
        return exit_code
    with wiring.kernel(settings, environ) as kernel:
        runner = Runner(settings, kernel.db, lock=kernel.runner_lock, environ=environ, start=kernel.start)
        log(Event.RUNNER_IDLE, f"{runner.run()} cycles run, none is queued", priority=Priority.DEBUG)
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
