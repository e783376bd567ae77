"""The inbox with real files and a real store: every file ends in one place, whatever happens on the way."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestration.errors import Malformed, Unwritable
from orchestration.intents.drop import write_intent
from orchestration.intents.filing import file_away
from orchestration.intents.inbox import NOTHING, Sorted, conclude, list_names, sort_out
from orchestration.intents.intent import FINAL, Status
from orchestration.intents.reading import read
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 3, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Limits(NamedTuple):
    max_pending: int = 50
    per_tick: int = 10
    expires_after: timedelta = timedelta(hours=24)
    dedup_within: timedelta = timedelta(hours=1)


class Host:
    """A state directory, its store, and ticks at given instants."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.folder = folder
        self.intents = folder / "intents"
        self.intents.mkdir(exist_ok=True)
        self.limits = limits or Limits()

    def drop(self, name: str, intent_type: str, *, age: timedelta = MINUTE, **fields: object) -> Path:
        payload = {"intent_type": intent_type, "priority": 5, "reason": name, "data": {}}
        payload["generated_at"] = (NOW - age).timestamp()
        return self.place(name, json.dumps(payload | fields).encode(), age=age)

    def place(self, name: str, content: bytes, *, age: timedelta = MINUTE) -> Path:
        path = self.intents / name
        path.write_bytes(content)
        stamp = (NOW - age).timestamp()
        os.utime(path, (stamp, stamp))
        return path

    def decide(self, now: datetime = NOW, *, start: bool = False) -> Sorted:
        """The part of a tick up to its commit."""
        with closing(SqliteDatabase(str(self.folder / "kloros.db"))) as db, db.transaction():
            found = sort_out(str(self.intents), db, now, self.limits)
            if start and found.pending:
                conclude(db, found.pending[0], Status.PROCESSED, reason="cycle queued", now=now, cycle=42)
        return found

    def file(self, found: Sorted = NOTHING) -> int:
        with closing(SqliteDatabase(str(self.folder / "kloros.db"))) as db:
            return file_away(str(self.intents), str(self.folder), db, found)

    def tick(self, now: datetime = NOW, *, start: bool = False) -> Sorted:
        found = self.decide(now, start=start)
        self.file(found)
        return found

    def statuses(self) -> dict[str, str]:
        """Say where each file lies: `pending` when still in the inbox."""
        where = dict.fromkeys(list_names(str(self.intents)), "pending")
        for folder in (self.intents / "processed").glob("*"):
            where |= {path.name: folder.name for path in folder.iterdir()}
        return where

    def folders(self) -> Counter[str]:
        """Count the files of each folder of `processed/`."""
        return Counter(path.parent.name for path in (self.intents / "processed").glob("*/*"))

    def rows(self) -> list[tuple[str, str, int]]:
        with closing(sqlite3.connect(self.folder / "kloros.db")) as db:
            return list(db.execute("SELECT name, status, filed FROM intents ORDER BY name, decided_at"))

    def counted(self) -> dict[str, float]:
        with closing(SqliteDatabase(str(self.folder / "kloros.db"))) as db:
            rows = db.rows("counters.all")
        found = {str(row["labels"]): row["value"] for row in rows if row["name"] == "kloros_intents_total"}
        return {label.split('"')[1]: float(value or 0) for label, value in found.items()}

    def lines(self, log: str) -> list[dict[str, object]]:
        path = self.folder / log
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_only_whole_json_names_are_listed(host: Host) -> None:
    for name in ("b.json", "a.json", ".a.json.12.34.tmp", ".hidden.json", "c.tmp", "d.json.tmp"):
        host.place(name, b"")
    (host.intents / "processed").mkdir()
    assert list_names(str(host.intents)) == ["a.json", "b.json"]
    assert list_names(str(host.intents / "absent")) == []
    with pytest.raises(Unwritable, match="can't be listed"):
        list_names(str(host.place("file", b"")))


def test_an_empty_folder_is_nothing(host: Host) -> None:
    assert host.tick() is NOTHING
    assert host.rows() == []


