"""`klorosctl` on threads: what a person sees, what a person does, and who the audit says it was."""

from __future__ import annotations

import getpass
import json
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from orchestration.bridge.caller import Role
from tests.acceptance.bridging import Bridge, caller, play
from tests.acceptance.host import Host
from tests.waiting import until

EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")
NOWHERE = "thr_" + "0" * 32


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
    found = host.answer("inspect-thread", "--thread-id", thread_id)
    assert found["thread"]["thread_id"] == thread_id
    assert [one["seq"] for one in found["messages"]] == [1, 2]
    assert [one["finding_id"] for one in found["open_items"]] == ["F-1"]
    assert [(one["agent_id"], one["status"]) for one in found["triggers"]] == [("executioner", "queued")]
    limits = ("--limit-messages", "1", "--limit-triggers", "0")
    short = host.answer("inspect-thread", "--thread-id", thread_id, *limits)
    assert ([one["seq"] for one in short["messages"]], short["triggers"]) == ([2], [])
    text = host.ctl("inspect-thread", "--thread-id", thread_id).stdout
    for words in ("Retry", thread_id, "executioner", "F-1", "a finding", "The fix is on branch retry-2."):
        assert words in text
    assert "\x1b" not in text


def test_threads_are_listed(host: Host, thread_id: str) -> None:
    assert [one["thread_id"] for one in host.answer("threads", "list")] == [thread_id]
    assert host.answer("threads", "list", "--status", "closed") == []
    assert host.answer("threads", "list", "--workspace", "other") == []
    assert thread_id in host.ctl("threads", "list").stdout


def test_a_long_list_goes_on_where_it_ended(host: Host, thread_id: str) -> None:
    async def more(bridge: Bridge) -> list[str]:
        return [await bridge.thread(EXECUTIONER) for _ in range(2)]

    newest = sorted([thread_id, *play(str(host.state / "kloros.db"), more)], reverse=True)
    told = host.ctl("threads", "list", "--limit", "2").stdout
    assert f"--after {newest[1]}" in told
    assert [one["thread_id"] for one in host.answer("threads", "list", "--after", newest[1])] == newest[2:]
    assert "There are more" not in host.ctl("threads", "list", "--after", newest[1]).stdout


def test_the_audit_is_read_on_and_from_its_end(host: Host, thread_id: str) -> None:
    entries = [one["entry"] for one in host.answer("audit", "list")]
    assert "There are more: --after 2" in host.ctl("audit", "list", "--limit", "2").stdout
    assert [one["entry"] for one in host.answer("audit", "list", "--after", "2")] == entries[2:]
    assert [one["entry"] for one in host.answer("audit", "list", "--last", "2")] == entries[-2:]
    assert [one["entry"] for one in host.answer("audit", "list", "--last", "9", "--thread-id", thread_id)] == entries
    assert "There are more" not in host.ctl("audit", "list", "--last", "2").stdout
    assert "--last" in host.ctl("audit", "list", "--last", "2", "--after", "1", code=64).stderr


def test_the_end_of_a_long_audit_is_found(host: Host, thread_id: str) -> None:
    async def more(bridge: Bridge) -> None:
        for _ in range(410):
            await bridge.ask(EXECUTIONER, "update_thread_status", thread_id=thread_id, status="active")

    play(str(host.state / "kloros.db"), more)
    assert [one["entry"] for one in host.answer("audit", "list", "--last", "3")] == [413, 414, 415]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("post", "--body", "x", "--to", "nobody"), "klorosctl inspect-thread"),
        (("post", "--body", "x", "--to", "bad name"), "klorosctl post --help"),
        (("post", "--body", "x", "--metadata", "[]"), "klorosctl post --help"),
        (("escalate-thread", "--reason", " "), "--reason"),
    ],
)
def test_what_is_wrong_is_told_with_what_helps(host: Host, thread_id: str, command: tuple[str, ...], hint: str) -> None:
    told = host.ctl(*command, "--thread-id", thread_id, "--json", code=64).stderr.splitlines()[-1]
    assert hint in json.loads(told)["error"]["hint"]


