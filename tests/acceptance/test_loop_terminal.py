"""The loop on a terminal of 80 columns: a live line, by rich or a plain one, and rows that stay."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.looping import Looping

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLUMNS = 80


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def without_rich(looping: Looping) -> None:
    """Let `import rich` fail, and leave a trace."""
    package = looping.tree / "blocked" / "rich"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(
        f"open({str(looping.tree / 'asked')!r}, 'w').close()\nraise ImportError('no rich here')\n"
    )
    looping.host.set(PYTHONPATH=f"{package.parent}:{looping.host.environ['PYTHONPATH']}")


def on_terminal(looping: Looping, *flags: str, errors: int | None = subprocess.DEVNULL) -> str:
    """Run the loop on a pseudo-terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    loop = subprocess.Popen(
        looping.arguments(*flags), env={**looping.host.environ, "TERM": "xterm"}, cwd=looping.tree,
        stdin=theirs, stdout=theirs, stderr=theirs if errors is None else errors,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # EIO: the other end has closed
        pass
    os.close(ours)
    assert loop.wait() == Exit.DONE
    return shown.decode()


def frames(shown: str) -> list[str]:
    """Return what stood in the live line, one after the other, without colours."""
    parts = re.split(r"\x1b\[[012]?K", shown)
    return [ESCAPE.sub("", part).replace("\r", "").split("\n")[0].rstrip() for part in parts]


def left_on_screen(shown: str) -> list[str]:
    """Return the lines that stand at the end, as a terminal does that is long enough."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", shown):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece in ("\x1b[2K", "\x1b[K"):
            lines[row] = "" if piece == "\x1b[2K" else lines[row][:column]
        elif piece.endswith("A"):
            row -= int(piece[2:-1] or 1)
        elif not piece.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


def flags_of(looping: Looping) -> tuple[str, ...]:
    return ("--command", looping.command("sleep 1.2"), "--iterations", "2", "--sleep", "1", "--timeout", "4")


def test_rich_shows_how_far_an_iteration_is(looping: Looping) -> None:
    shown = on_terminal(looping, *flags_of(looping))
    live = frames(shown)
    running = [frame for frame in live if "iteration 1  running 0:00:01 of 0:00:04" in frame]
    assert running
    assert all(frame.startswith("━") for frame in running), "a bar of the timeout"
    assert any(frame.startswith("next run ") and "last: degraded" in frame for frame in live)
    assert max(len(frame) for frame in live) <= COLUMNS
    assert [line.split("  ")[1:4] for line in left_on_screen(shown) if line] == [
        ["iteration 1", "cycle 1", "degraded"],
        ["iteration 2", "cycle 2", "degraded"],
    ]
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is there"


def test_the_cursor_is_there_all_the_time(looping: Looping) -> None:
    """A loop that is killed can't show it again."""
    shown = on_terminal(looping, *flags_of(looping))
    assert shown.count("\x1b[?25l") <= 1
    assert 0 <= shown.find("\x1b[?25h") - shown.find("\x1b[?25l") < 20


def test_what_the_journal_says_goes_above_the_line(looping: Looping) -> None:
    lines = left_on_screen(on_terminal(looping, *flags_of(looping), errors=None))
    assert not [line for line in lines if "━" in line or "next run" in line]
    assert [line[: line.index("degraded")] for line in lines if line.startswith("loop.iterated")] == [
        "loop.iterated  iteration 1 ",
        "loop.iterated  iteration 2 ",
    ]


def test_without_rich_the_line_is_plain(looping: Looping) -> None:
    without_rich(looping)
    shown = on_terminal(looping, *flags_of(looping))
    live = frames(shown)
    assert (looping.tree / "asked").exists()
    assert any(frame.startswith("iteration 1  running 0:00:01 of 0:00:04") for frame in live)
    assert any(frame.startswith("next run ") and "last: degraded" in frame for frame in live)
    assert [line.split("  ")[1] for line in left_on_screen(shown) if line] == ["iteration 1", "iteration 2"]


def test_piped_it_does_not_even_ask_for_rich(looping: Looping) -> None:
    without_rich(looping)
    done = looping.loop("--command", looping.good())
    assert done.stdout.count("\n") == 1
    assert not (looping.tree / "asked").exists()


@pytest.mark.parametrize("plain", [True, False])
def test_a_terminal_that_is_closed_is_no_reason_to_end(looping: Looping, plain: bool) -> None:
    if plain:
        without_rich(looping)
    ours, theirs = pty.openpty()
    loop = subprocess.Popen(
        looping.arguments("--command", looping.command("sleep 0.5"), "--iterations", "3", "--sleep", "0.3"),
        env={**looping.host.environ, "TERM": "xterm"}, cwd=looping.tree, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    assert os.read(ours, 100)
    os.close(ours)
    assert loop.wait(30) == Exit.DONE
    assert len(looping.rows()) == 3
