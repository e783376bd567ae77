"""What the journal tells an operator who did not ask: what was dropped, parked or missed, one line each."""

from __future__ import annotations

import json
import os
from datetime import date
from typing import Any

import pytest

from orchestration.settings import Phase
from tests.acceptance.host import Host
from tests.acceptance.test_phase_dates import World, new_york


def told(stderr: str, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in stderr.splitlines())
    return [line for line in lines if line["event"] == event]


def test_intents_that_are_dropped_are_named_with_the_reason(host: Host) -> None:
    host.set(KLR_MAX_INTENT_QUEUE="1")
    host.stepwise()
    for serial in range(3):
        host.intend("curiosity_bees", priority=9 - serial, serial=serial)
    garbage = host.state / "intents" / "0_garbage.json"
    garbage.write_text("garbage")
    os.utime(garbage, (0, 0))  # not in the writing any more
    dropped = told(host.tick().stderr, "intents.dropped")
    assert [(line["status"], line["intents"], line["priority"]) for line in dropped] == [
        ("queue_overflow", 2, "warning"),
        ("malformed", 1, "warning"),
    ]
    assert "and 1 more: more than 1 were pending" in dropped[0]["message"]
    assert "0_garbage.json: not JSON" in dropped[1]["message"]


def test_a_parked_promotion_is_alerted_once(host: Host) -> None:
    host.stepwise()
    host.set(KLR_DREAM_COMMAND="false", KLR_DREAM_PARK_AFTER="1")
    host.promote("stubborn")
    host.decided()
    assert host.run("run_cycle").returncode == 0
    (line,) = told(host.tick().stderr, "promotion.parked")
    assert line["priority"] == "error"
    assert "promotion stubborn is parked after 1 failed cycles in a row" in line["message"]
    assert "klorosctl promotions retry|reject stubborn" in line["message"]
    assert told(host.tick().stderr, "promotion.parked") == []
    (alert,) = (json.loads(line) for line in (host.state / "alerts.jsonl").read_text().splitlines())
    assert (alert["kind"], alert["promotion"], alert["cycle"]) == ("promotion_parked", "stubborn", 1)


def test_dates_without_their_phase_are_told_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path_factory.mktemp("world"), Phase(), new_york(9, 12))
    world.tick(world.now)
    world.boot_id = "boot-2"
    world.tick(new_york(14, 12))
    (line,) = told(capfd.readouterr().err, "phase.missed")
    assert (line["date"], line["dates"], line["reason"]) == (str(date(2026, 6, 14)), 5, "host_down")
    assert "2026-06-14 has no PHASE, nor have 4 dates before it: skipped, host_down" in line["message"]


def test_a_promotion_that_cannot_be_read_is_told_once_and_every_noop_names_it(host: Host) -> None:
    host.promote("whole").rename(host.state / "promotions" / os.fsdecode(b"caf\xe9.json"))
    (host.state / "promotions" / "to_nothing.json").symlink_to("nothing.json")
    first = host.tick("--json")
    assert len(told(first.stderr, "promotion.left")) == 2
    (finding,) = (one for one in json.loads(first.stdout)["reasons"] if one["rule"] == "promotions")
    assert finding["reason"] == "promotions_unreadable"
    assert finding["evidence"] == r"left for a later tick: caf\xe9.json, to_nothing.json; why: klorosctl promotions list"
    assert told(host.tick().stderr, "promotion.left") == []
    assert host.counter("kloros_orchestrator_skipped_total", 'reason="promotions_unreadable"') == 2
