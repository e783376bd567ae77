"""What `klorosctl` says when something is wrong: text for people, one object for programs that asked for JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host

WRONG = (
    (("show", "9"), Exit.USAGE, "9"),
    (("shwo",), Exit.USAGE, "shwo"),
    (("history", "--limit", "x"), Exit.USAGE, "'x'"),
    (("history", "--no-such-option"), Exit.USAGE, "--no-such-option"),
    (("promotions", "retry"), Exit.USAGE, "STEM"),
    (("cancel", "1"), Exit.USAGE, "1"),
    (("intents", "add", "a type"), Exit.USAGE, "--priority"),
    (("loop", "--no-such-flag"), Exit.USAGE, "--no-such-flag"),
    (("loop", "--sleep", "soon"), Exit.USAGE, "soon"),
)


@pytest.mark.parametrize(
    ("words", "code", "named"), WRONG, ids=lambda given: "-".join(given) if type(given) is tuple else ""
)
def test_an_error_is_one_object_on_stderr(host: Host, words: tuple[str, ...], code: Exit, named: str) -> None:
    done = host.run("klorosctl", *words, "--json")
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    error = json.loads(line)["error"]
    assert sorted(error) == ["exit_code", "hint", "what"]
    assert (error["exit_code"], named in error["what"]) == (code, True), error


@pytest.mark.parametrize(
    ("words", "code", "named"), WRONG, ids=lambda given: "-".join(given) if type(given) is tuple else ""
)
def test_people_read_the_same_as_text(host: Host, words: tuple[str, ...], code: Exit, named: str) -> None:
    asked = json.loads(host.run("klorosctl", *words, "--json").stderr)["error"]
    done = host.run("klorosctl", *words)
    assert done.returncode == code
    assert done.stderr == f"klorosctl: {asked['what']}\n" + (f"  {asked['hint']}\n" if asked["hint"] else "")


def test_settings_that_are_wrong(host: Host) -> None:
    host.configure("no_such_setting = 1\n")
    done = host.run("klorosctl", "status", "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["exit_code"]) == (Exit.SETTINGS_INVALID, Exit.SETTINGS_INVALID)
    assert "no_such_setting" in error["what"]


def test_a_group_without_its_command(host: Host) -> None:
    done = host.run("klorosctl", "promotions", "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["exit_code"]) == (Exit.USAGE, Exit.USAGE)
    people = host.run("klorosctl", "promotions")
    assert people.returncode == Exit.USAGE
    assert "retry" in people.stderr


def test_a_store_that_is_none(host: Host) -> None:
    host.state.mkdir()
    (host.state / "kloros.db").write_bytes(b"no database at all" * 100)
    done = host.run("klorosctl", "status", "--json")
    error = json.loads(done.stderr)["error"]
    assert done.returncode == error["exit_code"] == Exit.STORE_UNREACHABLE
    assert error["hint"]


def test_a_place_where_nothing_can_be_written(host: Host, tmp_path: Path) -> None:
    host.decided()
    os.mkfifo(tmp_path / "fifo")
    host.set(KLR_STATE_DIR=str(tmp_path / "fifo" / "below"))
    done = host.run("klorosctl", "halt", "--json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["exit_code"]) == (Exit.UNWRITABLE, Exit.UNWRITABLE)


def test_after_two_dashes_nothing_is_an_option(host: Host) -> None:
    done = host.run("klorosctl", "show", "--", "--json")
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("klorosctl: ")
