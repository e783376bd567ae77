"""Two agents, an executioner and a reviewer, as scripts of a model: what each does on what it reads, and the repository that
they work on, a bare one and a clone for each.

The work is real: git, and a program that is run. They do what the prompt of the supervisor says: read on, say so, work,
answer. Every step may be done again, since an agent may be killed at any of them.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeAlias

from tests.acceptance.scripted_model import Call, Result, Turn, shell, tool

Acts: TypeAlias = Generator[Call, Result, Any]

EXECUTIONER, REVIEWER = "executioner", "reviewer"
FINDING = "F-1"
WORK = "Write the retry patch: the third wait is 8 s."
FIRST = 'echo "$((2 * $1))"'
FIXED = 'echo "$((1 << $1))"'
COURSE = [
    (EXECUTIONER, "work_done"),
    (REVIEWER, "finding_reported"),
    (EXECUTIONER, "fix_pushed"),
    (REVIEWER, "finding_verified"),
]
"""The events of the thread, in order."""
_THREAD = re.compile(r"thr_[0-9a-f]{32}")
_SINCE = re.compile(r'"since_seq": (\d+)')


def executioner(turn: Turn) -> Generator[Call, Result, str]:
    """Do what a person asks for; mend what a finding says."""
    if not _THREAD.search(turn.prompt):
        return (yield from _registered())
    for message in (yield from unanswered(turn, EXECUTIONER)):
        if message["body"] == WORK:
            yield from _pushed(FIRST, "Retry waits twice as long each time")
            yield answer(message, "work_done", "The retry patch is done and pushed: please review.", to=REVIEWER)
        elif message["metadata"].get("event_type") == "finding_reported":
            assert "wants 8" in message["body"]
            yield from _pushed(FIXED, "Wait a power of two")
            yield answer(message, "fix_pushed", "The third wait is a power of two now: pushed.", to=REVIEWER)
    return "I have done what was to do."


def reviewer(turn: Turn) -> Generator[Call, Result, str]:
    """Run what was pushed: report a finding, or verify it and resolve the thread."""
    if not _THREAD.search(turn.prompt):
        return (yield from _registered())
    for message in (yield from unanswered(turn, REVIEWER)):
        if message["metadata"].get("event_type") not in ("work_done", "fix_pushed"):
            continue
        yield shell("git pull -q")
        printed = (yield shell("sh backoff.sh 3")).text.strip()
        if printed == "8":
            yield answer(message, "finding_verified", "It prints 8.", to=EXECUTIONER)
            yield resolved(message["thread_id"])
        else:
            said = f"backoff.sh 3 prints {printed} and the issue wants 8."
            yield answer(message, "finding_reported", said, to=EXECUTIONER)
    return "I have reviewed what was there."


def _registered() -> Generator[Call, Result, str]:
    """Tell the bridge the session, as Codex names it to the commands that it runs, and wait to be woken."""
    session_id = (yield shell("printenv CODEX_THREAD_ID")).text.strip()
    yield tool("heartbeat_session", session_id=session_id, runtime="codex", resumable=True, status="idle")
    return "I wait to be woken."


def thread_of(turn: Turn) -> str:
    """Give the thread that the prompt names."""
    found = _THREAD.search(turn.prompt)
    assert found, turn.prompt
    return found[0]


def unanswered(turn: Turn, agent: str) -> Generator[Call, Result, list[dict[str, Any]]]:
    """Read from where the prompt says, say so, and give what others have said that the agent has not answered yet."""
    thread_id = thread_of(turn)
    since = _SINCE.search(turn.prompt)
    assert since, turn.prompt
    read = (yield tool("read_messages", thread_id=thread_id, since_seq=int(since[1]))).data
    yield tool("ack_read", thread_id=thread_id, last_read_seq=read["next_seq"])
    answered = {one["in_reply_to"] for one in read["messages"] if one["sender"] == agent}
    others = [one for one in read["messages"] if one["sender"] != agent and one["kind"] != "system"]
    return [one for one in others if one["message_id"] not in answered]


def resolved(thread_id: str) -> Call:
    """Say that nothing is left to find."""
    return tool("update_thread_status", thread_id=thread_id, status="resolved", reason="verified by the reviewer")


def answer(message: dict[str, Any], kind: str, body: str, *, to: str) -> Call:
    """Answer a message, once: a turn that comes again says it under the same key."""
    about = {} if kind == "work_done" else {"finding_id": FINDING}
    metadata = {"event_type": kind, **about}
    named = {"thread_id": message["thread_id"], "kind": "event", "body": body, "metadata": metadata, "to": to}
    return tool("post_message", **named, in_reply_to=message["message_id"], idempotency_key=message["message_id"])


def _pushed(line: str, why: str) -> Acts:
    yield shell(f"printf '%s\\n' '{line}' >backoff.sh && git add backoff.sh")
    yield shell(f"git diff --cached --quiet || git commit -q -m '{why}'; git push -q && git log -1 --format=%s")


def repository(folder: Path) -> dict[str, Path]:
    """Make a bare repository with one commit, and a clone for each agent."""
    origin = folder / "origin.git"
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    clones = {}
    for agent in (EXECUTIONER, REVIEWER):
        clones[agent] = folder / agent
        _git("clone", "--quiet", str(origin), str(clones[agent]))
        for name, value in {"user.name": agent, "user.email": f"{agent}@example.org", "pull.ff": "only"}.items():
            _git("config", name, value, cwd=clones[agent])
        if agent == EXECUTIONER:
            (clones[agent] / "README").write_text("Waits between tries: 1 s, 2 s, 4 s, 8 s.\n")
            _git("add", "README", cwd=clones[agent])
            _git("commit", "--quiet", "--message", "Say how long to wait", cwd=clones[agent])
            _git("push", "--quiet", "origin", "main", cwd=clones[agent])
    return clones


def pushed(folder: Path) -> list[str]:
    """Return what was pushed, the newest first."""
    return _git("log", "--format=%s", "main", cwd=folder / "origin.git").splitlines()


def _git(*arguments: str, cwd: Path | None = None) -> str:
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=30).stdout
