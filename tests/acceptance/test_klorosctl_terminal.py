"""What a person sees on a real terminal of 80 columns, and what a pipe gets instead."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from tests.acceptance.host import PYTHON, Host

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
UNBREAKABLE = re.compile(r"\S{50,}")  # a path or a name that somebody may want to copy
COMMANDS = (
    ["status"],
    ["explain"],
    ["forecast", "--days", "300"],
    ["history"],
    ["history", "--cycles"],
    ["promotions", "list"],
    ["intents", "list"],
    ["show", "1"],
    ["doctor"],
    ["config", "show"],
    ["--help"],
)


def on_terminal(host: Host, *arguments: str, columns: int = 80, **variables: str) -> str:
    """Run a command on a pseudo-terminal and return what it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [PYTHON, "-m", "orchestration.klorosctl", *arguments],
        env={**host.environ, "TERM": "xterm-256color", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # EIO: the other end has closed
        pass
    finally:
        os.close(ours)
        process.wait()
    return written.decode().replace("\r\n", "\n")


@pytest.fixture
def lively(host: Host) -> Host:
    host.set(KLR_PHASE_TIME_ZONE="America/Argentina/ComodRivadavia")
    host.promote("a-promotion-with-a-rather-long-name-that-takes-much-of-the-line")
    host.stepwise()
    host.decided()
    host.run_queued()
    host.promote("another-promotion-with-a-rather-long-name", fitness=-1)
    host.intend("curiosity_about_something_with_a_long_name", priority=9)
    host.run("klorosctl", "halt", "--reason", "because of a reason that is itself so long that it must be broken somewhere")
    return host


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_fits_eighty_columns(lively: Host, command: list[str]) -> None:
    lines = ESCAPE.sub("", on_terminal(lively, *command)).splitlines()
    assert len(lines) > 1
    assert [line for line in lines if len(line) > 80 and not UNBREAKABLE.search(line)] == []


def test_a_column_that_would_not_fit_goes_below_its_row(host: Host) -> None:
    host.intend("curiosity_gaps")
    lines = ESCAPE.sub("", on_terminal(host, "intents", "list")).splitlines()
    assert max(map(len, lines)) <= 80


def test_names_are_not_broken(lively: Host) -> None:
    name = next((lively.state / "intents").glob("*.json")).name
    assert name in on_terminal(lively, "intents", "list")
    stem = "a-promotion-with-a-rather-long-name-that-takes-much-of-the-line"
    assert stem in on_terminal(lively, "promotions", "list")


def test_colours_are_for_terminals_that_want_them(lively: Host) -> None:
    shown = on_terminal(lively, "status")
    assert "\x1b[1mKLoROS" in shown
    assert "\x1b[22m" not in shown  # it would take the bold back
    assert not ESCAPE.search(on_terminal(lively, "status", NO_COLOR="1"))
    assert not ESCAPE.search(on_terminal(lively, "status", TERM="dumb"))
    assert not ESCAPE.search(lively.run("klorosctl", "status").stdout)


def test_names_of_others_can_not_steer_the_terminal(host: Host) -> None:
    host.promote("evil\x1b]0;owned\x07name")
    host.promote("evil\x9bname")
    host.intend("curiosity_x", reason="\x1b[2J")
    for command in (["promotions", "list"], ["explain"], ["status"], ["intents", "list"]):
        text = ESCAPE.sub("", on_terminal(host, *command))
        assert not set(text) & {"\x1b", "\x07", "\x9b"}


def test_a_reader_that_leaves_early_is_no_failure(host: Host) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {PYTHON} -m orchestration.klorosctl forecast --days 3660 | head -1"],
        env=host.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
