"""What a log line looks like without journald. (With it: the system tier, on a real one.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.host import journal
from orchestration.host.journal import MESSAGE_IDS, Event

REPOSITORY = str(Path(__file__).parents[2])
# Where a journal answers, lines go there and not to stderr; these tests are of a host without one.
CODE = """
from datetime import UTC, datetime, timedelta
from orchestration.host import journal
from orchestration.host.journal import Event, Priority, log
journal._SOCKET = "/nowhere"
log(Event.TICK_IDLE, "nothing to do", priority=Priority.WARNING, tick_id="t1", cycle=None, took=timedelta(seconds=1.5),
    at=datetime(2026, 1, 1, tzinfo=UTC), decision=Event.TICK_IDLE, odd=object, text="one\\ntwo \\udcff")
"""


def test_every_event_has_an_id_of_its_own() -> None:
    assert set(MESSAGE_IDS) == set(Event)
    assert len(set(MESSAGE_IDS.values())) == len(Event)
    assert all(len(number) == 32 and int(number, 16) for number in MESSAGE_IDS.values())


def test_plain_fields() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], env={"PYTHONPATH": REPOSITORY}, capture_output=True, check=True, text=True
    )
    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (said["event"], said["priority"], said["message"]) == ("tick.idle", "warning", "nothing to do")
    assert (said["tick_id"], said["took"], said["decision"]) == ("t1", 1.5, "tick.idle")
    assert said["at"] == "2026-01-01T00:00:00+00:00"
    assert said["text"] == "one\ntwo \udcff"
    assert "cycle" not in said
    assert said["ts"].endswith("Z")


def test_a_readable_line_on_a_terminal() -> None:
    screen, terminal = os.openpty()
    subprocess.run([sys.executable, "-c", CODE], env={"PYTHONPATH": REPOSITORY}, stderr=terminal, check=True)
    os.close(terminal)
    shown = os.read(screen, 4096).decode()
    os.close(screen)
    assert shown.startswith("tick.idle  warning: nothing to do  (tick_id=t1")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("closing", ["2>&-", "2>/dev/full"])
def test_a_log_line_is_no_reason_to_fail(closing: str) -> None:
    command = ["sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, CODE]
    assert subprocess.run(command, env={"PYTHONPATH": REPOSITORY}, check=False).returncode == 0


def test_nothing_can_make_it_raise() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    journal.log(Event.TICK_FAILED, "x", field=Hostile())
