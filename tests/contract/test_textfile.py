"""The metrics as text: what node_exporter, Prometheus's own linter and Prometheus's own parser make of it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from orchestration.cycles.cycle import FINISHED, JobName
from orchestration.cycles.orphan import Leftover
from orchestration.host import clock
from orchestration.intents.intent import FINAL
from orchestration.pulse import metrics, scope_metrics, textfile
from orchestration.pulse.publish import publish
from orchestration.settings import Settings
from orchestration.store.counters import count, gauges, observe
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick.calendar import DateResult
from orchestration.tick.decision import CLEAR, SKIPPING, Reason
from orchestration.tick.history import Aside, Refusal
from orchestration.tick.tick import DURATION_BUCKETS, Decided

NAMED_BY_THE_ISSUE = {
    "kloros_orchestrator_ticks_total": "counter",
    "kloros_orchestrator_skipped_total": "counter",
    "kloros_orchestrator_lock_contention_total": "counter",
    "kloros_orchestrator_reaped_total": "counter",
    "kloros_orchestrator_tick_duration_seconds": "histogram",
    "kloros_orchestrator_last_tick_timestamp_seconds": "gauge",
    "kloros_cycles_total": "counter",
    "kloros_cycle_duration_seconds": "histogram",
    "kloros_cycle_active": "gauge",
    "kloros_promotions_unacked": "gauge",
    "kloros_promotions_parked": "gauge",
    "kloros_promotions_total": "counter",
    "kloros_intents_pending": "gauge",
    "kloros_intents_total": "counter",
    "kloros_phase_last_success_timestamp_seconds": "gauge",
    "kloros_phase_dates_total": "counter",
    "kloros_build_info": "gauge",
}


@pytest.fixture
def db(kernel_db: Database) -> Database:
    return kernel_db


def text_of(db: Database) -> str:
    return metrics.exposition(metrics.read(db))


def families(text: str) -> list[Metric]:
    """Parse with prometheus_client, which leaves `_total` out of a counter's name."""
    return list(text_string_to_metric_families(text))


def labels(text: str, sample: str, label: str) -> list[str]:
    return [s.labels[label] for family in families(text) for s in family.samples if s.name == sample]


def promtool(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)


def some_of_everything(db: Database) -> None:
    for family in metrics.FAMILIES:
        for name, label_text in family.series:
            if family.kind == "counter":
                db.run("counters.add", series=json.dumps([(name, label_text, 3.0)]))
    observe(db, "kloros_orchestrator_tick_duration_seconds", 0.07, buckets=DURATION_BUCKETS)
    gauges(db, kloros_orchestrator_last_tick_timestamp_seconds=1795226687.067075)


@pytest.mark.parametrize("filled", [False, True], ids=["before anything", "after everything"])
def test_prometheus_linter_finds_nothing(db: Database, filled: bool) -> None:
    if filled:
        some_of_everything(db)
    done = promtool(text_of(db))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_linter_would_find_something() -> None:
    assert promtool("# TYPE kloros_bad counter\nkloros_bad 1\n").returncode != 0


def test_prometheus_parser_reads_back_every_series_with_its_value(db: Database) -> None:
    some_of_everything(db)
    expected = metrics.read(db)
    read = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(text_of(db))
        for sample in family.samples
    }
    series = [one for family in metrics.FAMILIES for one in family.series]
    assert len(read) == len(series) == len(set(series))
    for name, label_text in series:
        pairs = (pair.partition("=") for pair in label_text.split(",") if pair)
        assert read[name, frozenset((label, quoted.strip('"')) for label, _, quoted in pairs)] == expected.get(
            (name, label_text), 0.0
        )


def test_every_metric_that_was_promised_is_there_with_its_kind_and_help(db: Database) -> None:
    text = text_of(db)
    kinds = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}
    assert kinds.items() >= NAMED_BY_THE_ISSUE.items()
    assert helped == kinds.keys()


def test_names_follow_openmetrics() -> None:
    for family in metrics.FAMILIES:
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert ("timestamp" in family.name or "duration" in family.name) == family.name.endswith("_seconds"), family.name
        assert family.help.endswith("."), family.name


def test_no_line_has_a_timestamp(db: Database) -> None:
    assert all(sample.timestamp is None for family in families(text_of(db)) for sample in family.samples)


@pytest.mark.parametrize(
    ("sample", "label", "values"),
    [
        ("kloros_orchestrator_ticks_total", "decision", Decided),
        ("kloros_orchestrator_skipped_total", "reason", [*SKIPPING, *Refusal, *Aside]),
        ("kloros_orchestrator_reaped_total", "kind", Leftover),
        ("kloros_cycle_active", "job", JobName),
        ("kloros_promotions_total", "verdict", ["accepted", "rejected", "invalid"]),
        ("kloros_intents_total", "status", FINAL),
        ("kloros_phase_dates_total", "result", DateResult),
    ],
)
def test_each_label_exists_at_zero_from_the_start(db: Database, sample: str, label: str, values: Iterable[str]) -> None:
    assert sorted(labels(text_of(db), sample, label)) == sorted(str(value) for value in values)


def test_each_job_has_each_result_and_each_bucket_from_the_start(db: Database) -> None:
    found = {
        (sample.labels["job"], sample.labels["result"])
        for family in families(text_of(db))
        for sample in family.samples
        if sample.name == "kloros_cycles_total"
    }
    assert found == {(str(job), str(result)) for job in JobName for result in FINISHED}
    buckets = labels(text_of(db), "kloros_orchestrator_tick_duration_seconds_bucket", "le")
    assert buckets == [*(str(bound) for bound in DURATION_BUCKETS), "+Inf"], "ascending"


