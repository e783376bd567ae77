"""Two agents, an executioner and a reviewer, as scripts of a model: what each does on what it reads, and the repository that
they work on, a bare one and a clone for each.

The work is real: git, and a program that is run. Every step may be done again, since an agent may be killed at any of them:
it posts under an idempotency key made of the message that it answers, and moves its cursor last.
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


def executioner(turn: Turn) -> Generator[Call, Result, str]:
    """Do what a person asks for; mend what a finding says."""
    if not _THREAD.search(turn.prompt):
        return (yield from _registered())
    thread_id = thread_of(turn)
    found = yield from unread(thread_id, EXECUTIONER)
    for message in found:
        about = message["message_id"]
        if message["body"] == WORK:
            yield from _pushed(FIRST, "Retry waits twice as long each time")
            yield event(thread_id, "work_done", "The retry patch is done and pushed: please review.", key=about, to=REVIEWER)
        elif message["metadata"].get("event_type") == "finding_reported":
            assert "wants 8" in message["body"]
            yield from _pushed(FIXED, "Wait a power of two")
            said = "The third wait is a power of two now: pushed."
            yield event(thread_id, "fix_pushed", said, key=about, to=REVIEWER)
    yield from read_up_to(thread_id, found)
    return "I have done what was to do."


def reviewer(turn: Turn) -> Generator[Call, Result, str]:
    """Run what was pushed: report a finding, or verify it and resolve the thread."""
    if not _THREAD.search(turn.prompt):
        return (yield from _registered())
    thread_id = thread_of(turn)
    found = yield from unread(thread_id, REVIEWER)
    is_over = False
    for message in found:
        if message["metadata"].get("event_type") not in ("work_done", "fix_pushed"):
            continue
        yield shell("git pull -q")
        printed = (yield shell("sh backoff.sh 3")).text.strip()
        about = message["message_id"]
        if printed == "8":
            yield event(thread_id, "finding_verified", "It prints 8.", key=about, to=EXECUTIONER)
            is_over = True
        else:
            said = f"backoff.sh 3 prints {printed} and the issue wants 8."
            yield event(thread_id, "finding_reported", said, key=about, to=EXECUTIONER)
    if is_over:
        yield resolved(thread_id)
    yield from read_up_to(thread_id, found)
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


def unread(thread_id: str, agent: str) -> Generator[Call, Result, list[dict[str, Any]]]:
    """Read on from the agent's cursor; gives what others have said."""
    thread = (yield tool("get_thread", thread_id=thread_id)).data
    (cursor,) = (one["last_read_seq"] for one in thread["participants"] if one["agent_id"] == agent)
    read = (yield tool("read_messages", thread_id=thread_id, since_seq=cursor)).data
    return [one for one in read["messages"] if one["sender"] != agent]


def read_up_to(thread_id: str, found: list[dict[str, Any]]) -> Acts:
    """Move the agent's cursor."""
    if found:
        yield tool("ack_read", thread_id=thread_id, last_read_seq=found[-1]["seq"])


def resolved(thread_id: str) -> Call:
    """Say that nothing is left to find."""
    return tool("update_thread_status", thread_id=thread_id, status="resolved", reason="verified by the reviewer")


def event(thread_id: str, kind: str, body: str, *, key: str, to: str) -> Call:
    """Say something, once for each key."""
    about = {} if kind == "work_done" else {"finding_id": FINDING}
    named = {"thread_id": thread_id, "kind": "event", "body": body, "metadata": {"event_type": kind, **about}}
    return tool("post_message", **named, idempotency_key=key, to=to)


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
