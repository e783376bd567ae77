"""Fills a store that a tick has made with years of rows: BIG_STORE TICKS CYCLES. Part of `tick.py`.

Usage: big_store.py PATH TICKS CYCLES
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

FINDINGS = json.dumps(
    [
        ["maintenance", "no_maintenance", "no file maintenance_mode"],
        ["active_cycle", "no_active_cycle", "no cycle is queued or running"],
        ["phase_window", "outside_phase_window", "the next window, of 2026-11-21, opens 2026-11-21 08:00:00Z"],
        ["missed_window", "no_missed_window", "no closed window is to be made up for"],
        ["promotions", "no_unacked_promotions", "every promotion has its ack"],
        ["intents", "no_intents", "no pending intent starts anything"],
    ]
)
ORIGIN = {"cause": "promotions", "tick_id": "", "promotions": ["one", "two", "three"], "topic": "", "intent": ""}
RESULT = {"reason": "exit 0", "exit_code": 0, "wall_seconds": 12.5, "cpu_seconds": 9.25, "peak_bytes": 123456789}
STATES = ("succeeded", "failed", "succeeded", "timed_out", "succeeded", "lost")


def main() -> None:
    fill(sys.argv[1], ticks=int(sys.argv[2]), cycles=int(sys.argv[3]), backlog=sys.argv[4:] == ["--backlog"])


def fill(path: str, *, ticks: int, cycles: int, backlog: bool = False) -> None:
    """Put a tick for each minute and a cycle for every tenth before now, with telemetry, into a store that is there."""
    now = datetime.now(UTC)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    db.executemany("INSERT INTO ticks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _ticks(ticks, now))
    columns = "job, state, token, cause, origin, command, timeout_seconds, phase_date, queued_at, started_at, ended_at"
    db.executemany(f"INSERT INTO cycles ({columns}, settled_at, result) VALUES ({'?,' * 12}?)", _cycles(cycles, now))
    db.executemany("INSERT OR IGNORE INTO products (cycle, files, telemetry) VALUES (?, ?, ?)", _products(cycles))
    db.execute(
        "INSERT OR REPLACE INTO counters (name, labels, value) SELECT 'kloros_cycles_total',"
        " 'job=\"' || job || '\",result=\"' || state || '\"', count(*) FROM cycles GROUP BY job, state"
    )
    db.executemany("INSERT OR IGNORE INTO phase_dates VALUES (?, 'succeeded', 'window', '', 1, ?, ?, ?)", _dates(now))
    if not backlog:  # what retention no longer keeps has long been pruned, two cycles a tick
        old = _text(now - timedelta(days=90))
        db.execute("UPDATE cycles SET pruned_at = ended_at WHERE ended_at < ?", (old,))
    db.execute("COMMIT")
    db.close()


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _ticks(number: int, now: datetime) -> Iterator[tuple[object, ...]]:
    for ago in range(number, 0, -1):
        at = now - timedelta(minutes=ago)
        text = _text(at)
        yield (f"{at:%Y%m%dT%H%M%SZ}-{ago:08x}", text, text, "b" * 36, "noop", 0, None, None, FINDINGS)


def _cycles(number: int, now: datetime) -> Iterator[tuple[object, ...]]:
    for ago in range(number, 0, -1):
        at = now - timedelta(minutes=10 * ago)
        phase = ago % 100 == 0
        job, cause = ("phase", "window") if phase else ("dream", "promotions")
        origin = json.dumps(ORIGIN | {"cause": cause})
        state = "succeeded" if phase else STATES[ago % len(STATES)]
        text, ended = _text(at), _text(at + timedelta(seconds=ago % 400))
        day = at.date().isoformat() if phase else None
        command = json.dumps(["python3", "-m", "src.phase.run_all_domains"])
        yield (job, state, f"{ago:032x}", cause, origin, command, 1800.0, day, text, text, ended, ended, json.dumps(RESULT))


def _products(number: int) -> Iterator[tuple[object, ...]]:
    series = {
        name: [0.5, 20, -1.0, 1.0, 10.0] for name in ("joy", "rage", "addresses", "entries", "memory.used", "memory.free")
    }
    files = json.dumps([["artifacts/verdicts.json", 812, "0" * 64, "application/json"]])
    for cycle in range(1, number + 1):
        yield (cycle, files, json.dumps({"series": series, "damaged": cycle % 2}))


def _dates(now: datetime) -> Iterator[tuple[object, ...]]:
    for ago in range(700, 1, -1):
        at = now - timedelta(days=ago)
        yield (at.date().isoformat(), _text(at), _text(at + timedelta(hours=4)), _text(at + timedelta(hours=5)))


if __name__ == "__main__":
    main()
