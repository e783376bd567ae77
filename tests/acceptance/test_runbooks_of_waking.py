"""Waking's runbooks tried out: cause the fault, follow the page letter by letter, see that agents are woken again."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import pytest

from orchestration.bridge.store.sqlite_wakes import SqliteWakes
from orchestration.bridge.wake.state import Wake
from orchestration.bridge.wake.telling import Counted, Teller
from orchestration.host import clock
from orchestration.store.opening import Place
from tests.acceptance.flow import QUICK, supervising, tmux
from tests.acceptance.host import Host, script
from tests.acceptance.runbook import HEADINGS, Runbook
from tests.acceptance.serving import Served, serving
from tests.acceptance.talking import Agent, issue, post
from tests.acceptance.test_runbooks_of_alerts import told
from tests.waiting import until

PAGES = ("human-input-collision", "unmanaged-runtime", "wake-trigger-failure")
THREAD, TRIGGER = "thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07", "trg_019c0a7e5b3c7d1e8f9a0b1c2d3e4f50"
"""Those on the pages."""
READS = """\
sed -n 's/.*\\(thr_[0-9a-f]*\\).*/\\1/p' | while read -r thread; do
  curl -sS -H 'Authorization: Bearer {token}' -d "{{\\"thread_id\\": \\"$thread\\", \\"last_read_seq\\": 1}}" \\
    http://127.0.0.1:{port}/v1/mcp/ack_read
