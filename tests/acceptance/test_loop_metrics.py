"""What the metrics say of the loop, where no timer ticks: the loop itself writes them."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.exits import Exit
from orchestration.loop.status import Status
from tests.acceptance.host import Host
from tests.acceptance.looping import Looping
from tests.waiting import until

PLAIN = (
    "last_iteration_timestamp_seconds",
    "consecutive_failures",
    "failure_limit_reached",
    "archives_stale",
    "next_run_timestamp_seconds",
)


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def told(looping: Looping) -> dict[str, float]:
    """Return what the textfile says of the loop; iterations by their status."""
    families = text_string_to_metric_families(looping.host.textfile.read_text())
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("kloros_loop_")]
    return {one.labels.get("status") or one.name.removeprefix("kloros_loop_"): one.value for one in samples}


def test_every_series_is_there_before_the_first_iteration(looping: Looping) -> None:
    looping.host.decided()
    assert told(looping) == dict.fromkeys((*Status, *PLAIN), 0.0)


def test_the_loop_writes_them_after_each_iteration(looping: Looping) -> None:
    began = time.time()
    command = looping.command("[ $RUN_CYCLE_ITERATION != 2 ]")
    with looping.running("--command", command, "--continuous", "--backoff", "60", "--sleep", "0") as loop:
        until(lambda: looping.host.textfile.exists() and told(looping)["failed"], "the second iteration is told")
        now = told(looping)
        assert (now["degraded"], now["failed"], now["consecutive_failures"]) == (1, 1, 1)
        assert began <= now["last_iteration_timestamp_seconds"] <= time.time()
        assert 50 < now["next_run_timestamp_seconds"] - now["last_iteration_timestamp_seconds"] <= 60
        assert now["failure_limit_reached"] == 0
        loop.terminate()
        assert loop.wait(10) == Exit.DONE
    assert told(looping)["next_run_timestamp_seconds"] == 0, "none is planned"


def test_a_killed_loop_stands_as_overdue(looping: Looping) -> None:
    with looping.running("--command", looping.good(), "--continuous") as loop:
        looping.waits_for("waiting")
        loop.kill()
        loop.wait()
    assert told(looping)["next_run_timestamp_seconds"] > time.time()
    looping.host.decided()
    assert told(looping)["next_run_timestamp_seconds"] > 0, "a tick does not know better"


def test_the_failure_limit(looping: Looping) -> None:
    flags = ("--sleep", "0", "--max-backoff", "0", "--max-failures", "2", "--continuous")
    assert looping.loop("--command", "false", *flags).returncode == Exit.FAILURE_LIMIT
    now = told(looping)
    assert (now["failed"], now["consecutive_failures"], now["failure_limit_reached"]) == (2, 2, 1)
    assert now["next_run_timestamp_seconds"] == 0
    looping.loop("--command", looping.good(), "--max-failures", "2")
    assert (told(looping)["consecutive_failures"], told(looping)["failure_limit_reached"]) == (0, 0)


def test_stale_archives(looping: Looping) -> None:
    looping.loop("--command", "true", "--iterations", "2", "--sleep", "0")
    assert told(looping)["archives_stale"] == 0
    looping.loop("--command", "true")
    assert told(looping)["archives_stale"] == 1
    looping.loop("--command", looping.good())
    assert told(looping)["archives_stale"] == 0


def test_statuses_without_a_cycle_count_too(looping: Looping) -> None:
    looping.loop("--command", "true", "--require-executables", "no-such-program")
    looping.loop("--command", "./absent", "--max-backoff", "0")
    assert (told(looping)["prereq_failed"], told(looping)["not_started"], told(looping)["consecutive_failures"]) == (1, 1, 2)
