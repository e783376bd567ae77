"""The notifier, as a process: `python -m orchestration.run_notice [--test]`.

Started by a tick's kick (`kick/notice`) or by that of `kloros-alert@.service`. It pings the dead-man's switch for the tick
that began, and tells whom the URLs name what is news. Exits 0 also when nobody could be told: that is in the log, in
`klorosctl status` and in `klorosctl doctor`, and is tried again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from orchestration import wiring
from orchestration.command_line import Parser
from orchestration.errors import KlorosError, LockHeld, SettingsInvalid
from orchestration.exits import Exit
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.pulse import notice_ledger, notifier, pings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.pulse.delivery import Target
    from orchestration.settings import Settings


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _test(environ) if options.test else _run(environ)
    except KlorosError as error:
        log(Event.NOTICE_FAILED, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except Exception:
        import traceback

        log(Event.NOTICE_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _parser() -> Parser:
    parser = Parser(
        prog="python -m orchestration.run_notice",
        description="Tell what is news of this host, and ping the dead-man's switch, as [notices] and [heartbeat] say.",
        epilog="exit codes: 0 done, 1 with --test: somebody was not reached, 64 usage, 70 defect",
    )
    parser.add_argument("--test", action="store_true", help="send a test to every URL now, and say what came of it")
    return parser


def _run(environ: Mapping[str, str]) -> Exit:
    settings = _settings(environ)
    to = notifier.targets(settings, environ)  # before root becomes somebody who may not read them
    wiring.become_owner(settings.state_dir)
    os.umask(0o077)
    fault = None
    if settings.heartbeat.url:
        fault = pings.send(settings.heartbeat.url, settings.state_dir, settings.heartbeat.timeout.total_seconds())
    try:
        with FileLock(os.path.join(settings.state_dir, "locks", "notice.lock")).held("notice"):
            _tell(settings, environ, to, fault)
    except LockHeld:
        pass  # the one that holds it, or the next tick's kick, sees what we would have seen
    return Exit.DONE


def _tell(settings: Settings, environ: Mapping[str, str], to: tuple[Target, ...] | None, fault: str | None) -> None:
    try:
        with wiring.kernel(settings, environ) as kernel:
            if fault is not None:
                notice_ledger.note_ping(kernel.db, fault)
            notifier.tell(settings, kernel.db, to)
    except KlorosError as error:
        log(Event.NOTICE_FAILED, f"without the store, only failed units are told: {error}", priority=Priority.WARNING)
        notifier.tell_without_store(settings, to)


def _settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings; where they are invalid, which is the worst moment to be silent, the defaults."""
    try:
        return wiring.settings(environ)
    except SettingsInvalid:
        from orchestration import configuration
        from orchestration.settings import Settings

        state_dir = environ.get("KLR_STATE_DIR") or configuration.default_state_dir(environ)
        return Settings.model_validate({"state_dir": state_dir})


def _test(environ: Mapping[str, str]) -> Exit:
    settings = wiring.settings(environ)
    from orchestration.pulse import delivery

    to = delivery.targets(settings.notices.urls_file, environ)
    if not to:
        print(f"no URL is set: put some into {delivery.SYSTEM_FILE}, or name a file with [notices] urls_file")
        return Exit.FAILED
    faults = notifier.test(settings, to)
    for fault in faults:
        print(f"not reached: {fault}")
    print(f"{len(to) - len(faults)} of {len(to)} reached")
    return Exit.FAILED if faults else Exit.DONE


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread that hangs in a name server, and what libraries wait for at exit, keep nobody
