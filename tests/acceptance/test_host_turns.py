"""Turns as the supervisor finds them: whatever became of the one that began them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from orchestration.bridge.wake.host_turns import HostTurns
from orchestration.bridge.wake.limits import Means
from orchestration.bridge.wake.observation import Turned
from orchestration.bridge.wake.port import Turn, TurnTold
from orchestration.bridge.wake.reach import Found, Profile
from orchestration.bridge.wake.state import Code
from orchestration.bridge.wake.turns import Turns
from orchestration.configuration import load
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host
from tests.acceptance.waking import PaperRuntime, claimed

T = TypeVar("T")
PROFILE = Profile(PaperRuntime(), Means())
TOKEN = "trg_1-1"


def said(output: tuple[str, ...]) -> TurnTold:
    return TurnTold(session_id=next((line for line in output if line.startswith("s-")), ""))


def play(host: Host, scene: Callable[[HostTurns], Awaitable[T]], *, only_looks: bool = False) -> T:
    """Play a scene on the turns of a host, as one supervisor; the next one begins anew."""
    settings = load(host.environ)

    async def played() -> T:
        turns = HostTurns(
            lambda: SqliteDatabase(str(host.state / "kloros.db")),
            lambda db: Turns(settings, host.environ, db),
            only_looks=only_looks,
        )
        try:
            return await scene(turns)
        finally:
            await turns.close()

    return asyncio.run(played())


async def ended(turns: HostTurns, told: Callable[[tuple[str, ...]], TurnTold] = said) -> Found:
    async with asyncio.timeout(30):
        while (found := await turns.find(TOKEN, told)).turn.turned is Turned.RUNNING:
            await asyncio.sleep(0.02)
    return found


@pytest.fixture
def ready(host: Host) -> Host:
    host.decided()
    return host


def queued(host: Host, *command: str) -> None:
    """Queue a turn and die before it is started."""
    db = SqliteDatabase(str(host.state / "kloros.db"))
    settings = load(host.environ)
    Turns(settings, host.environ, db).enqueue(
        Turn(command=command, prompt="read"), token=TOKEN, timeout=PROFILE.means.turn_timeout
    )
    db.close()


def test_what_was_begun_once_is_found_by_its_token_and_not_begun_again(ready: Host) -> None:
    turn = Turn(command=("sh", "-c", f"echo s-1; echo x >>{ready.home}/turns"), prompt="read")

    claim = claimed(ready)

    async def scene(turns: HostTurns) -> int:
        return await turns.begin(turn, PROFILE, token=TOKEN, claim=claim)

    assert play(ready, scene) == play(ready, scene) == 1
    found = play(ready, ended)
    assert (found.turn.turned, found.turn.session_id, found.cycle) == (Turned.SUCCEEDED, "s-1", 1)
    assert (ready.home / "turns").read_text() == "x\n"


def test_what_waits_for_its_process_is_started_by_whoever_looks_for_it_but_not_by_who_only_looks(ready: Host) -> None:
    queued(ready, "echo", "s-2")

    async def look(turns: HostTurns) -> Found:
        return await turns.find(TOKEN, said)

    assert play(ready, look, only_looks=True).turn.turned is Turned.RUNNING
    assert not (ready.state / "logs" / "run_cycle.log").exists(), "no process was started"
    assert play(ready, ended).turn.turned is Turned.SUCCEEDED


def test_what_has_no_cycle_was_never_started(ready: Host) -> None:
    assert play(ready, ended).turn.turned is Turned.UNSTARTED


def test_what_nobody_runs_any_more_is_lost(ready: Host) -> None:
    queued(ready, "true")
    ready.change("UPDATE cycles SET state = 'running', started_at = queued_at")
    assert play(ready, ended).turn.turned is Turned.LOST


def test_an_end_is_no_success_when_the_runtime_says_so(ready: Host) -> None:
    queued(ready, "echo", "s-3")
    told = TurnTold(session_id="s-3", failed="no such session", code=Code.RUNTIME_NOT_FOUND)
    found = play(ready, lambda turns: ended(turns, lambda _: told))
    assert (found.turn.turned, found.turn.code) == (Turned.FAILED, Code.RUNTIME_NOT_FOUND)
    assert "no such session" in found.turn.detail


def test_a_turn_is_cancelled_by_its_token(ready: Host) -> None:
    queued(ready, "sleep", "600")

    async def scene(turns: HostTurns) -> Found:
        await turns.find(TOKEN, said)
        await turns.cancel(TOKEN)
        return await ended(turns)

    found = play(ready, scene)
    assert found.turn.turned is Turned.FAILED
