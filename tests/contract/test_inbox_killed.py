"""A tick killed at every line it runs, then ticked again: each file ends once, each line is there once.

The test runs this file as a program, which forks one tick per line of ours that a tick runs and kills it there with
SIGKILL; nothing is simulated but the moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from orchestration.intents import document  # noqa: F401  (imported here, so that its lines are not among those killed)
from orchestration.intents.filing import file_away
from orchestration.intents.inbox import conclude, sort_out
from orchestration.intents.intent import Status
from orchestration.settings import Intents
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
OURS = ("/intents/inbox.py", "/intents/filing.py", "/host/files.py", "/store/sqlite.py", "/store/counters.py")
WANTED = {
    "1_suggest.json": "processed",
    "2_alert.json": "processed",
    "3_unknown.json": "unknown",
    "4_torn.json": "malformed",
    "5_stale.json": "stale",
    "6_phase.json": "processed",
    "7_phase.json": "deduplicated",
}


def test_a_tick_killed_at_any_line_is_finished_by_the_next_ones(tmp_path: Path) -> None:
    memory = Path("/dev/shm")  # as good a file system for a kill as any, and much quicker to sync
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as base:
        done = subprocess.run([sys.executable, __file__, base], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200, "fewer lines than a tick has"


def prepare(folder: Path) -> None:
    intents = folder / "intents"
    intents.mkdir(parents=True)
    fields = {"priority": 5, "reason": "", "data": {}, "generated_at": (NOW - timedelta(minutes=5)).timestamp()}
    types = {"1_suggest": "suggest_x", "2_alert": "alert_x", "3_unknown": "run_scanner", "5_stale": "trigger_dream"}
    for name, intent_type in types.items() | {("6_phase", "trigger_phase"), ("7_phase", "trigger_phase")}:
        when = {"generated_at": 1} if name == "5_stale" else {}
        (intents / f"{name}.json").write_text(json.dumps({**fields, "intent_type": intent_type, **when}))
    (intents / "4_torn.json").write_text('{"intent')
    for path in intents.iterdir():
        os.utime(path, (NOW.timestamp() - 60, NOW.timestamp() - 60))
    with closing(SqliteDatabase(str(folder / "kloros.db"))):
        pass


def tick(folder: Path, now: datetime) -> None:
    with closing(SqliteDatabase(str(folder / "kloros.db"))) as db:
        with db.transaction():
            found = sort_out(str(folder / "intents"), db, now, Intents())
            if found.pending:
                conclude(db, found.pending[0], Status.PROCESSED, reason="cycle queued", now=now, cycle=1)
        file_away(str(folder / "intents"), str(folder), db, found)


def killed_at(folder: Path, line: int) -> bool:
    """Run one tick in a child that kills itself before its `line`th line; False when it had fewer."""
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal seen
            if not frame.f_code.co_filename.endswith(OURS):
                return None
            seen += event == "line"
            if seen == line:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        tick(folder, NOW)
        sys.settrace(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def check(folder: Path) -> None:
    processed = folder / "intents" / "processed"
    assert {path.name: path.parent.name for path in processed.glob("*/*")} == WANTED
    assert not list((folder / "intents").glob("*.json"))
    for log in ("suggestions.jsonl", "alerts.jsonl"):
        assert len((folder / log).read_text().splitlines()) == 1
    with closing(SqliteDatabase(str(folder / "kloros.db"))) as db:
        assert db.rows("intents.open") == []
        counted = {str(row["labels"]): row["value"] for row in db.rows("counters.all")}
    expected = Counter(f'status="{status}"' for status in WANTED.values())
    assert counted == expected, counted


def main(base: Path) -> None:
    line = 1
    while True:
        folder = base / str(line)
        prepare(folder)
        killed = killed_at(folder, line)
        for minutes in (1, 2):
            tick(folder, NOW + timedelta(minutes=minutes))
        try:
            check(folder)
        except AssertionError as fault:
            raise SystemExit(f"killed at line {line} of the tick: {fault!r}") from fault
        if not killed:
            break
        line += 1
    print(line - 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
