"""The wake supervisor, as a process: `python -m orchestration.supervise`.

Owns the exit code, the signals, and what systemd is told. It stays: while mode or kill switch say that nothing may be done
it does nothing, and goes on by itself when they no longer do; a store that is out of reach is waited for. With `--once` it
does one pass, and exits as a tick does.

A supervisor that is told to end begins nothing more, gives its claims back and leaves within its limit. Agents' turns go on
without it: they are processes of their own, and the next supervisor reads how they ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from orchestration import wiring
from orchestration.command_line import Parser
from orchestration.errors import KlorosError, LockHeld, StoreUnreachable, Usage
from orchestration.exits import Exit
from orchestration.host import tasks
from orchestration.host.journal import Event, Priority, log
from orchestration.host.lock import FileLock
from orchestration.host.notify import ALIVE, READY, STOPPING, Notifier
from orchestration.operator.in_force import InForce
from orchestration.tick.gate import gate

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence
    from typing import Any

    from orchestration.wake_wiring import Waking

STILL_ALIVE: Final = 5.0
"""Seconds between two signs of life; WatchdogSec= of the unit is several of them."""
GRACE: Final = 8.0
"""Seconds for what is under way when it is told to end; TimeoutStopSec= of the unit is longer."""
_AGAIN: Final = 5.0  # seconds until a store that can't be opened is tried again
_PATIENCE: Final = 2.0  # seconds for a supervisor that is about to end
_QUIET: Final = 60.0  # seconds until that is told again
_EPILOG: Final = (
    "exit codes: 0 ended, 1 failed, 64 usage, 70 defect, 74 disk, 75 another supervisor of this state folder is at work, "
    "78 settings; with --once also 2 disabled, 20 halted, 69 store"
)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the entry; returns the exit status."""
    try:
        options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        return _run(environ, once=options.once)
    except KlorosError as error:
        event = Event.SETTINGS_REFUSED if error.exit is Exit.SETTINGS_INVALID else Event.SUPERVISOR_FAILED
        log(event, str(error), priority=Priority.ERROR, exit=error.exit)
        return error.exit
    except Exception:
        import traceback

        log(Event.SUPERVISOR_FAILED, f"a defect of ours: {traceback.format_exc()}", priority=Priority.CRITICAL)
        return Exit.DEFECT


def _parser() -> Parser:
    parser = Parser(
        prog="python -m orchestration.supervise",
        description="Wake dormant agents for whom messages wait, again and again.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--once", action="store_true", help="Do one pass, and exit as a tick does.")
    return parser


def _run(environ: Mapping[str, str], *, once: bool) -> Exit:
    try:
        from orchestration.wake_wiring import Waking
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"the supervisor needs a package that is not installed: {error.name}", hint=hint) from error
    in_force = InForce(environ)
    settings = in_force.settings()
    wiring.become_owner(settings.state_dir)
    os.umask(0o077)
    if once and (refused := gate(settings)) is not None:
        exit_code, reason, evidence = refused
        log(Event.TICK_REFUSED, evidence, reason=reason, exit=exit_code)
        return exit_code

    def why_not() -> str:
        try:
            found = gate(in_force.settings())
        except KlorosError as error:
            return error.message
        return "" if found is None else found[2]

    waking = Waking(settings, in_force.environ, refused=why_not)
    lock = FileLock(os.path.join(settings.state_dir, "locks", "supervisor.lock"))
    os.makedirs(os.path.dirname(lock.path), mode=0o700, exist_ok=True)
    try:
        with lock.held("supervisor", patience=_PATIENCE):
            return asyncio.run(_once(waking) if once else _stay(waking, Notifier(environ)))
    except LockHeld as error:
        log(Event.SUPERVISOR_FAILED, f"another supervisor is at work: {error.message}", priority=Priority.WARNING)
        return Exit.LOCK_HELD


async def _once(waking: Waking) -> Exit:
    await waking.open()
    try:
        return await _one_pass(waking)
    finally:
        await waking.close(within=GRACE)


async def _one_pass(waking: Waking) -> Exit:
    from orchestration.bridge.refusal import Refused
    from orchestration.bridge.wake.supervisor import report

    counted = waking.supervisor.counted
    try:
        passed = await waking.supervisor.one_pass()
        report(passed, counted, quiet=False)
        await waking.reporter.tell(counted, news=True)
    except Refused as refused:
        raise StoreUnreachable(refused.message, hint="klorosctl doctor") from refused
    return Exit.FAILED if passed.failed else Exit.DONE


async def _stay(waking: Waking, notifier: Notifier) -> Exit:
    told_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)
    living = asyncio.create_task(_live(waking, notifier))
    notifier.tell(READY)
    log(Event.SUPERVISOR_STARTED, f"wakes agents, as {waking.holder}", holder=waking.holder)
    try:
        if await _opened(waking, told_to_end):
            try:
                await _until(told_to_end, waking.supervisor.run(waking.reporter))
            finally:
                notifier.tell(STOPPING)
                await waking.close(within=GRACE)
    finally:
        await tasks.end([living])
    log(Event.SUPERVISOR_ENDED, "told to end")
    return Exit.DONE


async def _opened(waking: Waking, told_to_end: asyncio.Event) -> bool:
    """Open the store; one that is out of reach is waited for. False when we are told to end before."""
    told = float("-inf")
    while not told_to_end.is_set():
        try:
            await waking.open()
        except StoreUnreachable as error:
            now = asyncio.get_running_loop().time()
            if now - told >= _QUIET:
                told = now
                log(Event.TICK_FAILED, f"the store can't be opened: {error.message}", priority=Priority.ERROR)
            await _until(told_to_end, asyncio.sleep(_AGAIN))
        else:
            return True
    return False


async def _until(told_to_end: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Do something until it ends, or until we are told to.

    Raises:
        Exception: what the work raised.
    """
    working, ending = asyncio.create_task(work), asyncio.create_task(told_to_end.wait())
    try:
        await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await tasks.end((working, ending))


async def _live(waking: Waking, notifier: Notifier) -> None:
    """Tell systemd that we live, for as long as no pass takes longer than one can."""
    while True:
        if waking.lives:
            notifier.tell(ALIVE)
        await asyncio.sleep(STILL_ALIVE)


if __name__ == "__main__":
    sys.exit(main())
