"""`klorosctl` on threads: what a person sees, what a person does, and who the audit says it was."""

from __future__ import annotations

import getpass
import json
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestration.bridge.caller import Role
from tests.acceptance.bridging import Bridge, caller, play
from tests.acceptance.host import Host
from tests.waiting import until

EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")
NOWHERE = "thr_" + "0" * 32


def ctl(host: Host, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = host.run("klorosctl", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def told(host: Host, *arguments: str) -> Any:
    return json.loads(ctl(host, *arguments, "--json").stdout)


@pytest.fixture
def thread_id(host: Host) -> str:
    host.state.mkdir(exist_ok=True, mode=0o700)

    async def scene(bridge: Bridge) -> str:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.post(EXECUTIONER, thread_id, "The fix is on branch retry-2.\x1b[31m")
        await bridge.event(REVIEWER, thread_id, "finding_reported", "F-1")
        asked = {"thread_id": thread_id, "target_agent_id": "executioner", "reason": "a finding"}
        await bridge.ask(REVIEWER, "trigger_participant", **asked)
        await bridge.ask(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=2)
        return thread_id

    return play(str(host.state / "kloros.db"), scene)


def test_a_thread_is_shown_with_all_that_concerns_it(host: Host, thread_id: str) -> None:
    found = told(host, "inspect-thread", "--thread-id", thread_id)
    assert found["thread"]["thread_id"] == thread_id
    assert [one["seq"] for one in found["messages"]] == [1, 2]
    assert [one["finding_id"] for one in found["open_items"]] == ["F-1"]
    assert [(one["agent_id"], one["status"]) for one in found["triggers"]] == [("executioner", "queued")]
    limits = ("--limit-messages", "1", "--limit-triggers", "0")
    short = told(host, "inspect-thread", "--thread-id", thread_id, *limits)
    assert ([one["seq"] for one in short["messages"]], short["triggers"]) == ([2], [])
    text = ctl(host, "inspect-thread", "--thread-id", thread_id).stdout
    for words in ("Retry", thread_id, "executioner", "F-1", "a finding", "The fix is on branch retry-2."):
        assert words in text
    assert "\x1b" not in text


def test_threads_are_listed(host: Host, thread_id: str) -> None:
    assert [one["thread_id"] for one in told(host, "threads", "list")] == [thread_id]
    assert told(host, "threads", "list", "--status", "closed") == []
    assert told(host, "threads", "list", "--workspace", "other") == []
    assert thread_id in ctl(host, "threads", "list").stdout


def test_a_person_blocks_unblocks_and_closes_and_what_is_done_already_is_no_failure(host: Host, thread_id: str) -> None:
    def steer(command: str, *more: str) -> tuple[str, bool]:
        done = told(host, command, "--thread-id", thread_id, *more)
        return done["status"], done["changed"]

    escalate = ("escalate-thread", "--reason", "looks wrong")
    assert [steer(*escalate), steer(*escalate)] == [("blocked", True), ("blocked", False)]
    assert [steer("unblock-thread"), steer("unblock-thread")] == [("active", True), ("active", False)]
    steer(*escalate)
    ctl(host, "override-close-thread", "--thread-id", thread_id, "--reason", "because", code=64)
    close = ("override-close-thread", "--reason", "human_override: settled by mail")
    assert [steer(*close), steer(*close)] == [("closed", True), ("closed", False)]
    refused = ctl(host, "unblock-thread", "--thread-id", thread_id, "--json", code=1)
    *logged, error = map(json.loads, refused.stderr.splitlines())
    assert "closed to active" in error["error"]["what"]
    rows = [row for row in told(host, "audit", "list", "--thread-id", thread_id) if row["role"] == "operator"]
    assert [(line["rule"], line["request_id"]) for line in logged] == [(rows[-1]["rule"], rows[-1]["request_id"])]
    assert [row["outcome"] for row in rows] == ["done"] * 7 + ["INVALID_THREAD_TRANSITION"]
    assert {row["actor"] for row in rows} == {f"operator:{getpass.getuser()}"}


def test_what_is_logged_of_a_change_without_a_reason_ends_with_it(host: Host, thread_id: str) -> None:
    ctl(host, "escalate-thread", "--thread-id", thread_id, "--reason", "looks wrong")
    logged = ctl(host, "unblock-thread", "--thread-id", thread_id).stderr
    assert [json.loads(line)["message"].partition(": ")[2] for line in logged.splitlines() if line.startswith("{")] == [
        f"sets thread {thread_id} to active"
    ]


def test_who_became_somebody_else_by_sudo_is_named_with_both(host: Host, thread_id: str) -> None:
    host.environ["SUDO_USER"] = "ada"
    posted = told(host, "post", "--thread-id", thread_id, "--body", "Go on.")
    assert posted["seq"] == 3
    lines = ctl(host, "tail-thread", "--thread-id", thread_id, "--last", "1", "--json").stdout.splitlines()
    (said,) = map(json.loads, lines)
    assert (said["body"], said["sender"]) == ("Go on.", f"operator:ada:as:{getpass.getuser()}")
    assert "Go on." in ctl(host, "tail-thread", "--thread-id", thread_id).stdout


def test_a_thread_is_followed_until_ctrl_c(host: Host, thread_id: str) -> None:
    command = host.command("klorosctl", "tail-thread", "-f", "--thread-id", thread_id, "--last", "1", "--json")
    with subprocess.Popen(command, env=host.environ, stdout=subprocess.PIPE, text=True) as follows:
        assert follows.stdout is not None
        assert json.loads(follows.stdout.readline())["seq"] == 2
        for number in range(3, 6):
            told(host, "post", "--thread-id", thread_id, "--body", f"{number}")
            said = json.loads(follows.stdout.readline())
            assert (said["seq"], said["body"]) == (number, f"{number}")
        follows.send_signal(signal.SIGINT)
        assert follows.stdout.read() == ""
        follows.wait(20)
    assert follows.returncode == 130


def test_threads_go_out_and_come_in_again(host: Host, thread_id: str, tmp_path: Path) -> None:
    before = told(host, "inspect-thread", "--thread-id", thread_id)
    exported = ctl(host, "threads", "export").stdout
    kinds = [json.loads(line)["line"] for line in exported.splitlines()]
    assert kinds == ["thread", "message", "message", *["audit"] * 5, "end"]
    file = tmp_path / "threads.jsonl"
    file.write_text(exported, encoding="utf-8")
    assert [one["changed"] for one in told(host, "threads", "import", str(file))] == [False]
    for path in host.state.glob("kloros.db*"):
        path.unlink()
    assert [one["changed"] for one in told(host, "threads", "import", str(file))] == [True]
    after = told(host, "inspect-thread", "--thread-id", thread_id)
    assert after["messages"] == before["messages"]
    assert after["open_items"] == before["open_items"]
    assert [one["last_read_seq"] for one in after["thread"]["participants"]] == [0, 2]
    assert told(host, "audit", "verify")["whole"]


def test_an_operator_posts_an_event(host: Host, thread_id: str) -> None:
    event = ("post", "--thread-id", thread_id, "--body", "pushed", "--kind", "event", "--metadata")
    told(host, *event, '{"event_type": "fix_pushed"}')
    last = told(host, "inspect-thread", "--thread-id", thread_id)["messages"][-1]
    assert (last["kind"], last["metadata"]) == ("event", {"event_type": "fix_pushed"})
    for wrong in ("{", "[]", '"x"', "{}", '{"event_type": ""}'):
        ctl(host, *event, wrong, code=64)


def test_threads_that_are_over_expire_into_an_archive_and_come_back(host: Host, thread_id: str) -> None:
    assert told(host, "threads", "expire") == []
    host.configure("[retention.threads]\n'*' = '1s'\n")
    told(host, "override-close-thread", "--thread-id", thread_id, "--reason", "human_override: over")
    (old,) = until(lambda: told(host, "threads", "expire", "--dry-run"), what="it is old enough")
    assert (old["thread_id"], old["path"]) == (thread_id, "")
    (gone,) = told(host, "threads", "expire")
    assert told(host, "threads", "list") == []
    assert gone["path"].startswith(f"{host.state}/archive/threads/")
    assert [one["changed"] for one in told(host, "threads", "import", gone["path"])] == [True]
    assert told(host, "audit", "verify")["whole"]


@pytest.mark.parametrize(
    ("old", "new"), [("retry-2", "retry-3"), ('"seq":2', '"seq":3'), ('"line":"end"', '"line":"enc"'), ("{", "[")]
)
def test_an_export_that_was_edited_is_not_taken_in(host: Host, thread_id: str, tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "threads.jsonl"
    file.write_text(ctl(host, "threads", "export", thread_id).stdout.replace(old, new, 1), encoding="utf-8")
    ctl(host, "threads", "import", str(file), code=1)


def test_an_edit_of_the_audit_is_found(host: Host, thread_id: str) -> None:
    assert told(host, "audit", "verify") == {"whole": True, "chains": 1, "entries": 5, "faults": []}
    with sqlite3.connect(host.state / "kloros.db") as connection:
        connection.execute("UPDATE bridge_audit SET actor = 'mallory' WHERE entry = 2")
    connection.close()
    found = json.loads(ctl(host, "audit", "verify", "--json", code=1).stdout)
    assert (found["whole"], [(one["chain"], one["link"]) for one in found["faults"]]) == (False, [(thread_id, 2)])


def test_what_is_not_there_is_wrong_use_and_nothing_is_made_for_it(host: Host) -> None:
    for command in (("inspect-thread",), ("tail-thread",), ("post", "--body", "x"), ("unblock-thread",)):
        ctl(host, *command, "--thread-id", NOWHERE, code=64)
    assert told(host, "threads", "list") == []
    assert not (host.state / "kloros.db").exists()
    ctl(host, "inspect-thread", "--thread-id", "nonsense", code=64)


def test_a_thread_that_is_not_in_the_store_is_wrong_use(host: Host, thread_id: str) -> None:
    assert "klorosctl threads list" in ctl(host, "inspect-thread", "--thread-id", NOWHERE, code=64).stderr
    assert Role.OPERATOR.value in ctl(host, "audit", "list", "--json").stdout
