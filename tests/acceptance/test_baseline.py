"""The baseline as an operator meets it: versions that cycles made, compared, verified, rolled back and set by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestration.exits import Exit
from tests.acceptance.host import Host, script


@pytest.fixture
def ran(host: Host, tmp_path: Path) -> Host:
    """A host on which two cycles have each accepted a promotion."""
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    host.stepwise()
    for stem, rate in (("one", 0.01), ("two", 0.02)):
        host.promote(stem, changes={"learning_rate": rate, stem: 1})
        host.decided()
        host.run_queued()
    return host


def answer(host: Host, *arguments: str) -> Any:
    done = host.run("klorosctl", "baseline", *arguments, "--json")
    assert done.returncode == Exit.DONE, done.stderr
    return json.loads(done.stdout)


def test_each_cycle_is_one_version(ran: Host) -> None:
    shown = answer(ran, "show")
    assert (shown["version"], shown["cycle"], shown["promotion_ids"]) == (2, 2, ["two"])
    assert shown["parameters"] == {"learning_rate": 0.02, "one": 1, "two": 1}
    assert yaml.safe_load((ran.state / "baseline" / "baseline.yaml").read_text()) == shown["parameters"]
    manifest = json.loads((ran.state / "baseline" / "manifest.json").read_text())
    assert (manifest["version"], manifest["sha256"], manifest["previous_sha"]) == (
        2,
        shown["sha256"],
        answer(ran, "show", "1")["sha256"],
    )
    assert [version["version"] for version in answer(ran, "history")] == [2, 1]
    assert answer(ran, "diff", "1", "2") == [
        {"name": "learning_rate", "before": 0.01, "after": 0.02, "relative": 1.0},
        {"name": "two", "before": None, "after": 1, "relative": None},
    ]


def test_a_rollback_is_a_new_version_by_the_person_who_asked(ran: Host) -> None:
    made = answer(ran, "rollback", "1", "--reason", "it got slower")
    assert (made["version"], made["kind"], made["parameters"]) == (3, "rollback", {"learning_rate": 0.01, "one": 1})
    assert made["reason"] == "to version 1: it got slower"
    assert made["actor"] not in ("", "kloros")
    assert json.loads((ran.state / "baseline" / "baseline.json").read_text())["parameters"] == made["parameters"]
    again = ran.run("klorosctl", "baseline", "rollback", "3", "--reason", "x")
    assert (again.returncode, "in force" in again.stderr) == (Exit.USAGE, True)


def test_a_rollback_to_what_is_out_of_bounds_by_now_asks_for_wider_bounds_first(ran: Host) -> None:
    narrow = ran.config.read_text()
    ran.configure("[promotions.bounds]\nlearning_rate = [0.015, 0.1]\n")
    refused = ran.run("klorosctl", "baseline", "rollback", "1", "--reason", "it got slower")
    assert (refused.returncode, "widen [promotions] bounds first" in refused.stderr) == (Exit.USAGE, True)
    assert "version 1 is out of today's bounds: 'learning_rate' = 0.01 is below its bound 0.015" in refused.stderr
    assert answer(ran, "show")["version"] == 2
    ran.config.write_text(narrow)
    assert answer(ran, "rollback", "1", "--reason", "it got slower")["version"] == 3


@pytest.mark.parametrize("command", [("rollback", "1"), ("set", "learning_rate=0.05")])
def test_a_reason_says_something(ran: Host, command: tuple[str, ...]) -> None:
    refused = ran.run("klorosctl", "baseline", *command, "--reason", " ")
    assert (refused.returncode, "--reason is empty" in refused.stderr) == (Exit.USAGE, True)
    assert answer(ran, "show")["version"] == 2


def test_a_person_s_values_keep_to_the_bounds(ran: Host) -> None:
    refused = ran.run("klorosctl", "baseline", "set", "learning_rate=7", "--reason", "x")
    assert (refused.returncode, "above its bound 0.1" in refused.stderr) == (Exit.USAGE, True)
    refused = ran.run("klorosctl", "baseline", "set", "learning_rate", "--reason", "x")
    assert (refused.returncode, "no NAME=VALUE" in refused.stderr) == (Exit.USAGE, True)
    assert answer(ran, "set", "learning_rate=0.05", "--reason", "by hand")["parameters"]["learning_rate"] == 0.05


def test_an_edited_file_is_found_told_and_mended(ran: Host) -> None:
    assert answer(ran, "verify") == {"faults": [], "mended": []}
    edited = ran.state / "baseline" / "versions" / "baseline_v0001.yaml"
    edited.write_text(edited.read_text().replace("0.01", "0.09"))
    found = ran.run("klorosctl", "baseline", "verify")
    assert (found.returncode, f"{edited} was edited" in found.stdout) == (1, True)
    assert answer(ran, "verify", "--repair")["mended"] == [str(edited)]
    assert answer(ran, "verify")["faults"] == []
    assert "0.09" in edited.with_name(f"{edited.name}.edited").read_text()


def test_a_version_that_was_changed_in_the_store_is_told_with_what_to_do(ran: Host) -> None:
    ran.change("""UPDATE baseline_versions SET parameters = '{"learning_rate": 0.05}' WHERE version = 1""")
    found = ran.run("klorosctl", "baseline", "verify")
    assert found.returncode == 1
    assert "version 1 was changed in the store" in found.stdout
    assert ("restore a backup" in found.stdout, "--repair" in found.stdout) == (True, False)
    (check,) = [
        one for one in json.loads(ran.run("klorosctl", "doctor", "--json").stdout)["checks"] if one["name"] == "baseline"
    ]
    assert (check["level"], check["advice"].startswith("restore a backup")) == ("error", True)
    (ran.state / "baseline" / "manifest.json").unlink()
    both = ran.run("klorosctl", "baseline", "verify").stdout
    assert ("restore a backup" in both, "--repair" in both) == (True, True)


def test_before_the_first_version_it_says_so(host: Host) -> None:
    done = host.run("klorosctl", "baseline", "show")
    assert (done.returncode, "no baseline version yet" in done.stderr) == (Exit.USAGE, True)
    assert answer(host, "history") == []


def test_no_promotion_is_tried_against_a_baseline_that_was_edited(ran: Host) -> None:
    shown = ran.state / "baseline" / "baseline.json"
    shown.write_text(shown.read_text().replace("0.02", "0.09"))
    ran.promote("three")
    ran.decided()
    ran.run_queued()
    ((state, result),) = ran.rows("SELECT state, result FROM cycles WHERE cycle = 3")
    assert (state, "was edited" in result) == ("failed", True)
    assert answer(ran, "verify", "--repair")["mended"] == [str(shown)]
