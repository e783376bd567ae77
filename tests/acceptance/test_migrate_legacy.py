"""`klorosctl migrate-legacy`: what the older orchestrator left counts here, and nothing of it is changed."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import Host
from tests.acceptance.older import Older, lived_in


@pytest.fixture
def older(tmp_path: Path) -> Older:
    return lived_in(tmp_path / "old", f"{datetime.now(UTC):%Y-%m-%d}")


def migrate(host: Host, older: Older, *flags: str) -> dict[str, Any]:
    done = host.run("klorosctl", *older.arguments, "--json", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def fates(document: dict[str, Any], kind: str) -> dict[str, str]:
    return {item["name"]: item["fate"] for item in document["items"] if item["kind"] == kind}


def details(document: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["detail"] for item in document["items"]}


def test_it_lists_first_and_changes_nothing(host: Host, older: Older) -> None:
    before = older.snapshot()
    document = migrate(host, older)
    assert (document["done"], document["changed"]) == (False, False)
    assert not host.state.exists()
    told = host.run("klorosctl", *older.arguments).stdout
    assert "To do it: the same command with --yes" in told
    assert "klorosctl autonomous list" in told
    assert older.snapshot() == before


def test_every_form_is_taken_over_and_the_source_stays_to_the_byte(host: Host, older: Older) -> None:
    before = older.snapshot()
    document = migrate(host, older, "--yes")
    assert older.snapshot() == before
    assert (document["done"], document["changed"]) == (True, True)
    assert fates(document, "ack") == {
        "promo_a_ack.json": "taken_over",
        "promo_b_ack.json": "taken_over",
        "promo_torn_ack.json": "taken_over",
        "spica_42.ack.json": "taken_over",
        "20251028_081500.json": "taken_over",
        "readme.json": "refused",
    }
    assert sorted(fates(document, "signal").values()) == ["refused", "taken_over", "taken_over"]
    assert sorted(fates(document, "intent").values()) == ["refused", "refused", "taken_over"]
    said = details(document)
    assert "left out, for they are no numbers: model" in said["baseline_v0004.yaml"]
    assert said["readme.json"] == "is no ack: it names no promotion_id"
    assert said["broken.json"].startswith("not JSON")
    assert [text for text in said.values() if text.startswith("stale: waits since")]
    for name in ("promo_a_ack.json", "20251028_081500.json"):
        there = older.artifacts / "dream/promotions_ack" / name
        here = host.state / "promotions_ack" / name
        assert here.read_bytes() == there.read_bytes()
        assert abs(here.stat().st_mtime_ns - there.stat().st_mtime_ns) < 1000  # a float of seconds tells no more


def test_again_there_is_nothing_to_do(host: Host, older: Older) -> None:
    migrate(host, older, "--yes")
    kept = host.rows("SELECT * FROM phase_dates") + host.rows("SELECT * FROM baseline_versions")
    again = migrate(host, older, "--yes")
    assert (again["done"], again["changed"]) == (False, False)
    assert set(again["counts"]) == {"already_there", "refused"}
    assert host.rows("SELECT * FROM phase_dates") + host.rows("SELECT * FROM baseline_versions") == kept
    host.decided()  # takes in the intent, and moves its file
    assert migrate(host, older, "--yes")["changed"] is False
    assert [path.name for path in (host.state / "intents").glob("*.json")] == []
    assert "Nothing to do: all that can be taken over is here." in host.run("klorosctl", *older.arguments, "--yes").stdout


def test_a_signal_that_retention_would_remove_at_once_stays_there(host: Host, older: Older) -> None:
    old = older.signal("long_ago")
    os.utime(old, (1_760_000_000, 1_760_000_000))
    document = migrate(host, older, "--yes")
    assert fates(document, "signal")[old.name] == "refused"
    assert "keep_processed" in details(document)[old.name]
    host.decided()
    assert migrate(host, older, "--yes")["changed"] is False


def test_an_answered_promotion_is_not_run_again(host: Host, older: Older) -> None:
    host.set(KLR_PROMOTIONS_DIR=str(older.artifacts / "dream/promotions"))
    for stem in ("promo_a", "promo_b", "promo_torn", "renamed", "another"):
        identity = {"renamed": "spica:42", "another": "dated"}.get(stem, stem)
        shutil.copy(host.promote(stem, id=identity), older.artifacts / "dream/promotions")
    assert not migrate(host, older, "--yes")["advice"][0].startswith("promotions come to")
    host.set(KLR_INTENTS_MAX_PENDING="50")
    record = host.decided()
    assert record["decision"] == "noop"
    assert "no_unacked_promotions" in [found["reason"] for found in record["reasons"]]


def test_it_says_where_promotions_come_to(host: Host, older: Older) -> None:
    folder = older.artifacts / "dream/promotions"
    assert f'set promotions_dir = "{folder}"' in migrate(host, older)["advice"][0]


def test_an_epoch_of_today_keeps_today_from_a_second_phase(host: Host, older: Older) -> None:
    host.set(**host.window(opens_in=timedelta(hours=-1)))
    today = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d}"
    older.epoch(today, ts=datetime.now(UTC).timestamp())
    migrate(host, older, "--yes")
    record = host.decided()
    assert record["decision"] == "noop"
    assert "phase_done_today" in [found["reason"] for found in record["reasons"]]
    assert host.rows(f"SELECT result, reason, cycle FROM phase_dates WHERE local_date = '{today}'") == [
        ("succeeded", "taken_over", None)
    ]
    assert host.counter("kloros_phase_dates_total", 'result="succeeded"') == 0  # it was none of ours


def test_one_bad_line_stops_no_other(host: Host, older: Older) -> None:
    epochs = fates(migrate(host, older, "--yes"), "epoch")
    assert epochs["epochs.jsonl:4"] == "refused"
    days = [day for (day,) in host.rows("SELECT local_date FROM phase_dates ORDER BY local_date")]
    assert days[:3] == ["2025-10-27", "2025-10-28", "2025-10-29"]


def test_a_recorded_skip_gives_way_and_a_phase_of_ours_stays(host: Host, older: Older) -> None:
    host.decided()
    for day, result in (("2025-10-27", "skipped"), ("2025-10-28", "succeeded")):
        host.change(
            "INSERT INTO phase_dates VALUES"
            f" ('{day}', '{result}', 'window', 'ours', NULL, '{day}T00:00:00.000000Z', '{day}T01:00:00.000000Z', '')"
        )
    migrate(host, older, "--yes")
    found = host.rows("SELECT local_date, result, reason FROM phase_dates WHERE local_date < '2025-10-29' ORDER BY 1")
    assert found == [("2025-10-27", "succeeded", "taken_over"), ("2025-10-28", "succeeded", "window")]


def test_the_baseline_is_a_chain_that_verifies(host: Host, older: Older) -> None:
    migrate(host, older, "--yes")
    history = json.loads(host.run("klorosctl", "baseline", "history", "--json").stdout)
    assert [one["version"] for one in history] == [4, 3, 2, 1]
    assert {one["kind"] for one in history} == {"imported"}
    assert history[0]["parameters"] == {"batch_size": 7, "learning_rate": 0.07}
    assert history[0]["promotion_ids"] == ["promo_7"]
    assert history[0]["actor"] == "kloros-orchestrator"
    assert host.run("klorosctl", "baseline", "verify").returncode == 0
    assert json.loads((host.state / "baseline/baseline.json").read_text())["parameters"]["batch_size"] == 7


def test_what_was_gone_back_to_is_in_force(host: Host, older: Older) -> None:
    for name in ("baseline.yaml", "manifest.json"):
        archived = name.replace(".", "_v0005.")
        shutil.copy(older.baseline / "versions" / archived, older.baseline / name)
    document = migrate(host, older, "--yes")
    assert fates(document, "version")["baseline.yaml (in force)"] == "taken_over"
    assert json.loads(host.run("klorosctl", "baseline", "show", "--json").stdout)["parameters"]["batch_size"] == 5
    assert migrate(host, older, "--yes")["changed"] is False


def test_an_edited_version_is_refused_with_the_reason(host: Host, older: Older) -> None:
    path = older.baseline / "versions" / "baseline_v0006.yaml"
    path.write_text(path.read_text().replace("0.06", "0.99"))
    document = migrate(host, older, "--yes")
    assert fates(document, "version")["baseline_v0006.yaml"] == "refused"
    assert "edited, or half committed" in details(document)["baseline_v0006.yaml"]
    assert [row[0] for row in host.rows("SELECT version FROM baseline_versions")] == [1, 2, 3]


def test_a_baseline_of_our_own_is_not_gone_over(host: Host, older: Older) -> None:
    assert host.run("klorosctl", "baseline", "set", "temperature=0.7", "--reason", "mine").returncode == 0
    document = migrate(host, older, "--yes")
    assert set(fates(document, "version").values()) == {"refused"}
    assert "versions of its own" in details(document)["baseline_v0007.yaml"]
    assert json.loads((host.state / "baseline/baseline.json").read_text())["parameters"] == {"temperature": 0.7}


def test_a_single_baseline_json_counts_too(host: Host, older: Older) -> None:
    shutil.rmtree(older.baseline)
    folder = older.kloros / "baseline"
    folder.mkdir()
    (folder / "baseline.json").write_text('{"parameters": {"temperature": 0.9}, "ts": 1}')
    migrate(host, older, "--yes")
    assert json.loads((host.state / "baseline/baseline.json").read_text())["parameters"] == {"temperature": 0.9}


def test_another_ack_of_the_same_name_stays(host: Host, older: Older) -> None:
    mine = host.state / "promotions_ack" / "promo_a_ack.json"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"promotion_id": "promo_a", "accepted": false}')
    document = migrate(host, older, "--yes")
    assert fates(document, "ack")["promo_a_ack.json"] == "refused"
    assert "another file of this name is here" in details(document)["promo_a_ack.json"]
    assert json.loads(mine.read_text())["accepted"] is False


def test_a_link_and_a_pipe_are_not_followed(host: Host, older: Older, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"promotion_id": "x"}')
    (older.artifacts / "dream/promotions_ack/linked.json").symlink_to(secret)
    os.mkfifo(older.kloros / "intents" / "pipe.json")
    document = migrate(host, older, "--yes")
    assert fates(document, "ack")["linked.json"] == "refused"
    assert fates(document, "intent")["pipe.json"] == "refused"


def test_the_state_folder_itself_can_be_the_older_one(host: Host, older: Older) -> None:
    host.set(KLR_STATE_DIR=str(older.kloros), KLR_ACKS_DIR=str(older.artifacts / "dream/promotions_ack"))
    shutil.copytree(older.baseline, older.kloros / "baseline")
    before = older.snapshot()
    document = migrate(host, older, "--yes")
    assert set(fates(document, "ack").values()) == {"already_there", "refused"}
    assert set(fates(document, "version").values()) == {"refused"}
    assert "lies where ours is to be" in details(document)["baseline_v0004.yaml"]
    assert before.items() - older.snapshot().items() == {
        (".kloros", before[".kloros"]),
        (".kloros/locks", before[".kloros/locks"]),
    }


def test_a_folder_that_is_not_there_is_said(host: Host, older: Older) -> None:
    done = host.run("klorosctl", "migrate-legacy", "--from", str(older.home / "nowhere"))
    assert done.returncode == 64
    assert "is no folder" in done.stderr


def test_a_folder_with_nothing_of_it_is_asked_about(host: Host, tmp_path: Path) -> None:
    assert "Is it the right folder?" in host.run("klorosctl", "migrate-legacy", "--from", str(tmp_path)).stdout


def test_a_tick_at_work_is_not_disturbed(host: Host, older: Older) -> None:
    from orchestration.host.lock import FileLock

    host.decided()
    with FileLock(str(host.state / "locks/orchestrator.lock")).held("a tick"):
        done = host.run("klorosctl", *older.arguments, "--yes")
    assert done.returncode == 75
    assert host.rows("SELECT * FROM phase_dates") == []
