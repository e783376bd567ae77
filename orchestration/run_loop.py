"""The continuous loop, as a process: `python -m orchestration.run_loop --goal TEXT --continuous`.

Owns the exit code, and what `--dry-run` prints.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import TYPE_CHECKING

from orchestration import wiring
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.exits import Exit
from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.tick.gate import gate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.loop.options import Options


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    from orchestration.loop import options

    try:
        given = sys.argv[1:] if arguments is None else arguments
        return run(options.read(given, environ, "python -m orchestration.run_loop"), environ)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.LOOP_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read --dry-run has gone
        return Exit.DONE
    except Exception:
        import traceback

        log(Event.LOOP_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def run(options: Options, environ: Mapping[str, str]) -> Exit:
    """Do what one call of the loop asks for.

    Raises:
        KlorosError: it could not begin, or not go on.
    """
    from orchestration.host.notify import Notifier
    from orchestration.loop.loop import Loop
    from orchestration.loop.screen import Screen
    from orchestration.loop.stopping import Stopping

    settings = options.settings
    if options.dry_run:
        return _print_plan(options, environ)
    wiring.become_owner(settings.state_dir)
    refused = gate(settings)
    if refused is not None:
        exit_code, reason, evidence = refused
        log(Event.LOOP_FAILED, evidence, priority=Priority.WARNING, reason=reason, exit=exit_code)
        return exit_code
    try:
        with wiring.kernel(settings, environ) as kernel:
            if kernel.leading is not None:
                kernel.leading.follow()
            return Loop(
                kernel,
                options,
                environ=environ,
                stopping=Stopping(settings.loop.stop_timeout),
                screen=Screen(as_json=options.json),
                notifier=Notifier(environ),
            ).run()
    except StoreUnreachable as error:
        from orchestration.pulse import away

        away.tell(settings, error, clock.now())  # which the metrics of before would hide
        raise


def _print_plan(options: Options, environ: Mapping[str, str]) -> Exit:
    """Print what would be done; changes no byte."""
    from orchestration.loop.options import listed
    from orchestration.loop.place import place_of
    from orchestration.loop.prerequisites import Prerequisites
    from orchestration.loop.schedule import words_of

    loop = options.settings.loop
    place = place_of(loop)
    asked = Prerequisites(loop, cwd=place.cwd, environ=environ, output=os.devnull, should_stop=lambda: False)
    command = words_of(
        loop.command, mode=loop.mode, goal=loop.goal or ("{goal}" if place.goal_file or loop.goal_from == "intents" else "")
    )
    settings = {name: {"value": value, "source": source} for name, value, source in listed(options)}
    if options.json:
        plan = {
            "dry_run": True,
            "command": command,
            "prerequisites": asked.command(),
            **place._asdict(),
            "settings": settings,
        }
        print(json.dumps(plan))
        return Exit.DONE
    print(f"would run: cd {shlex.quote(place.cwd)} && {shlex.join(command)}")
    print(f"after:     {shlex.join(asked.command()) or 'no command of prerequisites'}")
    for name, one in settings.items():
        print(f"  {name} = {one['value']}  ({one['source']})")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
