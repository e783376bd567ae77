"""`klorosctl agent`: agents that live in terminals of this host, where they can be watched, and told of what waits for them.

Owns starting and ending them, in `terminals.py`; what keeps one while it lives is `run_agent`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from orchestration.errors import KlorosError, Usage
from orchestration.host import process
from orchestration.operator import bridging, terminals
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from datetime import datetime

    from orchestration.bridge.wake.places import Place, Places
    from orchestration.bridge.wake.runtimes.tmux import Tmux
    from orchestration.settings import Agent

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}")
_RUNTIMES: Final = ("codex", "claude", "command", "tmux")
_ENDS_WITHIN: Final = 20.0  # and the grace


def _agent_option(command: Any) -> Any:
    return click.option("--agent", required=True, metavar="AGENT", help="Its name on the bridge.")(command)


@click.group()
def agent() -> None:
    """Agents that live in a terminal of this host: start and stop them, look over their shoulder, leave them alone."""


@agent.command(context_settings={"ignore_unknown_options": True})
@_agent_option
@click.option("--runtime", type=click.Choice(_RUNTIMES), help="What it runs in, where [agents.AGENT] does not say so.")
@click.option(
    "--dir", "folder", metavar="DIR", help="Folder to run in (default: working_dir of its profile, else this one)."
)
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]")
@json_option
@click.pass_obj
def start(console: Console, *, agent: str, runtime: str | None, folder: str | None, words: tuple[str, ...]) -> None:
    """Start an agent in a terminal of its own, register it with the bridge, and keep its heartbeat as long as it lives.

    What runs is `start` of its profile, else the runtime's own program; a COMMAND after -- goes before both.
    """
    profile = _profile(console, agent, runtime)
    session, here, caller = str(uuid.uuid4()), os.getcwd(), os.getuid()
    console.become_owner()
    order = {
        "agent": agent,
        "workspace": profile.workspace or console.settings.bridge.workspace,
        "session_id": session,
        "runtime": profile.runtime,
        "resumable": profile.runtime == "claude" or (profile.runtime == "command" and bool(profile.resume)),
        "command": _command(agent, profile, words, session),
        "cwd": os.path.abspath(folder or profile.working_dir or here),
        "variables": profile.variables,
        "environ": {**console.environ, **({} if os.getuid() == caller else _of_owner())},
    }
    places = _places(console)
    if (there := places.of_agent(agent)) is not None and there.keeper_lives:
        raise Usage(f"{agent} lives already: {terminals.where(there)}", hint=f"klorosctl agent attach --agent {agent}")
    place = terminals.start(places, order)
    console.note("agent start", f"starts {agent} ({profile.runtime})")
    document = {**_json(place), "attach": terminals.attach_command(place)}
    console.answer(
        document,
        lambda: [f"{agent} lives in {terminals.where(place)}.", f"Look at it: klorosctl agent attach --agent {agent}"],
    )


@agent.command("list")
@json_option
@click.pass_obj
def list_(console: Console) -> None:
    """List the agents of this host: those with a profile, and those that live in a terminal."""
    console.become_owner()
    found = _listed(console)
    console.answer(found, lambda: _rows(console, found))


@agent.command()
@_agent_option
@json_option
@click.pass_obj
def attach(console: Console, *, agent: str) -> None:
    """Show an agent's terminal; Ctrl-b d leaves it again. With --json, only say how it is done.

    While you type, and 20 s longer, nothing is put in; what waits for the agent waits for you, up to a minute.
    """
    console.become_owner()
    place = _there(console, agent)
    if console.as_json:
        console.answer({**_json(place), "attach": terminals.attach_command(place)}, list)
        return
    if not sys.stdin.isatty():
        raise Usage("this is no terminal", hint=f"in one: klorosctl agent attach --agent {agent}")
    words = terminals.attach_command(place)
    environ = {name: value for name, value in console.caller.items() if name != "TMUX"}  # one inside another is meant here
    os.execvpe(words[0], words, environ)  # noqa: S606 - no shell is the point


@agent.command()
@_agent_option
@json_option
@click.pass_obj
def pause(console: Console, *, agent: str) -> None:
    """Leave an agent alone until it is resumed: nothing wakes it. What is unread waits."""
    _pause(console, agent, paused=True)


@agent.command()
@_agent_option
@json_option
@click.pass_obj
def resume(console: Console, *, agent: str) -> None:
    """Let an agent be woken again after `pause`."""
    _pause(console, agent, paused=False)


@agent.command()
@_agent_option
@json_option
@click.pass_obj
def stop(console: Console, *, agent: str) -> None:
    """End an agent's program with everything it started, and its terminal. Its session says good-bye to the bridge."""
    console.become_owner()
    places = _places(console)
    place = _there(console, agent)
    if place.keeper_lives:
        os.kill(place.keeper, signal.SIGTERM)
        grace = console.settings.cycles.term_grace.total_seconds()
        if not terminals.wait_until(lambda: not place.keeper_lives, grace + _ENDS_WITHIN):
            raise KlorosError(f"{agent} has not ended: pid {place.keeper} is at it", hint="klorosctl agent list")
    left = process.kill_marked(place.token)
    if places.of_agent(agent) == place:
        places.forget(agent)
    console.note("agent stop", f"ends {agent}")
    document = {**_json(place), "killed": left}
    console.answer(document, lambda: [f"{agent} has ended." + (f" {left} processes it left were killed." if left else "")])


