"""What a quiet tick does, as a bare script: standard library, one file, no types, no errors explained, nothing else handled.

The yardstick of `tick.py`: same reads, same rows, same files, same syncs. It does not settle, take in or launch, for on
a quiet tick there is nothing to; it looks for it as the tick does.
Usage: bare_tick.py STATE_DIR TEXTFILE
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import sys
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

SCHEMA = """
CREATE TABLE ticks (tick INTEGER PRIMARY KEY, tick_id TEXT NOT NULL UNIQUE, started_at TEXT, ended_at TEXT, boot_id TEXT,
    decision TEXT, exit_code INTEGER, cycle INTEGER, blocker TEXT, findings TEXT);
CREATE INDEX ticks_by_time ON ticks (started_at);
CREATE TABLE cycles (cycle INTEGER PRIMARY KEY, job TEXT, state TEXT, settled_at TEXT, phase_date TEXT, ended_at TEXT);
CREATE INDEX cycles_active ON cycles (state) WHERE state IN ('queued', 'running');
CREATE INDEX cycles_unsettled ON cycles (cycle) WHERE settled_at IS NULL;
CREATE TABLE intents (name TEXT PRIMARY KEY, status TEXT, filed INTEGER);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE counters (name TEXT, labels TEXT, value REAL, PRIMARY KEY (name, labels)) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
ADD = (
    "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (name, labels) DO UPDATE SET value = counters.value + excluded.value"
)
SET = "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value"
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 50.0, "+Inf")
SERIES = 90


def open_store(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous = FULL")
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(SCHEMA)
    return db


def listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def next_window(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    local = now.astimezone(zone)
    for days in range(3):
        day = local.date() + timedelta(days=days)
        opens = datetime(day.year, day.month, day.day, 3, tzinfo=zone).astimezone(UTC)
        closes = datetime(day.year, day.month, day.day, 7, tzinfo=zone).astimezone(UTC)
        if now < closes:
            return opens, closes
    raise AssertionError("the window of tomorrow or of the day after is ahead")


def replace(path: str, text: str, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.rename(temporary, path)


def observe(db: sqlite3.Connection, state_dir: str, now: datetime) -> tuple[list[list[str]], tuple[datetime, datetime]]:
    db.execute("SELECT * FROM cycles WHERE state IN ('queued', 'running')").fetchall()
    db.execute("SELECT * FROM cycles WHERE settled_at IS NULL AND state NOT IN ('queued', 'running')").fetchall()
    [name for name in listing(f"{state_dir}/locks") if name.endswith(".lock")]
    [name for name in listing(state_dir) if name.endswith(".tmp")]
    acked = {name.removesuffix("_ack.json") for name in listing(f"{state_dir}/promotions_ack")}
    unacked = {name.removesuffix(".json") for name in listing(f"{state_dir}/promotions")} - acked
    intents = [name for name in listing(f"{state_dir}/intents") if name.endswith(".json")]
    db.execute("SELECT * FROM intents WHERE filed = 0").fetchall()
    maintenance = os.path.exists(f"{state_dir}/maintenance_mode")
    window = next_window(now, ZoneInfo("America/New_York"))
    findings = [["maintenance", "maintenance_mode" if maintenance else "no_maintenance", ""]]
    findings.append(["phase_window", "outside_phase_window", f"the next window opens {window[0]:%Y-%m-%d %H:%M:%SZ}"])
    findings.append(["promotions", "unacked_promotions" if unacked else "no_unacked_promotions", ""])
    findings.append(["intents", "intent_pending" if intents else "no_intents", ""])
    return findings, window


def record(db: sqlite3.Connection, tick_id: str, now: datetime, findings: list[list[str]]) -> None:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    ended = datetime.now(UTC)
    started_at, ended_at = now.isoformat(), ended.isoformat()
    db.execute("BEGIN IMMEDIATE")
    db.execute("SELECT value FROM facts WHERE name = 'phase.accounted_through'").fetchall()
    row = (tick_id, started_at, ended_at, boot_id, "noop", 0, None, None, json.dumps(findings))
    db.execute("INSERT INTO ticks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    db.execute(ADD, ("ticks_total", 'decision="noop"', 1.0))
    for _, reason, _ in findings:
        db.execute(ADD, ("skipped_total", f'reason="{reason}"', 1.0))
    for bound in BUCKETS:
        db.execute(ADD, ("tick_duration_seconds_bucket", f'le="{bound}"', 1.0))
    db.execute(ADD, ("tick_duration_seconds_sum", "", (ended - now).total_seconds()))
    db.execute(ADD, ("tick_duration_seconds_count", "", 1.0))
    for name in ("last_tick", "last_attempt", "unacked", "parked"):
        db.execute(SET, (name, "", ended.timestamp()))
    db.execute("COMMIT")


def publish(db: sqlite3.Connection, state_dir: str, textfile: str, window: tuple[datetime, datetime]) -> None:
    with open(f"{state_dir}/history.jsonl", "ab+") as history:
        fcntl.flock(history, fcntl.LOCK_EX)
        history.seek(max(0, history.seek(0, os.SEEK_END) - 65536))
        lines = history.read().split(b"\n")
        written = json.loads(lines[-2])["tick"] if len(lines) > 1 else 0
        rows = [dict(row) for row in db.execute("SELECT * FROM ticks WHERE tick > ? LIMIT 1000", (written,))]
        history.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        history.flush()
        os.fdatasync(history.fileno())
    cycles = [dict(row) for row in db.execute("SELECT * FROM cycles ORDER BY cycle DESC LIMIT 5")]
    latest = {"tick": rows[-1], "window": [instant.isoformat() for instant in window], "cycles": cycles}
    replace(f"{state_dir}/latest.json", json.dumps(latest), 0o640)
    values = db.execute("SELECT name, labels, value FROM counters ORDER BY name, labels").fetchall()
    text = "".join(f"{row['name']}{{{row['labels']}}} {row['value']}\n" for row in values)
    text += "".join(f'other{{number="{number}"}} 0.0\n' for number in range(SERIES - len(values)))
    replace(textfile, text, 0o644)


def main() -> None:
    state_dir, textfile = sys.argv[1:]
    with open(f"{state_dir}/settings.json", encoding="utf-8") as file:
        settings = json.load(file)
    if settings["mode"] != "enabled" or os.path.exists(f"{state_dir}/killswitch"):
        sys.exit(2)
    tick_id = f"{time.time():.0f}-{os.urandom(4).hex()}"
    db = open_store(f"{state_dir}/kloros.db")
    with open(f"{state_dir}/locks/orchestrator.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.write(json.dumps({"holder": tick_id, "pid": os.getpid(), "host": os.uname().nodename}))
        lock.flush()
        now = datetime.now(UTC)
        findings, window = observe(db, state_dir, now)
        record(db, tick_id, now, findings)
        publish(db, state_dir, textfile, window)
    db.close()
    print(json.dumps({"event": "tick.idle", "message": "NOOP", "tick_id": tick_id}), file=sys.stderr)


main()