def test_a_person_blocks_unblocks_and_closes_and_what_is_done_already_is_no_failure(host: Host, thread_id: str) -> None:
    def steer(command: str, *more: str) -> tuple[str, bool]:
        done = host.answer(command, "--thread-id", thread_id, *more)
        return done["status"], done["changed"]

    escalate = ("escalate-thread", "--reason", "looks wrong")
    assert [steer(*escalate), steer(*escalate)] == [("blocked", True), ("blocked", False)]
    assert [steer("unblock-thread"), steer("unblock-thread")] == [("active", True), ("active", False)]
    steer(*escalate)
    host.ctl("override-close-thread", "--thread-id", thread_id, "--reason", "because", code=64)
    close = ("override-close-thread", "--reason", "human_override: settled by mail")
    assert [steer(*close), steer(*close)] == [("closed", True), ("closed", False)]
    refused = host.ctl("unblock-thread", "--thread-id", thread_id, "--json", code=1)
    *logged, error = map(json.loads, refused.stderr.splitlines())
    assert "closed to active" in error["error"]["what"]
    rows = [row for row in host.answer("audit", "list", "--thread-id", thread_id) if row["role"] == "operator"]
    assert [(line["rule"], line["request_id"]) for line in logged] == [(rows[-1]["rule"], rows[-1]["request_id"])]
    assert [row["outcome"] for row in rows] == ["done"] * 7 + ["INVALID_THREAD_TRANSITION"]
    assert {row["actor"] for row in rows} == {f"operator:{getpass.getuser()}"}


def test_what_is_logged_of_a_change_without_a_reason_ends_with_it(host: Host, thread_id: str) -> None:
    host.ctl("escalate-thread", "--thread-id", thread_id, "--reason", "looks wrong")
    logged = host.ctl("unblock-thread", "--thread-id", thread_id).stderr
    assert [json.loads(line)["message"].partition(": ")[2] for line in logged.splitlines() if line.startswith("{")] == [
        f"sets thread {thread_id} to active"
    ]


def test_who_became_somebody_else_by_sudo_is_named_with_both(host: Host, thread_id: str) -> None:
    host.environ["SUDO_USER"] = "ada"
    posted = host.answer("post", "--thread-id", thread_id, "--body", "Go on.")
    assert posted["seq"] == 3
    lines = host.ctl("tail-thread", "--thread-id", thread_id, "--last", "1", "--json").stdout.splitlines()
    (said,) = map(json.loads, lines)
    assert (said["body"], said["sender"]) == ("Go on.", f"operator:ada:as:{getpass.getuser()}")
    assert "Go on." in host.ctl("tail-thread", "--thread-id", thread_id).stdout


def test_a_thread_is_followed_until_ctrl_c(host: Host, thread_id: str) -> None:
    command = host.command("klorosctl", "tail-thread", "-f", "--thread-id", thread_id, "--last", "1", "--json")
    with subprocess.Popen(command, env=host.environ, stdout=subprocess.PIPE, text=True) as follows:
        assert follows.stdout is not None
        assert json.loads(follows.stdout.readline())["seq"] == 2
        for number in range(3, 6):
            host.answer("post", "--thread-id", thread_id, "--body", f"{number}")
            said = json.loads(follows.stdout.readline())
            assert (said["seq"], said["body"]) == (number, f"{number}")
        follows.send_signal(signal.SIGINT)
        assert follows.stdout.read() == ""
        follows.wait(20)
    assert follows.returncode == 130


def test_threads_go_out_and_come_in_again(host: Host, thread_id: str, tmp_path: Path) -> None:
    before = host.answer("inspect-thread", "--thread-id", thread_id)
    exported = host.ctl("threads", "export").stdout
    kinds = [json.loads(line)["line"] for line in exported.splitlines()]
    assert kinds == ["thread", "message", "message", *["audit"] * 5, "end"]
    file = tmp_path / "threads.jsonl"
    file.write_text(exported, encoding="utf-8")
    assert [one["changed"] for one in host.answer("threads", "import", str(file))] == [False]
    for path in host.state.glob("kloros.db*"):
        path.unlink()
    assert [one["changed"] for one in host.answer("threads", "import", str(file))] == [True]
    after = host.answer("inspect-thread", "--thread-id", thread_id)
    assert after["messages"] == before["messages"]
    assert after["open_items"] == before["open_items"]
    assert [one["last_read_seq"] for one in after["thread"]["participants"]] == [0, 2]
    assert host.answer("audit", "verify")["whole"]