def _of_owner() -> dict[str, str]:
    """Return what says who somebody is: root has become the owner of the state folder."""
    try:
        owner = pwd.getpwuid(os.getuid())
    except KeyError:
        return {}
    return {"HOME": owner.pw_dir, "USER": owner.pw_name, "LOGNAME": owner.pw_name}


def _places(console: Console) -> Places:
    from orchestration.bridge.wake.places import Places

    return Places(console.settings.state_dir)


def _profile(console: Console, agent: str, runtime: str | None) -> Agent:
    """Return the agent's profile; where there is none, one of the runtime alone. Raises: Usage."""
    from orchestration.settings import Agent

    if not _NAME.fullmatch(agent):
        raise Usage(f"{agent!r} can't be the name of an agent", hint="letters, digits and ._@:-, 128 at most")
    known = console.settings.agents.get(agent)
    if known is not None:
        if runtime not in (None, known.runtime):
            raise Usage(f"[agents.{agent}] says that its runtime is {known.runtime}", hint="leave --runtime out")
        return known
    if runtime is None:
        raise Usage(f"there is no profile [agents.{agent}]", hint="make one, or say --runtime codex")
    # what it runs then comes after --; a profile of a command needs one that spawns, which is not asked for here
    return Agent(runtime="tmux" if runtime == "command" else runtime)  # type: ignore[arg-type] # click has checked it


def _command(agent: str, profile: Agent, words: Sequence[str], session: str) -> list[str]:
    if words:
        return list(words)
    usual = {"codex": ("codex",), "claude": ("claude",)}.get(profile.runtime, ())
    command = profile.start or profile.program or usual
    if not command:
        raise Usage(f"nothing says what {agent} runs", hint=f"[agents.{agent}] start = [...], or: agent start … -- COMMAND")
    return [*command, "--session-id", session] if profile.runtime == "claude" else list(command)


def _there(console: Console, agent: str) -> Place:
    place = _places(console).of_agent(agent)
    if place is None:
        raise Usage(f"{agent} does not live in a terminal of this host", hint="klorosctl agent list")
    return place


def _listed(console: Console) -> list[dict[str, Any]]:
    from orchestration.bridge.wake.runtimes.tmux import Tmux

    places = _places(console)
    tmux = Tmux(places)
    by_agent = {place.agent: place for place in places.all()}
    lines = []
    paused = _paused(console)
    here = {agent for _, agent in paused or ()}
    for name in sorted({*by_agent, *console.settings.agents, *here}):
        profile, place = console.settings.agents.get(name), by_agent.get(name)
        line: dict[str, Any] = {"agent": name, "profile": profile is not None, "terminal": None}
        line["runtime"] = place.runtime if place else profile.runtime if profile else None
        line["workspace"] = (
            place.workspace if place else (profile and profile.workspace) or console.settings.bridge.workspace
        )
        line["paused"] = None if paused is None else (line["workspace"], name) in paused
        if place is not None:
            line["terminal"] = {**_json(place), **asyncio.run(_look(tmux, place, console.now))}
        lines.append(line)
    return lines


