"""What the observer asks of a store with years of rows: each question is answered by an index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestration.store.queries import sql
from orchestration.store.sqlite import SqliteDatabase


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("observer.arrivals", "SEARCH promotions USING INDEX promotions_by_arrival (first_seen_at>? AND first_seen_at<?)"),
        ("observer.phase_failures", "SEARCH cycles USING INDEX cycles_by_job (job=? AND cycle>?)"),
        ("observer.contentions", "SEARCH ticks USING INDEX ticks_by_time (started_at>? AND started_at<?)"),
        ("reflection.failures", "SCAN failed USING INDEX cycles_unsuccessful"),
        ("reflection.parked", "SCAN promotions USING INDEX promotions_parked"),
        ("reflection.escrow", "SCAN escrow USING INDEX escrow_pending"),
    ],
)
def test_a_question_reads_what_it_is_about_and_not_the_whole_history(tmp_path: Path, query: str, first: str) -> None:
    path = str(tmp_path / "kloros.db")
    SqliteDatabase(path).close()
    raw = sqlite3.connect(path)
    plan = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql(query)}", {"since": "", "now": "", "limit": 1})]
    raw.close()
    assert plan[0] == first