def test_an_operator_posts_an_event(host: Host, thread_id: str) -> None:
    event = ("post", "--thread-id", thread_id, "--body", "pushed", "--kind", "event", "--metadata")
    host.answer(*event, '{"event_type": "fix_pushed"}')
    last = host.answer("inspect-thread", "--thread-id", thread_id)["messages"][-1]
    assert (last["kind"], last["metadata"]) == ("event", {"event_type": "fix_pushed"})
    for wrong in ("{", "[]", '"x"', "{}", '{"event_type": ""}'):
        host.ctl(*event, wrong, code=64)


def test_threads_that_are_over_expire_into_an_archive_and_come_back(host: Host, thread_id: str) -> None:
    assert host.answer("threads", "expire") == []
    host.configure("[retention.threads]\n'*' = '1s'\n")
    host.answer("override-close-thread", "--thread-id", thread_id, "--reason", "human_override: over")
    (old,) = until(lambda: host.answer("threads", "expire", "--dry-run"), what="it is old enough")
    assert (old["thread_id"], old["path"]) == (thread_id, "")
    (gone,) = host.answer("threads", "expire")
    assert host.answer("threads", "list") == []
    assert gone["path"].startswith(f"{host.state}/archive/threads/")
    assert [one["changed"] for one in host.answer("threads", "import", gone["path"])] == [True]
    assert host.answer("audit", "verify")["whole"]


@pytest.mark.parametrize(
    ("old", "new"), [("retry-2", "retry-3"), ('"seq":2', '"seq":3'), ('"line":"end"', '"line":"enc"'), ("{", "[")]
)
def test_an_export_that_was_edited_is_not_taken_in(host: Host, thread_id: str, tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "threads.jsonl"
    file.write_text(host.ctl("threads", "export", thread_id).stdout.replace(old, new, 1), encoding="utf-8")
    host.ctl("threads", "import", str(file), code=1)


@pytest.mark.parametrize("what", [b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_export_at_all_is_told_so(host: Host, tmp_path: Path, what: bytes) -> None:
    file = tmp_path / "threads.jsonl"
    file.write_bytes(what)
    assert "line 1 is no line of an export" in host.ctl("threads", "import", str(file), code=1).stderr


def test_an_edit_of_the_audit_is_found(host: Host, thread_id: str) -> None:
    assert host.answer("audit", "verify") == {"whole": True, "chains": 1, "entries": 5, "faults": []}
    with sqlite3.connect(host.state / "kloros.db") as connection:
        connection.execute("UPDATE bridge_audit SET actor = 'mallory' WHERE entry = 2")
    connection.close()
    found = json.loads(host.ctl("audit", "verify", "--json", code=1).stdout)
    assert (found["whole"], [(one["chain"], one["link"]) for one in found["faults"]]) == (False, [(thread_id, 2)])


def test_what_is_not_there_is_wrong_use_and_nothing_is_made_for_it(host: Host) -> None:
    for command in (("inspect-thread",), ("tail-thread",), ("post", "--body", "x"), ("unblock-thread",)):
        host.ctl(*command, "--thread-id", NOWHERE, code=64)
    assert host.answer("threads", "list") == []
    assert not (host.state / "kloros.db").exists()
    host.ctl("inspect-thread", "--thread-id", "nonsense", code=64)


def test_a_thread_that_is_not_in_the_store_is_wrong_use(host: Host, thread_id: str) -> None:
    assert "klorosctl threads list" in host.ctl("inspect-thread", "--thread-id", NOWHERE, code=64).stderr
    assert Role.OPERATOR.value in host.ctl("audit", "list", "--json").stdout
