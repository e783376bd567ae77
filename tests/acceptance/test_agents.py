"""`klorosctl agent`: agents in real terminals, kept, registered with the bridge, and ended with all they started."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.bridge.wake.port import Turn
from orchestration.bridge.wake.turns import Turns
from orchestration.configuration import load
from orchestration.cycles.cycle import CycleState
from orchestration.exits import Exit
from orchestration.host import process_tree
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.terminals import Terminals
from tests.waiting import until

SESSION = "01a1fdd8-83fa-73d1-a193-1551c93914f5"
# Leaves a process in a session of its own, which no signal to a group reaches.
LEAVING = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.setsid()
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    made = Terminals(tmp_path_factory.mktemp("t"))
    yield made
    made.end()


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sessions(host: Terminals) -> dict[str, tuple[str, str, str, int]]:
    path = host.state / "kloros.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection, suppress(sqlite3.OperationalError):
        rows = connection.execute("SELECT session_id, agent_id, management_mode, status, resumable FROM bridge_sessions")
        return {row[0]: row[1:] for row in rows.fetchall()}
    return {}


def configure(host: Terminals, toml: str) -> None:
    (host.home / "orchestrator.toml").write_text(toml)


def test_an_agent_is_started_registered_shown_and_ended(host: Terminals) -> None:
    place = host.listen()
    assert told(host.klorosctl("agent", "list", "--json"))[0]["terminal"]["liveness"] == "live"
    assert "live" in host.klorosctl("agent", "list").stdout
    until(lambda: place.session_id in sessions(host), "it is registered")
    assert sessions(host) == {place.session_id: ("reviewer", "managed", "idle", 0)}
    shown = told(host.klorosctl("agent", "attach", "--agent", "reviewer", "--json"))
    assert shown["attach"] == ["tmux", "-S", place.socket, "attach-session", "-t", place.tmux_session]
    assert host.klorosctl("agent", "attach", "--agent", "reviewer").returncode == Exit.USAGE, "there is no terminal"

    again = host.klorosctl("agent", "start", "--agent", "reviewer", "--runtime", "command", "--", "cat")
    assert again.returncode == Exit.USAGE
    assert "lives already" in again.stderr

    ended = told(host.klorosctl("agent", "stop", "--agent", "reviewer", "--json"))
    assert ended["killed"] == 0
    assert not place.keeper_lives
    assert not place.program_lives
    assert list(host.places.all()) == []
    assert sessions(host)[place.session_id][2] == "offline"
    assert told(host.klorosctl("agent", "list", "--json")) == []
    assert host.klorosctl("agent", "stop", "--agent", "reviewer").returncode == Exit.USAGE
    left = {path.name for path in (host.state / "agents").iterdir()}
    assert left <= {"tmux.sock"}


def test_everything_an_agent_started_ends_with_it(host: Terminals) -> None:
    pids = host.home / "pids"
    host.start(sys.executable, "-S", "-c", LEAVING, str(pids))
    until(lambda: pids.exists() and pids.read_text().count("\n") == 2, "both stand")
    assert told(host.klorosctl("agent", "stop", "--agent", "reviewer", "--json"))["killed"] == 0, "its keeper has done it"
    assert not living(pids)


def test_what_a_killed_keeper_leaves_is_ended_by_whoever_stops_the_agent(host: Terminals) -> None:
    pids = host.home / "pids"
    place = host.start(sys.executable, "-S", "-c", LEAVING, str(pids))
    until(lambda: pids.exists() and pids.read_text().count("\n") == 2, "both stand")
    os.kill(place.keeper, signal.SIGKILL)
    until(lambda: not place.program_lives, "the kernel ends the program")
    assert told(host.klorosctl("agent", "list", "--json"))[0]["terminal"]["liveness"] in ("absent", "dead")
    assert len(living(pids)) == 1
    assert told(host.klorosctl("agent", "stop", "--agent", "reviewer", "--json"))["killed"] == 1
    assert not living(pids)
    host.start("cat")


def living(pids: Path) -> list[int]:
    running = {process.pid for process in process_tree.all_processes() if process.runs}
    return [int(pid) for pid in pids.read_text().split() if int(pid) in running]


def test_an_agent_that_ends_by_itself_says_good_bye(host: Terminals) -> None:
    place = host.listen()
    until(lambda: place.session_id in sessions(host), "it is registered")
    os.kill(place.program, signal.SIGKILL)
    until(lambda: not place.keeper_lives, "its keeper ends")
    assert list(host.places.all()) == []
    assert sessions(host)[place.session_id][2] == "offline"


def test_what_the_keeper_logs_does_not_stand_in_the_terminal(host: Terminals) -> None:
    (host.state).mkdir(parents=True)
    (host.state / "kloros.db").write_text("no database")
    place = host.listen()
    log = host.state / "logs" / "run_agent.log"
    until(lambda: log.exists() and "no heartbeat of reviewer" in log.read_text(), "the bridge's store can't be opened")
    assert place.program_lives
    assert "heartbeat" not in host.shown(place)


def test_a_log_that_was_rotated_is_gone_on_with_in_a_new_file(host: Terminals) -> None:
    place = host.listen()
    log = host.state / "logs" / "run_agent.log"
    log.rename(log.with_suffix(".log.1"))
    until(lambda: log.exists() and os.path.samefile(f"/proc/{place.keeper}/fd/2", log), "it logs to a new file")


def test_a_program_that_ends_at_once_was_not_started(host: Terminals) -> None:
    done = host.klorosctl(
        "agent", "start", "--agent", "reviewer", "--runtime", "command", "--", "timeout", "0.3", "sleep", "9"
    )
    assert done.returncode == Exit.FAILED, done.stdout
    assert "ended at once" in done.stderr


def test_a_stopped_program_goes_on(host: Terminals) -> None:
    place = host.listen()
    os.kill(place.program, signal.SIGSTOP)
    until(lambda: state_of(place.program) != "T", "it is woken")


def state_of(pid: int) -> str:
    return next((process.state for process in process_tree.all_processes() if process.pid == pid), "")


def test_a_profile_says_what_runs_where_and_under_which_variables(host: Terminals) -> None:
    work = host.home / "work"
    work.mkdir()
    shown = host.home / "shown"
    script = f'env >{shown}; pwd >>{shown}; printf "%s\\n" "$@" >>{shown}; exec cat'
    start = json.dumps(["sh", "-c", script, "sh"])
    host.environ |= {"KLR_DATABASE_URL": "", "SECRET": "kept", "KLR_CYCLE": "7"}
    configure(
        host,
        f'[agents.reviewer]\nruntime = "claude"\nworkspace = "elsewhere"\nstart = {start}\nworking_dir = "{work}"\n'
        'variables = { CODEX_HOME = "/c" }\n',
    )
    place = told(host.klorosctl("agent", "start", "--agent", "reviewer", "--json"))
    until(lambda: shown.exists() and shown.read_text().endswith(f"{place['session_id']}\n"), "it has been shown")
    lines = shown.read_text().splitlines()
    assert lines[-3:] == [str(work), "--session-id", place["session_id"]], "Claude Code is told its session"
    assert {"CODEX_HOME=/c", "KLR_AGENT=reviewer", f"KLR_SESSION_ID={place['session_id']}", "SECRET=kept"} <= set(lines)
    assert not [line for line in lines if line.startswith(("KLR_DATABASE_URL", "KLR_CYCLE="))]
    until(lambda: place["session_id"] in sessions(host), "it is registered")
    assert sessions(host)[place["session_id"]] == ("reviewer", "managed", "idle", 1)
    refused = host.klorosctl("agent", "start", "--agent", "reviewer", "--runtime", "codex")
    assert refused.returncode == Exit.USAGE
    assert [one["agent"] for one in told(host.klorosctl("agent", "list", "--json"))] == ["reviewer"]


def test_codex_tells_its_session_by_what_it_has_open_and_no_turn_runs_beside_it(host: Terminals) -> None:
    go = host.home / "go"
    rollout = host.home / "sessions" / "2026" / "11" / "21" / f"rollout-2026-11-21T10-00-00-{SESSION}.jsonl"
    rollout.parent.mkdir(parents=True)
    script = f"until [ -e {go} ]; do sleep 0.05; done; exec sleep 300 >>{rollout}"
    configure(host, f'[agents.reviewer]\nruntime = "codex"\nstart = {json.dumps(["sh", "-c", script])}\n')
    first = told(host.klorosctl("agent", "start", "--agent", "reviewer", "--json"))
    until(lambda: first["session_id"] in sessions(host), "it is registered")
    go.touch()
    until(lambda: sessions(host).get(SESSION), "its session is known")
    assert sessions(host) == {
        first["session_id"]: ("reviewer", "managed", "offline", 0),
        SESSION: ("reviewer", "managed", "idle", 1),
    }
    place = host.places.of_session(SESSION)
    assert place is not None

    assert turned(host, "-1", SESSION) == (CycleState.CANCELLED, "its session has another writer")
    assert turned(host, "-2", "another") == (CycleState.SUCCEEDED, "exit code 0")
    told(host.klorosctl("agent", "stop", "--agent", "reviewer", "--json"))
    assert turned(host, "-3", SESSION) == (CycleState.SUCCEEDED, "exit code 0")


def turned(host: Terminals, name: str, session: str) -> tuple[CycleState, str]:
    with closing(SqliteDatabase(str(host.state / "kloros.db"))) as db:
        turns, token = Turns(load(host.environ), host.environ, db), f"{host.home}{name}"
        cycle = turns.enqueue(
            Turn(command=("true",), prompt="", session_id=session), token=token, timeout=timedelta(minutes=5)
        )
        command = [sys.executable, "-m", "orchestration.run_cycle", "--wake", str(cycle)]
        subprocess.run(command, env=host.environ, check=True, capture_output=True, timeout=60)
        found = turns.look(token)
        assert found is not None
        assert found.result is not None
        return found.state, found.result.reason.partition(":")[0]


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        (["--runtime", "command", "--", "/no/such/program"], Exit.FAILED, "/no/such/program"),
        (["--runtime", "command"], Exit.USAGE, "nothing says what"),
        ([], Exit.USAGE, "no profile"),
        (["--runtime", "command", "--dir", "/no/such/folder", "--", "cat"], Exit.FAILED, "No such file"),
    ],
)
def test_an_agent_that_can_not_be_started_says_why(host: Terminals, words: list[str], exit_code: Exit, says: str) -> None:
    done = host.klorosctl("agent", "start", "--agent", "reviewer", *words)
    assert (done.returncode, says in done.stderr) == (exit_code, True), done.stderr
    assert list(host.places.all()) == []
    left = (host.state / "agents").iterdir() if (host.state / "agents").exists() else ()
    assert {path.name for path in left} <= {"tmux.sock"}, "no variables are left lying about"


def test_a_name_that_is_none_is_refused_before_anything_is_made(host: Terminals) -> None:
    for name in ("../x", "-x", "a/b", "x" * 129):
        done = host.klorosctl("agent", "start", "--runtime", "command", f"--agent={name}", "--", "cat")
        assert done.returncode == Exit.USAGE, name
    assert not (host.state / "agents").exists()


def test_without_tmux_it_says_what_to_install(host: Terminals) -> None:
    folder = host.home / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(sys.executable)
    host.environ["PATH"] = str(folder)
    done = host.klorosctl("agent", "start", "--agent", "reviewer", "--runtime", "command", "--", "cat")
    assert done.returncode == Exit.USAGE
    assert "tmux" in done.stderr


def test_an_agent_is_left_alone_until_it_is_resumed(host: Terminals) -> None:
    def say(verb: str) -> tuple[bool, bool]:
        document = told(host.klorosctl("agent", verb, "--agent", "reviewer", "--json"))
        return document["paused"], document["changed"]

    assert [say("pause"), say("pause"), say("resume"), say("resume")] == [
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]


def test_who_is_left_alone_is_in_the_list(host: Terminals) -> None:
    assert told(host.klorosctl("agent", "list", "--json")) == []
    assert host.klorosctl("agent", "pause", "--agent", "reviewer").returncode == 0
    (listed,) = told(host.klorosctl("agent", "list", "--json"))
    assert (listed["agent"], listed["paused"]) == ("reviewer", True)
    assert "Paused, so that nothing wakes them: reviewer." in host.klorosctl("agent", "list").stdout
    assert host.klorosctl("agent", "resume", "--agent", "reviewer").returncode == 0
    assert told(host.klorosctl("agent", "list", "--json")) == []