def test_every_reason_is_either_clear_or_starts_something_or_is_a_label() -> None:
    """A rule that learns a new reason must say which it is, or its series appears out of nothing."""
    starts = {Reason.PHASE_DUE, Reason.WINDOW_MISSED, Reason.UNACKED_PROMOTIONS, Reason.INTENT_PENDING}
    assert set(SKIPPING) | CLEAR | starts == set(Reason)
    assert not set(SKIPPING) & (CLEAR | starts)


def test_a_series_of_a_label_that_is_known_no_more_is_still_published(db: Database) -> None:
    count(db, "kloros_orchestrator_skipped_total", 7, reason="of_an_older_release")
    assert "of_an_older_release" in labels(text_of(db), "kloros_orchestrator_skipped_total", "reason")


def write(db: Database, path: Path, text: str = "one 1\n") -> None:
    with db.transaction():
        textfile.write(db, str(path), text)


def test_the_file_is_readable_for_everyone_whatever_the_umask(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "kloros.prom"
    before = os.umask(0o077)
    try:
        write(db, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


def warnings(captured: str) -> list[str]:
    events = [json.loads(line) for line in captured.splitlines()]
    return [event["message"] for event in events if event["event"] == "textfile.missing"]


def test_an_absent_folder_is_told_once_and_again_after_it_was_there(
    db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "node-exporter"
    for _ in range(3):
        write(db, folder / "kloros.prom")
    told = warnings(capfd.readouterr().err)
    assert len(told) == 1
    assert str(folder) in told[0]
    folder.mkdir()
    write(db, folder / "kloros.prom")
    assert (folder / "kloros.prom").read_text() == "one 1\n"
    (folder / "kloros.prom").unlink()
    folder.rmdir()
    for _ in range(3):
        write(db, folder / "kloros.prom")
    assert len(warnings(capfd.readouterr().err)) == 1


def test_what_can_not_be_written_is_told_once_and_fails_nothing(
    db: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kloros.prom").mkdir()
    for _ in range(3):
        write(db, tmp_path / "kloros.prom")
    assert len(warnings(capfd.readouterr().err)) == 1
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


WRITER = """
import sys
from types import SimpleNamespace
from orchestration.host import clock
from orchestration.pulse.publish import publish
from orchestration.store.counters import count
from orchestration.store.sqlite import SqliteDatabase
folder, times = sys.argv[1], int(sys.argv[2])
db = SqliteDatabase(f"{folder}/kloros.db")
settings = SimpleNamespace(
    state_dir=folder,
    textfile=f"{folder}/kloros.prom",
    orchestration_mode="enabled",
    intents=SimpleNamespace(max_pending=50),
    retention=SimpleNamespace(low_disk=0),
)
for _ in range(times):
    with db.transaction():
        count(db, "kloros_orchestrator_lock_contention_total")
    publish(settings, db, clock.now())
"""
CONTENTION = "kloros_orchestrator_lock_contention_total"


def test_writers_at_once_leave_whole_files_and_no_counter_ever_goes_back(db: Database, tmp_path: Path) -> None:
    writers, times = 4, 40
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(times)]) for _ in range(writers)]
    path, whole = tmp_path / "kloros.prom", len(text_of(db).splitlines())
    seen: list[float] = []
    deadline = time.monotonic() + 60
    while any(writer.poll() is None for writer in running):
        assert time.monotonic() < deadline
        if path.exists():
            text = path.read_text()
            assert (len(text.splitlines()), text[-1]) == (whole, "\n")
            seen.append(contention(text))
    assert [writer.wait() for writer in running] == [0] * writers
    assert seen == sorted(seen)
    assert contention(path.read_text()) == writers * times


def contention(text: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(f"{CONTENTION} ")).split()[1])


class Overtaken(SimpleNamespace):
    """Settings of a publisher that another one tries to overtake between its reading and its writing."""

    @property
    def textfile(self) -> str:
        if not self.others:
            self.others.append(Thread(target=self.overtake))
            self.others[0].start()
            self.others[0].join(timeout=0.5)  # ends at once if it can overtake
        return str(self.path)

    def overtake(self) -> None:
        other = SqliteDatabase(f"{self.state_dir}/kloros.db")
        count(other, CONTENTION)
        publish(cast("Settings", self), other, clock.now())
        other.close()


def test_an_older_copy_never_takes_the_place_of_a_newer_one(tmp_path: Path) -> None:
    """To Prometheus that would be a counter reset: `rate()` would count everything once more."""
    db = SqliteDatabase(str(tmp_path / "kloros.db"))
    settings = Overtaken(state_dir=str(tmp_path), path=tmp_path / "kloros.prom", others=[])
    settings.orchestration_mode, settings.intents = "enabled", SimpleNamespace(max_pending=50)
    settings.retention = SimpleNamespace(low_disk=0)
    publish(cast("Settings", settings), db, clock.now())
    settings.others[0].join()
    assert contention((tmp_path / "kloros.prom").read_text()) == 1


def test_the_reference_names_every_metric_with_its_kind_and_every_label() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "reference", "metrics.md").read_text()
    page = page.partition("## The bridge's")[0]
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `kloros_")}
    families = (*metrics.FAMILIES, *scope_metrics.FAMILIES)
    assert rows.keys() == {family.name for family in families}
    for name, labels in scope_metrics.LABELS.items():
        assert [label for label in labels if f"`{label}`" not in rows[name]] == []
    for family in families:
        assert f"| {family.kind} |" in rows[family.name]
        for _, label_text in family.series:
            for pair in label_text.split(","):
                label, _, quoted = pair.partition("=")
                if label not in ("", "le", "version"):
                    assert f"`{label}`" in rows[family.name]
                    assert f"`{quoted.strip(chr(34))}`" in page