async def _look(tmux: Tmux, place: Place, now: datetime) -> dict[str, Any]:
    """Look at a terminal, whether its agent lives and who types there."""
    from orchestration.bridge.state import Session
    from orchestration.bridge.wake.port import WakeFailed
    from orchestration.bridge.wire import ManagementMode, SessionStatus

    session = Session(
        workspace_id=place.workspace,
        agent_id=place.agent,
        session_id=place.session_id,
        runtime=place.runtime,
        management_mode=ManagementMode.MANAGED,
        resumable=place.resumable,
        status=SessionStatus.IDLE,
        heartbeat_at=now,
    )
    try:
        probe = await tmux.probe(session)
    except WakeFailed as failed:
        return {"liveness": "unknown", "detail": failed.detail, "foreground": None, "typed_at": None}
    told = {"liveness": str(probe.liveness), "detail": probe.detail}
    return {**told, "foreground": probe.command or None, "typed_at": probe.typed_at}


def _rows(console: Console, found: list[dict[str, Any]]) -> list[str]:
    rows = []
    for line in found:
        terminal = line["terminal"] or {}
        where = f"{terminal['pane']} {terminal['liveness']}" if terminal else "—"
        typed = console.times.ago(terminal["typed_at"]) if terminal.get("typed_at") else ""
        rows.append((line["agent"], line["runtime"] or "", where, terminal.get("foreground") or "", typed))
    if not rows:
        return ["No agent has a profile here, and none lives in a terminal. Start one: klorosctl agent start --agent NAME"]
    alone = [line["agent"] for line in found if line["paused"]]
    undo = f" Undo: klorosctl agent resume --agent {alone[0]}" if alone else ""
    told = [f"Paused, so that nothing wakes them: {', '.join(alone)}.{undo}"] if alone else []
    return [*console.screen.table(("AGENT", "RUNTIME", "TERMINAL", "RUNS", "LAST KEY"), rows), *told]


def _paused(console: Console) -> frozenset[tuple[str, str]] | None:
    """Return who is left alone; None when the bridge's store can't be asked."""
    if not bridging.is_made(console):
        return frozenset()
    try:
        from orchestration import wake_wiring
        from orchestration.bridge.refusal import Refused
    except ImportError:
        return None

    async def work() -> frozenset[tuple[str, str]]:
        store = await wake_wiring.store(console.settings)
        try:
            return await store.paused()
        finally:
            await store.close()

    try:
        return asyncio.run(work())
    except (KlorosError, Refused):
        return None


def _pause(console: Console, agent: str, *, paused: bool) -> None:
    from orchestration import wake_wiring

    profile = console.settings.agents.get(agent)
    workspace = (profile and profile.workspace) or console.settings.bridge.workspace
    if not _NAME.fullmatch(agent):
        raise Usage(f"{agent!r} can't be the name of an agent", hint="klorosctl agent list")
    console.become_owner()
    actor = bridging.caller(console).agent_id

    async def work() -> bool:
        store = await wake_wiring.store(console.settings)
        try:
            return await store.pause(workspace, agent, paused=paused, actor=actor)
        finally:
            await store.close()

    changed = asyncio.run(work())
    verb = "pause" if paused else "resume"
    if changed:
        console.note(f"agent {verb}", f"{verb}s {agent}")
    said = {
        (True, True): f"{agent} is left alone. Undo: klorosctl agent resume --agent {agent}",
        (True, False): f"{agent} is left alone already.",
        (False, True): f"{agent} is woken again when something waits for it.",
        (False, False): f"{agent} was not paused.",
    }[paused, changed]
    console.answer({"agent": agent, "workspace": workspace, "paused": paused, "changed": changed}, lambda: [said])


def _json(place: Place) -> dict[str, Any]:
    named = ("agent", "workspace", "session_id", "runtime", "resumable", "socket", "pane", "keeper", "program", "started_at")
    return {**{name: getattr(place, name) for name in named}, "command": list(place.command)}