def test_triggers_wait_in_order_and_the_one_acted_on_is_filed(host: Host) -> None:
    host.drop("1_low.json", "curiosity_explore", priority=1, data={"question_id": "q7"})
    host.drop("2_high.json", "trigger_phase", priority=9)
    found = host.tick(start=True)
    assert [intent.name for intent in found.pending] == ["2_high.json", "1_low.json"]
    assert found.waiting == 2
    assert found.pending[1].topic == "q7"
    assert host.statuses() == {"1_low.json": "pending", "2_high.json": "processed"}
    assert host.counted() == {"processed": 1}
    assert [intent.name for intent in host.tick(NOW + MINUTE).pending] == ["1_low.json"]


def test_suggestions_and_alerts_become_lines_and_unknown_ones_are_archived(host: Host) -> None:
    host.drop("1_s.json", "suggest_phase_diagnostic", data={"message": "x"})
    host.drop("2_a.json", "alert_gpu_oom", priority=9)
    host.drop("3_u.json", "run_scanner")
    host.tick()
    assert host.statuses() == {"1_s.json": "processed", "2_a.json": "processed", "3_u.json": "unknown"}
    (suggestion,), (alert,) = host.lines("suggestions.jsonl"), host.lines("alerts.jsonl")
    assert (suggestion["intent"], suggestion["data"]) == ("1_s.json", {"message": "x"})
    assert (alert["intent_type"], alert["priority"]) == ("alert_gpu_oom", 9)
    assert host.counted() == {"processed": 2, "unknown": 1}


def test_a_missing_checksum_is_marked_in_the_store(host: Host) -> None:
    host.drop("1.json", "suggest_x")
    host.tick()
    with closing(sqlite3.connect(host.folder / "kloros.db")) as raw:
        assert raw.execute("SELECT reason FROM intents").fetchone() == ("noted as suggestion (no checksum)",)


def test_at_most_ten_are_handled_by_one_tick_and_none_is_forgotten(host: Host) -> None:
    for number in range(23):
        host.drop(f"{number:02}.json", "suggest_x", age=timedelta(minutes=60 - number))
    assert host.tick().waiting == 13
    assert host.tick(NOW + MINUTE).waiting == 3
    assert host.tick(NOW + 2 * MINUTE).waiting == 0
    assert [line["intent"] for line in host.lines("suggestions.jsonl")] == [f"{number:02}.json" for number in range(23)]


def test_stale_duplicate_and_overflowing_ones_end_in_their_folders(tmp_path: Path) -> None:
    host = Host(tmp_path, Limits(max_pending=2))
    host.drop("0_stale.json", "trigger_phase", age=timedelta(hours=25))
    host.drop("1_first.json", "trigger_dream", reason="same", age=timedelta(minutes=20))
    host.drop("2_again.json", "trigger_dream", reason="same", priority=9)
    host.drop("3_high.json", "trigger_dream", priority=8)
    host.drop("4_low.json", "trigger_dream", priority=1)
    found = host.tick()
    assert host.statuses() == {
        "0_stale.json": "stale",
        "1_first.json": "pending",
        "2_again.json": "deduplicated",
        "3_high.json": "pending",
        "4_low.json": "queue_overflow",
    }
    assert {verdict.intent.name for verdict in found.verdicts} == {"0_stale.json", "2_again.json", "4_low.json"}
    assert host.counted() == {"stale": 1, "deduplicated": 1, "queue_overflow": 1}


def test_the_same_request_within_the_hour_of_a_processed_one_is_deduplicated(host: Host) -> None:
    host.drop("1.json", "trigger_phase", reason="same")
    host.tick(start=True)
    host.drop("2.json", "trigger_phase", reason="same", age=-10 * MINUTE)
    assert host.tick(NOW + 11 * MINUTE).pending == ()
    host.drop("3.json", "trigger_phase", reason="same", age=-61 * MINUTE)
    assert [intent.name for intent in host.tick(NOW + 62 * MINUTE).pending] == ["3.json"]
    assert host.statuses() == {"1.json": "processed", "2.json": "deduplicated", "3.json": "pending"}


