"""`docs/tutorial/first-thread.md`, typed letter by letter, with the real Codex and a scripted model behind it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Generator
from pathlib import Path

from tests.acceptance import review
from tests.acceptance.codex import settings
from tests.acceptance.flow import QUICK, supervising, tmux
from tests.acceptance.host import Host
from tests.acceptance.review import EXECUTIONER, REVIEWER
from tests.acceptance.runbook import Command, Runbook
from tests.acceptance.scripted_model import Call, Result, Turn, scripted
from tests.acceptance.serving import serving
from tests.contract import mcp_programs
from tests.waiting import until

TOP = Path(__file__).parents[2]
THREAD = "thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07"
ASKED = "Say in one sentence"
FIRST, BETTER = "A retry tries again.", "A retry waits 1 s, then 2 s, then 4 s, and tries again each time."


def anybody(turn: Turn) -> Generator[Call, Result, str]:
    """Do what the folder's AGENTS.md says that one is."""
    return (yield from (reviews if "You are `reviewer`" in turn.context else writes)(turn))


def writes(turn: Turn) -> Generator[Call, Result, str]:
    for message in (yield from review.unanswered(turn, EXECUTIONER)):
        if message["body"].startswith(ASKED):
            yield review.answer(message, "work_done", FIRST, to=REVIEWER)
        elif message["metadata"].get("event_type") == "finding_reported":
            yield review.answer(message, "fix_pushed", BETTER, to=REVIEWER)
    return "Said."


def reviews(turn: Turn) -> Generator[Call, Result, str]:
    for message in (yield from review.unanswered(turn, REVIEWER)):
        if message["body"] == FIRST:
            yield review.answer(message, "finding_reported", "How long does it wait?", to=EXECUTIONER)
        elif message["body"] == BETTER:
            yield review.answer(message, "finding_verified", "That says it.", to=EXECUTIONER)
            yield review.resolved(message["thread_id"])
    return "Reviewed."


class Reader:
    """Somebody who types what the page shows, at home on the test's host."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.page = Runbook("../tutorial/first-thread")
        self.thread_id = ""
        url = f"http://127.0.0.1:{port}/mcp"
        text = self.page.text.replace("127.0.0.1:9411", f"127.0.0.1:{port}")
        self.page.text = text.replace("mcp config codex", f"mcp config codex --url {url}").replace(
            "/home/ada", str(host.home)
        )

    def types(self, step: str) -> None:
        """Type the commands of a step; the thread that one of them opens is the page's from then on."""
        count = len(self._commands(step))
        assert count
        for number in range(count):
            command = self._commands(step)[number]
            is_opened = "create_thread" in command.line
            self.page.run(self.host, command._replace(shown=()) if is_opened else command, cwd=TOP)
            if is_opened:
                (self.thread_id,) = re.findall(r"thr_\w+", self.host.run("klorosctl", "threads", "list").stdout)
                self.page.text = self.page.text.replace(THREAD, self.thread_id)

    def puts_into_settings(self) -> None:
        (toml,) = re.findall(r"```toml\n(.*?)```", self.page.text, re.DOTALL)
        self.host.configure(toml)

    def _commands(self, step: str) -> list[Command]:
        return self.page.commands(step)


def test_two_agents_talk_in_ten_minutes(host: Host) -> None:
    host.decided()
    own = os.pathsep.join([os.path.dirname(sys.executable), mcp_programs.path()])
    host.set(**QUICK, PATH=own, PYTHONPATH=str(TOP))
    with serving(host, "--bridge") as served, scripted({"anybody": anybody}) as model:
        (host.home / ".codex").mkdir()
        folders = [str(host.home / "agents" / agent) for agent in (EXECUTIONER, REVIEWER)]
        (host.home / ".codex" / "config.toml").write_text(settings(f"{model.url}/anybody/v1", *folders))
        reader = Reader(host, served.port)
        reader.types("1. Start the bridge")
        reader.types("2. Tell Codex where it is")
        reader.puts_into_settings()
        reader.types("3. Make two agents")
        with supervising(host):
            reader.types("5. Ask once")
            until(lambda: "resolved" in host.run("klorosctl", "threads", "list").stdout, what="they agree", within=30)
            until(lambda: _open_triggers(host) == [], what="no turn runs", within=30)
            reader.types("6. Look at what happened")
            reader.types("7. Sit beside one")
        tmux(host, "kill-server")
        assert BETTER in host.run("klorosctl", "tail-thread", "--thread-id", reader.thread_id).stdout


def _open_triggers(host: Host) -> object:
    return json.loads(host.run("klorosctl", "triggers", "list", "--open", "--json").stdout)
