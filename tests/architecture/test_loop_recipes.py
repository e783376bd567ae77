"""The recipes of docs/how-to/continuous-loop.md, as far as they can be tried here."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from orchestration.exits import Exit
from orchestration.loop import options
from tests.acceptance.recipes import TOP, fenced


def understood(words: list[str]) -> options.Options:
    """Read the flags of a command line of the loop, as the loop does."""
    assert words[1:3] == ["-m", "orchestration.run_loop"]
    environ = {"KLR_STATE_DIR": "/nowhere", "KLR_CONFIG": str(TOP / "systemd/orchestrator.toml")}
    return options.read(words[3:], environ, "loop")


def test_the_crontab_line_does_one_iteration(tmp_path: Path) -> None:
    line = fenced("crontab").strip()
    *times, command = line.split(" ", 5)
    assert len(times) == 5
    assert all(re.fullmatch(r"[\d*/,-]+", one) for one in times)
    assert "%" not in command, "cron ends the command there"
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/run_cycle.sh").write_text("#!/bin/sh\necho ran >>ran\n")
    (tmp_path / "tools/run_cycle.sh").chmod(0o755)
    here = command.replace("/opt/kloros/bin/python", shlex.quote(sys.executable)).replace("/srv/agent", str(tmp_path))
    # crontab(5): cron gives a command little more than these
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "nobody"}
    environ |= {"KLR_STATE_DIR": str(tmp_path / "kloros"), "KLR_TEXTFILE": str(tmp_path / "prom"), "PYTHONPATH": str(TOP)}
    done = subprocess.run(["/bin/sh", "-c", here], env=environ, cwd="/", check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == Exit.DONE, (tmp_path / "loop.err").read_text()
    assert (tmp_path / "ran").read_text() == "ran\n"
    assert json.loads((tmp_path / "logs/run_cycle/latest.json").read_text())["totals"]["degraded"] == 1
    (row,) = (tmp_path / "state/run_cycle_history.jsonl").read_text().splitlines()
    assert json.loads(row)["next_run_at"] is None, "cron knows when"


def test_supervisord_restarts_what_crashed_and_nothing_else() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(fenced("ini"))
    program = parser["program:kloros-loop"]
    given = understood(shlex.split(program["command"]))
    assert given.settings.loop.continuous
    ours = given.settings
    assert int(program["stopwaitsecs"]) > (ours.loop.stop_timeout + ours.cycles.term_grace).total_seconds()
    ends = {int(code) for code in program["exitcodes"].split(",")}
    assert ends == {
        Exit.DONE, Exit.DISABLED, Exit.FAILURE_LIMIT, Exit.HALTED, Exit.USAGE, Exit.LOCK_HELD, Exit.SETTINGS_INVALID
    }  # fmt: skip
    assert program["startsecs"] == "0", "an answer within the first second is one too"
    assert program["stopasgroup"] == "false", "the loop lets its command finish"


def test_the_container_runs_the_loop_as_somebody_else_with_its_state_on_a_volume() -> None:
    lines = [line.split(" ", 1) for line in fenced("dockerfile").splitlines()]
    last = dict(lines)
    words = [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])]
    given = understood(words)
    assert given.settings.loop.continuous
    volume = last["VOLUME"]
    for kept in re.findall(r"KLR_STATE_DIR=(\S+)", last["ENV"]):
        assert kept.startswith(volume)
    for kept in (given.settings.loop.log_dir, given.settings.loop.history_path):
        assert os.path.normpath(os.path.join(last["WORKDIR"], kept)).startswith(volume)
    assert last["USER"] == "kloros"