def test_an_intent_from_the_future_counts_from_its_first_sight_and_expires(host: Host) -> None:
    host.drop("1.json", "trigger_phase", age=timedelta(days=-3650))
    assert len(host.tick().pending) == 1
    assert len(host.tick(NOW + timedelta(hours=24)).pending) == 1
    host.tick(NOW + timedelta(hours=24, seconds=1))
    assert host.statuses() == {"1.json": "stale"}


def test_a_clock_set_back_a_day_keeps_what_waits_and_still_lets_it_expire(host: Host) -> None:
    host.drop("1.json", "trigger_phase")
    host.tick()
    back = NOW - timedelta(days=1)
    assert len(host.tick(back).pending) == 1
    host.tick(back + timedelta(hours=24, seconds=1))
    assert host.statuses() == {"1.json": "stale"}


def test_a_file_still_being_written_is_left_and_taken_when_whole(host: Host) -> None:
    host.place("1.json", b'{"intent_type": "trig', age=timedelta(seconds=0.5))
    assert host.tick() == Sorted((), 0, ())
    assert host.statuses() == {"1.json": "pending"}
    host.drop("1.json", "trigger_phase")
    assert len(host.tick(NOW + MINUTE).pending) == 1


def test_a_file_that_stays_torn_is_malformed(host: Host) -> None:
    host.place("1.json", b'{"intent_type": "trig', age=timedelta(seconds=1.5))
    host.tick()
    assert host.statuses() == {"1.json": "malformed"}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "outside"
    target.write_bytes(b"precious")
    yield target
    assert target.read_bytes() == b"precious"


def test_what_is_no_regular_file_is_moved_itself_and_never_opened(host: Host, outside: Path) -> None:
    (host.intents / "link.json").symlink_to(outside)
    (host.intents / "dangling.json").symlink_to("nowhere")
    (host.intents / "loop.json").symlink_to("loop.json")
    os.mkfifo(host.intents / "fifo.json")
    (host.intents / "folder.json").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.intents / "socket.json"))
    found = host.tick()
    names = ["dangling", "fifo", "folder", "link", "loop", "socket"]
    assert host.statuses() == {f"{name}.json": "malformed" for name in names}
    assert {verdict.reason.split(",")[0] for verdict in found.verdicts} == {"symbolic link", "FIFO", "folder", "socket"}
    assert os.readlink(host.intents / "processed" / "malformed" / "link.json") == str(outside)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 100_000, b" " * (2 * 1024 * 1024), b'{"intent_type": "x", "a": 1, "a": 2}']
)
def test_content_that_is_no_intent_is_malformed(host: Host, content: bytes) -> None:
    host.place("1.json", content)
    (verdict,) = host.tick().verdicts
    assert verdict.status is Status.MALFORMED
    assert verdict.reason
    assert host.statuses() == {"1.json": "malformed"}


def test_a_file_over_the_limit_is_malformed_even_if_its_beginning_is_an_intent(host: Host) -> None:
    host.place("1.json", b'{"intent_type": "suggest_x"}' + b" " * 1024 * 1024)
    (verdict,) = host.tick().verdicts
    assert "larger" in verdict.reason


def test_a_name_that_is_not_utf8_is_an_intent_like_any_other(host: Host) -> None:
    with open(os.fsencode(host.intents) + b"/1_\xff.json", "wb") as file:
        file.write(b'{"intent_type": "suggest_x"}')
    host.tick(NOW)
    host.tick(NOW + MINUTE)
    assert os.listdir(os.fsencode(host.intents / "processed" / "processed")) == [b"1_\xff.json"]
    assert [line["intent"] for line in host.lines("suggestions.jsonl")] == ["1_\\xff.json"]


def test_nothing_in_processed_is_overwritten(host: Host) -> None:
    for hour in range(3):
        host.drop("1.json", "suggest_x", data={"hour": hour})
        host.tick(NOW + timedelta(hours=hour))
    assert sorted(host.statuses()) == ["1.json", "1.json.1", "1.json.2"]
    assert [line["data"] for line in host.lines("suggestions.jsonl")] == [{"hour": hour} for hour in range(3)]


