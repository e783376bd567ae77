"""A host on which the real supervisor wakes real Codexes: the bridge, the scripted model, two agents with a thread and a
repository, and the supervisor as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.bridge.store.postgres_wakes import PostgresWakes
from orchestration.bridge.store.sqlite_wakes import SqliteWakes
from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.state import Wake
from tests.acceptance import codex, review
from tests.acceptance.codex import Codex
from tests.acceptance.host import PYTHON, Host, script
from tests.acceptance.review import EXECUTIONER, REVIEWER
from tests.acceptance.scripted_model import Script, ScriptedModel, scripted
from tests.acceptance.serving import Served, serving
from tests.acceptance.talking import Agent, issue
from tests.waiting import until

QUICK = {"KLR_WAKE_INTERVAL": "1s", "KLR_WAKE_COOLDOWN": "0s", "KLR_WAKE_LEASE": "5s"}
"""What would have a test wait; the values of the issue are tried out by those of the rules."""


class Flow(NamedTuple):
    """A thread of two agents that nobody runs yet."""

    host: Host
    model: ScriptedModel
    agents: Mapping[str, Codex]
    thread_id: str
    operator: Agent
    auditor: Agent

    def begin(self) -> None:
        """Ask the executioner for the patch; the rest is for the agents."""
        self.operator.ask("post_message", thread_id=self.thread_id, body=review.WORK, to=EXECUTIONER)

    def thread(self) -> Any:
        return self.operator.ask("get_thread", thread_id=self.thread_id)

    def is_resolved(self) -> bool:
        return bool(self.thread()["status"] == "resolved")

    def messages(self) -> list[dict[str, Any]]:
        return list(self.operator.ask("read_messages", thread_id=self.thread_id, limit=200)["messages"])

    def events(self) -> list[tuple[str, str]]:
        """Give the events of the thread: who has said what."""
        return [(one["sender"], one["metadata"]["event_type"]) for one in self.messages() if one["kind"] == "event"]

    def audit(self) -> list[dict[str, Any]]:
        return list(self.auditor.ask("get_audit", thread_id=self.thread_id, limit=200)["entries"])

    def triggers(self, agent: str) -> list[Wake]:
        """Give an agent's triggers with their attempts, the oldest first."""
        url = self.host.environ.get("KLR_DATABASE_URL", "")

        async def read() -> tuple[Wake, ...]:
            found = await PostgresWakes.opened(url) if url else SqliteWakes(str(self.host.state / "kloros.db"))
            try:
                return await found.wakes(thread_id=self.thread_id, agent_id=agent)
            finally:
                await found.close()

        return list(reversed(asyncio.run(read())))

    def woken(self, agent: str) -> list[Wake]:
        """Give those of them that came to an attempt: one made for the verification ends with the thread."""
        return [one for one in self.triggers(agent) if one.attempts]

    def outcomes(self, agent: str) -> list[str]:
        return [str(one.outcome) for one in self.woken(agent)]

    def processes(self, agent: str) -> list[int]:
        """List the living processes of an agent's Codex."""
        return marked(f"CODEX_HOME={self.agents[agent].home}")


def tmux(host: Host, *words: str) -> str:
    """Ask the tmux server in which agents live; empty when there is none."""
    socket = host.state / "agents" / "tmux.sock"
    done = subprocess.run(["tmux", "-S", socket, *words], capture_output=True, text=True, check=False, timeout=20)
    return done.stdout


def screens(host: Host) -> dict[str, str]:
    """Give what each terminal shows, by its pane."""
    panes = tmux(host, "list-panes", "-a", "-F", "#{pane_id}").split()
    return {pane: tmux(host, "capture-pane", "-p", "-t", pane) for pane in panes}


def marked(variable: str) -> list[int]:
    """List the living processes that have a variable in their environment."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if variable.encode() in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
        except OSError:
            continue
    return found


@contextmanager
def flow(host: Host, **variables: str) -> Iterator[Flow]:
    """Serve all of it but the supervisor."""
    host.decided()
    host.set(**{**QUICK, **variables})
    scripts: dict[str, Script] = {EXECUTIONER: review.executioner, REVIEWER: review.reviewer}
    with serving(host, "--bridge") as served, scripted(scripts) as model:
        clones = review.repository(host.home)
        agents = {}
        for name in scripts:
            token = issue(host, name)
            one = codex.configured(name, home=host.home, folder=clones[name], model=model.url, served=served, token=token)
            agents[name] = one
            host.configure(_profile(host, one))
        operator, auditor = (Agent(served, issue(host, "ada", "--role", role)) for role in ("coordinator", "auditor"))
        thread = operator.ask("create_thread", workspace_id="kloros", title="Retry patch", participants=list(scripts))
        try:
            yield Flow(host, model, agents, thread["thread_id"], operator, auditor)
        finally:
            for one in agents.values():
                for pid in marked(f"CODEX_HOME={one.home}"):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            tmux(host, "kill-server")


def _profile(host: Host, one: Codex) -> str:
    """Write an agent's table: its program is a script that gives Codex its environment, the token in it."""
    gives = [f"export {name}='{value}'" for name, value in one.environ.items()]
    program = script(host.home, f"codex-{one.agent}", [*gives, 'exec codex "$@"'])
    return f'[agents.{one.agent}]\nruntime = "codex"\nprogram = ["{program}"]\nworking_dir = "{one.folder}"\n'


@contextmanager
def supervising(host: Host) -> Iterator[Served]:
    """Run the supervisor until the block ends."""
    command = [PYTHON, "-m", "orchestration.supervise"]
    process = subprocess.Popen(command, env=host.environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    supervisor = Served(process, 0)
    try:
        yield supervisor
    finally:
        process.kill()
        process.wait()
        supervisor.read_out()
        print(*supervisor.lines, sep="\n")  # for whoever looks at a test that failed
        if process.stderr is not None:
            process.stderr.close()


def resolved(here: Flow, *, within: float = 25) -> None:
    """Wait until the agents have come to an end, and every trigger and process with them."""
    until(here.is_resolved, what="the thread is resolved", within=within)
    until(
        lambda: all(one.status not in trigger.OPEN for agent in here.agents for one in here.triggers(agent)),
        what="no trigger is open",
        within=30,
    )


__all__ = ["EXECUTIONER", "REVIEWER", "Flow", "flow", "marked", "resolved", "supervising"]