done
"""
"""An agent that reads what it is told to, and does nothing else."""


class Woken:
    """A host with a bridge, a supervisor, and a reviewer that sleeps; and a page that speaks of them."""

    def __init__(self, host: Host, page: str, stack: ExitStack) -> None:
        self.host, self.page, self._stack = host, Runbook(page), stack
        host.decided()
        host.set(**QUICK)
        served = stack.enter_context(serving(host, "--bridge"))
        self.executioner = Agent(served, issue(host, "executioner"))
        self.reviewer = Agent(served, issue(host, "reviewer"))
        (host.home / "agents").mkdir()
        reads = READS.format(token=self.reviewer.token, port=served.port)
        self.program = script(host.home / "agents", "reviewer", [reads])
        self.terminal = script(host.home / "agents", "terminal", ["while read -r line; do", 'echo "$line" |', reads, "done"])
        self.supervisor: Served | None = None
        stack.callback(tmux, host, "kill-server")

    def supervise(self) -> None:
        """Start the supervisor, or start it again."""
        if self.supervisor is not None and self.supervisor.process.poll() is None:
            self.supervisor.stop()
        self.supervisor = self._stack.enter_context(supervising(self.host))

    def says(self) -> str:
        """Have the executioner say something to the reviewer; returns the thread."""
        made = self.executioner.ask("create_thread", workspace_id="kloros", title="Retry", participants=["reviewer"])
        thread_id = str(made["thread_id"])
        self.executioner.ask("post_message", thread_id=thread_id, body="done", to="reviewer")
        return thread_id

    def wakes(self) -> list[Wake]:
        async def read() -> tuple[Wake, ...]:
            store = SqliteWakes(str(self.host.state / "kloros.db"))
            try:
                return await store.wakes()
            finally:
                await store.close()

        return list(asyncio.run(read()))

    def ended(self) -> Wake:
        """Return the newest trigger, once it has come to something."""
        found = until(lambda: [one for one in self.wakes()[:1] if one.outcome], what="it has ended")
        self.page.text = self.page.text.replace(TRIGGER, found[0].trigger_id).replace(THREAD, found[0].thread_id)
        return found[0]

    def tells(self, condition: str) -> None:
        until(lambda: self.host.decided() and condition in told(self.host), what=f"{condition} is told")

    def tells_no_more(self, condition: str) -> None:
        until(lambda: self.host.decided() and condition not in told(self.host), what=f"{condition} is told no more")

    def follow(self, heading: str) -> None:
        units = {
            "systemctl restart kloros-supervisor.service": self.supervise,
            "systemctl status kloros-supervisor.service": lambda: None,
        }
        self.page.follow(self.host, heading, units)


@contextmanager
def woken(host: Host, page: str) -> Iterator[Woken]:
    with ExitStack() as stack:
        yield Woken(host, page, stack)


@contextmanager
def typing(host: Host) -> Iterator[None]:
    """Sit at the only terminal and type without end."""
    (session,) = tmux(host, "list-sessions", "-F", "#{session_id}").split()
    pid, keyboard = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp("tmux", ["tmux", "-S", str(host.state / "agents" / "tmux.sock"), "attach-session", "-t", session])
    stop = threading.Event()

    def types() -> None:
        while not stop.wait(0.2):
            with suppress(OSError):
                os.write(keyboard, b"x")

    hands = threading.Thread(target=types)
    hands.start()
    try:
        until(lambda: "x" in tmux(host, "capture-pane", "-p", "-t", session), what="it is seen")
        yield
    finally:
        stop.set()
        hands.join()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(keyboard)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_each_part_in_order(name: str) -> None:
    assert Runbook(name).headings == HEADINGS


def test_the_agents_program_may_not_be_run(host: Host) -> None:
    with woken(host, "wake-trigger-failure") as here:
        host.configure(f'\n[agents.reviewer]\nruntime = "command"\nspawn = ["{here.program}"]\n')
        os.chmod(here.program, 0o644)
        here.supervise()
        here.says()
        assert here.ended().outcome == "dead_lettered"
        here.tells("wakes_dead_lettered")
        here.follow("How to confirm")
        here.follow("How to mend")
        until(lambda: here.ended().outcome == "fallback_spawned", what="the agent is woken")
        here.tells_no_more("wakes_dead_lettered")


def test_the_supervisor_was_killed(host: Host) -> None:
    with woken(host, "wake-trigger-failure") as here:
        host.configure(f'\n[agents.reviewer]\nruntime = "command"\nspawn = ["{here.program}"]\n')
        here.supervise()
        assert here.supervisor is not None
        here.supervisor.process.kill()
        here.supervisor.process.wait(10)
        here.says()
        at = clock.now() - timedelta(minutes=5)
        assert Teller(Place(str(host.state / "kloros.db")), holder="host 1").tell(here.wakes(), Counted(), at)
        here.tells("supervisor_silent")
        here.supervise()
        until(lambda: here.wakes() and here.wakes()[0].outcome == "fallback_spawned", what="the agent is woken")
        here.tells_no_more("supervisor_silent")


def test_an_agent_that_somebody_started_by_hand_sleeps(host: Host) -> None:
    with woken(host, "unmanaged-runtime") as here:
        host.configure(f'\n[agents.reviewer]\nruntime = "tmux"\nstart = ["{here.terminal}"]\n')
        beat = {"session_id": "s-1", "runtime": "codex", "status": "idle"}
        assert post(here.reviewer.served, "/v1/mcp/heartbeat_session", beat, here.reviewer.token).status == 200
        here.supervise()
        here.says()
        assert here.ended().code == "RUNTIME_UNMANAGED"
        here.tells("agents_unmanaged")
        here.follow("How to confirm")
        here.follow("How to mend")
        until(lambda: here.ended().outcome == "triggered", what="the agent is woken")
        here.tells_no_more("agents_unmanaged")
        here.follow("How to undo")


def test_somebody_types_whenever_a_prompt_is_due(host: Host) -> None:
    host.set(KLR_WAKE_TYPING_WITHIN="5s", KLR_WAKE_DEFER_EVERY="0.5s", KLR_WAKE_DEFER_AT_MOST="2s")
    with woken(host, "human-input-collision") as here:
        commands = f'spawn = ["{here.program}"]\nstart = ["{here.terminal}"]\n'
        host.configure(f'\n[agents.reviewer]\nruntime = "command"\n{commands}')
        assert host.run("klorosctl", "agent", "start", "--agent", "reviewer").returncode == 0
        with typing(host):
            here.supervise()
            here.says()
            assert here.ended().outcome == "fallback_spawned"
            here.tells("prompts_collided")
            here.follow("How to confirm")
            here.follow("How to mend")
            thread_id = here.says()
            asked = host.run("klorosctl", "why-not-woken", "--agent", "reviewer", "--thread", thread_id).stdout
            assert "an operator has paused the agent" in asked
            here.follow("How to undo")
            until(lambda: len(here.wakes()) == 2 and here.wakes()[0].outcome, what="it is woken again")