def test_the_same_file_dropped_again_is_a_new_intent_and_a_duplicate_only_within_the_hour(host: Host) -> None:
    written = host.drop("1.json", "suggest_x").read_bytes()
    host.tick()
    host.place("1.json", written)
    host.tick(NOW + 2 * MINUTE)
    host.place("1.json", written)
    host.tick(NOW + 3 * MINUTE)
    assert host.folders() == {"processed": 1, "deduplicated": 2}
    host.drop("1.json", "suggest_x", age=-timedelta(hours=2))
    host.tick(NOW + timedelta(hours=2, minutes=1))
    assert len(host.lines("suggestions.jsonl")) == 2
    assert host.folders() == host.counted() == {"processed": 2, "deduplicated": 2}


def test_another_intent_under_a_name_not_yet_filed_is_kept_and_taken_next(host: Host) -> None:
    host.drop("1.json", "suggest_x", data={"number": 1})
    found = host.decide()
    host.drop("1.json", "suggest_x", data={"number": 2})
    host.file(found)
    assert host.statuses() == {"1.json": "pending"}
    host.tick(NOW + MINUTE)
    assert [line["data"] for line in host.lines("suggestions.jsonl")] == [{"number": 2}]
    assert host.statuses() == {"1.json": "processed"}


def test_a_pending_file_that_was_replaced_is_judged_anew(host: Host) -> None:
    host.drop("1.json", "trigger_phase")
    host.tick()
    host.drop("1.json", "suggest_x")
    host.tick(NOW + MINUTE)
    assert host.rows() == [("1.json", "processed", 1)]
    assert len(host.lines("suggestions.jsonl")) == 1


def test_a_pending_file_that_somebody_took_away_is_forgotten(host: Host) -> None:
    host.drop("1.json", "trigger_phase").rename(host.folder / "elsewhere")
    host.drop("2.json", "trigger_phase")
    host.tick()
    (host.intents / "2.json").unlink()
    assert host.tick(NOW + MINUTE).waiting == 0
    assert host.rows() == []


def test_a_folder_we_may_not_write_is_named_and_filing_goes_on_later(host: Host) -> None:
    host.drop("1.json", "suggest_x")
    host.drop("2.json", "run_scanner")
    (host.intents / "processed").mkdir()
    (host.intents / "processed" / "processed").write_bytes(b"in the way")
    found = host.decide()
    with pytest.raises(Unwritable, match="processed"):
        host.file(found)
    (host.intents / "processed" / "processed").unlink()
    assert host.statuses() == {"1.json": "pending", "2.json": "unknown"}, "the others are not held up"
    host.tick(NOW + MINUTE)
    assert host.statuses() == {"1.json": "processed", "2.json": "unknown"}
    assert len(host.lines("suggestions.jsonl")) == 1


def test_what_we_drop_is_a_valid_intent_and_two_never_collide(host: Host) -> None:
    def add() -> str:
        return write_intent(
            str(host.intents), intent_type="trigger_phase", priority=7, reason="why", data={}, emitted_by="me", now=NOW
        )

    first, second = add(), add()
    assert first != second
    found = host.tick(NOW + MINUTE)
    assert [intent.checksummed for intent in found.pending] == [True]
    assert Counter(host.statuses().values()) == {"pending": 1, "deduplicated": 1}
    assert os.stat(first).st_mode & 0o777 == 0o600
    with pytest.raises(Malformed, match="priority"):
        write_intent(
            str(host.intents), intent_type="trigger_phase", priority=99, reason="", data={}, emitted_by="me", now=NOW
        )


def test_every_status_has_a_folder_and_pending_has_none() -> None:
    assert [status.value for status in FINAL] == [
        "processed", "failed", "unknown", "stale", "deduplicated", "queue_overflow", "malformed"
    ]  # fmt: skip


def test_an_entry_that_cannot_even_be_looked_at_is_a_fault_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    found = read(str(tmp_path / "circle"), "1_a_b.json", datetime.now(UTC))
    assert found is not None
    assert "can't be opened" in found.fault
