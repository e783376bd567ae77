"""The continuous loop as a process: what it runs, what an iteration is called, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestration.exits import Exit
from orchestration.loop.configured import by_caller
from tests.acceptance.host import Host
from tests.acceptance.looping import Looping, mentions

FIELDS = (
    "timestamp started_at ended_at duration_seconds iteration mode goal status return_code signal prerequisites "
    "archive_created archive_path stderr_tail log_path cycle cap_writes next_run_at"
)


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def test_a_good_iteration_leaves_a_cycle_a_row_a_log_and_the_latest(looping: Looping) -> None:
    command = looping.command("echo said; echo told >&2", "echo new > state/planner_digest_archives/a")
    done = looping.loop("--mode", "quiet", "--goal", "mend it", "--command", command, "--cap-writes", "7")
    assert done.returncode == Exit.DONE, done.stderr
    (row,) = looping.rows()
    assert " ".join(row) == FIELDS
    assert (row["status"], row["return_code"], row["signal"], row["cycle"]) == ("success", 0, None, 1)
    assert (row["mode"], row["goal"], row["cap_writes"], row["iteration"]) == ("quiet", "mend it", 7, 1)
    assert row["archive_created"]
    assert row["archive_path"] == str(looping.archives / "a")
    assert row["stderr_tail"] == "said\ntold\n" == Path(row["log_path"]).read_text()
    assert row["next_run_at"] is None
    latest = looping.latest()
    assert latest["last"] == row
    assert latest["totals"]["success"] == 1
    assert latest["state"].startswith("ended")
    assert looping.host.rows("SELECT job, state, cause FROM cycles WHERE settled_at IS NOT NULL") == [
        ("loop", "succeeded", "loop")
    ]
    manifest = json.loads((looping.host.state / "cycles/cycle_00001/manifest.json").read_text())
    assert (manifest["job"], manifest["state"]) == ("loop", "succeeded")


def test_the_default_command_gets_mode_and_goal_as_they_are_without_a_shell(looping: Looping) -> None:
    (looping.tree / "tools").mkdir()
    looping.command('printf "%s|" "$@" > seen', name="tools/run_cycle.sh")
    nasty = "a; touch pwned $(touch pwned) {mode} 'x\" *"
    looping.loop("--mode", "m {goal}", "--goal", nasty)
    assert (looping.tree / "seen").read_text() == f"m {{goal}}|{nasty}|"
    assert not (looping.tree / "pwned").exists()


def test_a_command_knows_that_nobody_is_there_and_what_it_may_write(looping: Looping) -> None:
    command = looping.command("env | grep ^RUN_CYCLE_ | sort > seen; cat > stdin")
    looping.loop("--command", command, "--cap-writes", "3", "--sandbox-reset", "--goal", "g")
    assert (looping.tree / "seen").read_text().split() == [
        "RUN_CYCLE_CAP_WRITES=3",
        "RUN_CYCLE_CONSENT=unattended",
        "RUN_CYCLE_GOAL=g",
        "RUN_CYCLE_ITERATION=1",
        "RUN_CYCLE_MODE=experimental",
        "RUN_CYCLE_SANDBOX_RESET=1",
    ]
    assert (looping.tree / "stdin").read_text() == "", "consent must never be piped in"


def test_every_unattended_consent_is_on_record(looping: Looping) -> None:
    command, began = looping.good(), datetime.now(UTC)
    looping.loop("--command", command, "--iterations", "2", "--sleep", "0", "--cap-writes", "4")
    lines = [json.loads(line) for line in (looping.host.state / "consent.jsonl").read_text().splitlines()]
    assert [(one["iteration"], one["command"], one["source"]) for one in lines] == [
        (1, [command], "--command"),
        (2, [command], "--command"),
    ]
    shown = looping.host.run("klorosctl", "consent", "list", "--json")
    assert json.loads(shown.stdout) == lines[::-1]
    for one in lines:
        assert one["who"] == by_caller({}).who
        configured, ran = (datetime.fromisoformat(one[name]) for name in ("configured_at", "at"))
        assert began <= configured <= ran <= datetime.now(UTC)
        assert one["sha256"] == hashlib.sha256(json.dumps([command]).encode()).hexdigest()
    assert lines[0]["cap_writes"] == 4
    assert command in looping.host.run("klorosctl", "consent", "list").stdout.replace("\n", "")


def test_a_consent_in_the_file_is_its_owners_from_when_it_was_changed(looping: Looping) -> None:
    looping.host.configure('[loop]\ncommand = ["true"]\n')
    config = looping.host.environ["KLR_CONFIG"]
    os.utime(config, (1_795_000_000, 1_795_000_000))
    looping.host.set(SUDO_USER="ada")
    looping.loop()
    looping.loop("--command", "true")
    one, other = (json.loads(line) for line in (looping.host.state / "consent.jsonl").read_text().splitlines())
    owner = pwd.getpwuid(os.stat(config).st_uid).pw_name
    assert (one["who"], one["source"], one["configured_at"]) == (owner, config, "2026-11-18T11:06:40.000000Z")
    assert (other["who"], other["source"]) == ("ada", "--command")
    shown = looping.host.run("klorosctl", "consent", "list").stdout
    assert f"2026-11-18T11:06:40.000000Z  {owner} by {config}" in shown
    assert f"{other['configured_at']}  ada by --command" in shown


# statuses


def test_no_new_archive_is_degraded_and_no_failure(looping: Looping) -> None:
    done = looping.loop("--command", "true")
    assert (done.returncode, looping.statuses()) == (Exit.DONE, ["degraded"])


def test_without_a_pattern_no_archive_is_expected(looping: Looping) -> None:
    looping.loop("--command", "true", "--archives", "")
    assert looping.statuses() == ["success"]


def test_another_exit_code_is_failed(looping: Looping) -> None:
    done = looping.loop("--command", looping.command("echo ok; exit 9"))
    assert done.returncode == Exit.FAILED
    assert [(row["status"], row["return_code"]) for row in looping.rows()] == [("failed", 9)]


def test_a_signal_is_failed_and_named(looping: Looping) -> None:
    looping.loop("--command", looping.command("kill -SEGV $$"))
    assert [(row["status"], row["return_code"], row["signal"]) for row in looping.rows()] == [("failed", None, "SIGSEGV")]


def test_the_deadline_ends_the_whole_tree(looping: Looping) -> None:
    mark = f"sleep 98{os.getpid()}"
    done = looping.loop("--command", looping.command("trap '' TERM", f"setsid {mark} &", mark), "--timeout", "0.5")
    assert (done.returncode, looping.statuses()) == (Exit.FAILED, ["timed_out"])
    assert mentions(mark.replace(" ", "\0")) == []


def test_what_can_not_be_executed_was_not_started(looping: Looping) -> None:
    looping.loop("--command", "./absent")
    (row,) = looping.rows()
    assert (row["status"], row["return_code"]) == ("not_started", None)
    assert "./absent could not be executed" in Path(row["log_path"]).read_text()


def test_failed_prerequisites_are_named_and_the_command_is_not_run(looping: Looping) -> None:
    check = looping.command("echo no key; exit 4", name="check.sh")
    command = looping.command("touch ran")
    flags = ("--require-modules", "json,no_such_module", "--require-executables", "sh,no-such-program")
    looping.loop("--command", command, "--prerequisites", check, *flags)
    (row,) = looping.rows()
    assert (row["status"], row["cycle"], row["return_code"]) == ("prereq_failed", None, None)
    assert [(one["name"], one["passed"]) for one in row["prerequisites"]] == [
        ("module json", True),
        ("module no_such_module", False),
        ("executable sh", True),
        ("executable no-such-program", False),
        ("command", False),
    ]
    assert row["prerequisites"][-1]["detail"] == "exit code 4: no key"
    assert not (looping.tree / "ran").exists()
    assert "no-such-program" in Path(row["log_path"]).read_text()


def test_the_usual_script_of_prerequisites_is_asked_if_there_is_one(looping: Looping) -> None:
    (looping.tree / "scripts").mkdir()
    (looping.tree / "scripts/check_run_cycle_prereqs.py").write_text("print('all there')\n")
    looping.loop("--command", "true")
    assert looping.rows()[0]["prerequisites"] == [{"name": "command", "passed": True, "detail": "all there"}]


@pytest.mark.parametrize(
    ("flags", "passed"),
    [
        (("--require-free-disk", "1"), True),
        (("--require-free-disk", str(1 << 60)), False),
        (("--require-free-memory", "1"), True),
        (("--require-free-memory", str(1 << 60)), False),
        (("--require-variables", "HOME"), True),
        (("--require-variables", "NO_SUCH_VARIABLE"), False),
        (("--require-hosts", "127.0.0.1:1"), False),
    ],
    ids=lambda given: given[0] + given[1][:9] if isinstance(given, tuple) else str(given),
)
def test_conditions_of_our_own(looping: Looping, flags: tuple[str, ...], passed: bool) -> None:
    looping.loop("--command", "true", *flags)
    (row,) = looping.rows()
    assert [one["passed"] for one in row["prerequisites"]] == [passed]
    assert row["status"] == ("degraded" if passed else "prereq_failed")


def test_a_host_that_accepts_connections(looping: Looping) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        looping.loop("--command", "true", "--require-hosts", f"127.0.0.1:{server.getsockname()[1]}")
    assert looping.statuses() == ["degraded"]


def test_the_git_work_tree(looping: Looping) -> None:
    git = "git -c user.name=t -c user.email=t@example.org"
    looping.host.set(GIT_CONFIG_GLOBAL=os.devnull)
    command = looping.command(
        f"{git} init -q -b main . && {git} add job.sh && {git} commit -qm one && echo logs > .gitignore"
    )
    looping.loop("--command", command)
    flags = ("--command", "true", "--require-git-clean", "--require-git-revision", "main")
    looping.loop(*flags, "--sleep", "0")
    assert [one["passed"] for one in looping.rows()[-1]["prerequisites"]] == [False, True]
    (looping.tree / ".gitignore").write_text("*\n")
    looping.loop(*flags, "--max-backoff", "0")
    looping.loop(*flags[:-1], "no-such-branch", "--max-backoff", "0")
    assert [[one["passed"] for one in row["prerequisites"]] for row in looping.rows()[-2:]] == [[True, True], [True, False]]


def test_without_a_git_work_tree_there_is_no_revision(looping: Looping) -> None:
    looping.loop("--command", "true", "--require-git-revision", "main", "--require-git-clean")
    assert [one["passed"] for one in looping.rows()[0]["prerequisites"]] == [False, False]


# archives


@pytest.mark.parametrize("change", ["touch -d +1hour", "cp -p"])
def test_an_old_archive_with_a_new_time_or_name_is_not_new(looping: Looping, change: str) -> None:
    old = looping.archives / "old"
    old.write_text("content")
    target = f"{old}" if change.startswith("touch") else f"{old} {old}2"
    looping.loop("--command", looping.command(f"{change} {target}"))
    assert looping.statuses() == ["degraded"]


def test_new_content_in_an_old_file_is_new(looping: Looping) -> None:
    (looping.archives / "a").write_text("content")
    looping.loop("--command", looping.command("echo other > state/planner_digest_archives/a"))
    assert looping.statuses() == ["success"]


def test_three_iterations_without_a_new_archive_raise_the_stale_alert_once_they_are_three(looping: Looping) -> None:
    done = looping.loop("--command", "true", "--iterations", "3", "--sleep", "0")
    assert done.stderr.count('"loop.stale"') == 1
    assert looping.latest()["stale"]
    looping.loop("--command", looping.good())
    assert not looping.latest()["stale"]


def test_commands_that_were_not_started_say_nothing_of_archives(looping: Looping) -> None:
    flags = ("--iterations", "3", "--sleep", "0", "--max-backoff", "0", "--max-failures", "0")
    done = looping.loop("--command", "./absent", *flags)
    assert looping.statuses() == ["not_started"] * 3
    assert '"loop.stale"' not in done.stderr
    assert (looping.latest()["without_archive"], looping.latest()["stale"]) == (0, False)


# records


def test_logs_are_never_overwritten(looping: Looping) -> None:
    command = looping.command("echo $RUN_CYCLE_ITERATION")
    looping.loop("--command", command, "--iterations", "6", "--sleep", "0")
    logs = [Path(row["log_path"]) for row in looping.rows()]
    assert [log.read_text() for log in logs] == [f"{number}\n" for number in range(1, 7)]
    assert len(set(logs)) == 6
    assert sorted(looping.logs.iterdir()) == sorted([*logs, looping.logs / "latest.json"])


def test_latest_tells_what_runs_now(looping: Looping) -> None:
    with looping.running("--command", looping.command("while [ ! -e go ]; do sleep 0.02; done"), "--goal", "g") as loop:
        looping.waits_for("running")
        assert looping.latest()["current"]["cycle"] == 1
        assert looping.latest()["current"]["goal"] == "g"
        (looping.tree / "go").touch()
        assert loop.wait(30) == Exit.DONE
    assert looping.latest()["last"]["iteration"] == 1


def test_json_prints_a_row_per_iteration_and_nothing_else(looping: Looping) -> None:
    done = looping.loop("--command", looping.good(), "--iterations", "2", "--sleep", "0", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == looping.rows()


def test_lines_are_plain_when_piped(looping: Looping) -> None:
    done = looping.loop("--command", looping.good(), "--iterations", "2", "--sleep", "0")
    assert len(done.stdout.splitlines()) == 2
    assert "\033" not in done.stdout
    assert "success" in done.stdout


# goals


def test_goals_of_a_file_are_taken_in_turn_also_by_the_next_loop(looping: Looping) -> None:
    (looping.tree / "goals").write_text("one\n\n# none\n  two  \nthree\n")
    for number in ("2", "3"):
        looping.loop("--command", looping.good(), "--goal-file", "goals", "--sleep", "0", "--iterations", number)
    assert [row["goal"] for row in looping.rows()] == ["one", "two", "three", "one", "two"]


def test_goals_at_random_are_those_of_the_seed(looping: Looping) -> None:
    (looping.tree / "goals").write_text("\n".join("abcdefgh"))
    flags = ("--command", "true", "--goal-file", "goals", "--goal-order", "random", "--sleep", "0", "--iterations", "6")
    looping.loop(*flags, "--seed", "5")
    first = [row["goal"] for row in looping.rows()]
    assert len(set(first)) > 2
    other = Looping(Host(looping.host.home / "other"))
    (other.tree / "goals").write_text("\n".join("abcdefgh"))
    other.loop(*flags, "--seed", "5")
    assert [row["goal"] for row in other.rows()] == first


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_file_without_goals_is_refused(looping: Looping, name: str) -> None:
    (looping.tree / "empty").write_text("# no goal\n\n")
    done = looping.loop("--command", "true", "--goal-file", name)
    assert done.returncode == Exit.USAGE
    assert name in done.stderr
    assert list(looping.logs.glob("*.log")) == []


# where settings come from


def test_a_flag_beats_the_variable_and_the_variable_the_file(looping: Looping) -> None:
    looping.host.configure('[loop]\nmode = "file"\ngoal = "file"\ncap_writes = 1\ncommand = ["true"]\n')
    looping.host.set(RUN_CYCLE_GOAL="variable", RUN_CYCLE_CAP_WRITES="2")
    looping.loop("--cap-writes", "3")
    (row,) = looping.rows()
    assert (row["mode"], row["goal"], row["cap_writes"]) == ("file", "variable", 3)


def test_the_stronger_of_two_settings_that_exclude_each_other_counts(looping: Looping) -> None:
    looping.host.configure('[loop]\ncontinuous = true\ngoal_file = "goals"\ncommand = ["true"]\n')
    done = looping.loop("--iterations", "1", "--goal", "this")
    assert done.returncode == Exit.DONE
    assert [row["goal"] for row in looping.rows()] == ["this"]


@pytest.mark.parametrize(
    "setting", ["mode", "sleep", "max_failures", "log_dir", "goal", "timeout", "stop_file", "history_path"]
)
def test_help_says_where_each_value_comes_from(looping: Looping, setting: str) -> None:
    value = "77" if setting in ("sleep", "max_failures", "timeout") else "somewhere"
    variable = f"RUN_CYCLE_{setting.upper()}"
    looping.host.set(**{variable: value})
    text = " ".join(looping.loop("--help").stdout.split())
    shown = f"{value} s" if setting in ("sleep", "timeout") else value
    assert f"--{setting.replace('_', '-')} " in text
    assert f"[{variable}, loop.{setting}; now {shown} from {variable}]" in text


def test_a_wrong_flag_is_wrong_use_and_a_wrong_variable_a_wrong_setting(looping: Looping) -> None:
    wrong = looping.loop("--sleep", "soon")
    assert wrong.returncode == Exit.USAGE
    assert "--sleep: loop.sleep = 'soon'" in wrong.stderr
    looping.host.set(RUN_CYCLE_TIMEOUT="never")
    wrong = looping.loop()
    assert wrong.returncode == Exit.SETTINGS_INVALID
    assert "RUN_CYCLE_TIMEOUT: loop.timeout = 'never'" in wrong.stderr


def test_paths_can_be_elsewhere(looping: Looping, tmp_path: Path) -> None:
    looping.loop("--command", "true", "--log-dir", "l", "--history-path", str(tmp_path / "h/h.jsonl"))
    assert (looping.tree / "l/latest.json").exists()
    assert len((tmp_path / "h/h.jsonl").read_text().splitlines()) == 1


def test_a_dry_run_tells_and_changes_no_byte(looping: Looping) -> None:
    before = looping.host.snapshot()
    done = looping.loop("--dry-run", "--goal", "a b", "--json")
    plan = json.loads(done.stdout)
    assert plan["command"] == ["tools/run_cycle.sh", "experimental", "a b"]
    assert plan["settings"]["goal"] == {"value": "a b", "source": "--goal"}
    assert "would run: cd" in looping.loop("--dry-run").stdout
    assert looping.host.snapshot() == before


@pytest.mark.parametrize(("text", "flags", "dry"), [("1", (), True), ("off", (), False), ("true", ("--no-dry-run",), False)])
def test_a_dry_run_can_be_asked_for_by_a_variable(looping: Looping, text: str, flags: tuple[str, ...], dry: bool) -> None:
    looping.host.set(RUN_CYCLE_DRY_RUN=text)
    done = looping.loop("--command", "true", *flags)
    assert done.returncode == Exit.DONE, done.stderr
    assert ("would run: " in done.stdout, len(looping.rows())) == ((True, 0) if dry else (False, 1))
    assert "[RUN_CYCLE_DRY_RUN]" in " ".join(looping.loop("--help").stdout.split())


def test_a_dry_run_that_is_neither_true_nor_false_runs_nothing(looping: Looping) -> None:
    looping.host.set(RUN_CYCLE_DRY_RUN="perhaps")
    done = looping.loop("--command", "true")
    assert (done.returncode, looping.rows()) == (Exit.SETTINGS_INVALID, [])
    assert "RUN_CYCLE_DRY_RUN = 'perhaps'" in done.stderr


@pytest.mark.parametrize("setting", ["sandbox_reset", "require_git_clean", "continuous"])
def test_a_switch_can_be_turned_off_over_its_variable(looping: Looping, setting: str) -> None:
    looping.host.set(**{f"RUN_CYCLE_{setting.upper()}": "true"})
    flag = f"--no-{setting.replace('_', '-')}"
    plan = json.loads(looping.loop("--dry-run", "--json", flag).stdout)
    assert plan["settings"][setting]["value"] == "false"
    assert json.loads(looping.loop("--dry-run", "--json").stdout)["settings"][setting]["value"] == "true"


def test_what_is_not_continuous_leaves_the_number_of_iterations(looping: Looping) -> None:
    looping.host.set(RUN_CYCLE_CONTINUOUS="true", RUN_CYCLE_ITERATIONS="2")
    assert looping.loop("--command", "true", "--sleep", "0", "--no-continuous").returncode == Exit.DONE
    assert len(looping.rows()) == 2


def test_a_cap_and_a_reset_that_a_flag_takes_back_reach_no_command(looping: Looping) -> None:
    looping.host.set(RUN_CYCLE_CAP_WRITES="5", RUN_CYCLE_SANDBOX_RESET="1")
    lines = 'echo "${RUN_CYCLE_CAP_WRITES-none} ${RUN_CYCLE_SANDBOX_RESET-none}" >> seen'
    command, check = looping.command(lines), looping.command(lines, name="check.sh")
    looping.loop("--command", command, "--prerequisites", check, "--cap-writes", "-1", "--no-sandbox-reset")
    assert (looping.tree / "seen").read_text() == "none none\n" * 2
    looping.loop("--command", command, "--require-variables", "RUN_CYCLE_CAP_WRITES")
    assert (looping.tree / "seen").read_text().endswith("\n5 1\n")


def test_values_are_shown_as_their_flags_take_them(looping: Looping) -> None:
    flags = ("--backoff", "60,300", "--require-modules", "json,os", "--command", "echo 'a b' {goal}")
    settings = json.loads(looping.loop("--dry-run", "--json", *flags).stdout)["settings"]
    shown = [settings[name]["value"] for name in ("backoff", "require_modules", "command")]
    assert shown == ["60 s, 300 s", "json, os", "echo 'a b' '{goal}'"]
    looping.host.set(RUN_CYCLE_BACKOFF="60,300")
    text = " ".join(looping.loop("--help").stdout.split())
    assert "Between commas. [RUN_CYCLE_BACKOFF, loop.backoff; now 60 s, 300 s from" in text
    assert "As one quoted string. [RUN_CYCLE_COMMAND," in text


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_folder_that_is_none_is_refused_and_not_made(looping: Looping, flags: tuple[str, ...]) -> None:
    slip = looping.tree.parent / "tere"
    done = looping.loop("--command", "true", "--working-dir", str(slip), *flags)
    assert done.returncode == Exit.USAGE
    assert f"--working-dir: loop.working_dir = '{slip}'" in done.stderr
    assert "mkdir -p" in done.stderr
    assert not slip.exists()


def test_klorosctl_has_the_loop_too(looping: Looping) -> None:
    looping.host.set(RUN_CYCLE_WORKING_DIR=str(looping.tree))
    done = looping.host.run("klorosctl", "loop", "--command", shlex.join([sys.executable, "-c", "print(1)"]), "--json")
    assert json.loads(done.stdout)["status"] == "degraded"
    assert "--max-failures" in looping.host.run("klorosctl", "loop", "--help").stdout
