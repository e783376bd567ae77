"""Every finished cycle gets its bundle by itself, after its end and in nobody's way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestration.cycles import bundle
from orchestration.exits import Exit
from tests.acceptance.host import Host, script
from tests.acceptance.looping import Looping
from tests.waiting import until

LEAVES = ("echo hello", "echo weights > artifacts/model.txt")


@pytest.fixture
def on(host: Host, tmp_path: Path) -> Host:
    """A host as installed, where nothing starts by itself."""
    host.stepwise()
    host.set(KLR_CYCLES_BUNDLE="true", KLR_DREAM_BACKOFF="0", KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", LEAVES))
    return host


def ask(host: Host) -> None:
    """Have a cycle queued."""
    host.intend("trigger_dream", reason=os.urandom(4).hex())
    assert host.decided()["decision"] == "dream_cycle"


def bundles(host: Host) -> list[str]:
    """Verify every bundle there is, and return their folders' names."""
    found = [path for path in (host.state / "out").glob("*") if not path.name.endswith(".sha256")]
    return sorted(bundle.verify(str(path)).folder for path in found)


def kicked(host: Host) -> bool:
    """Tell whether a runner was asked for, and take the kick away as its unit does."""
    kick = host.state / "kick" / "cycle"
    there = kick.exists()
    kick.unlink(missing_ok=True)
    return there


def overdue(host: Host) -> None:
    """Let the time come at which a tick looks after a bundle."""
    change(host, "UPDATE bundles SET due_at = '2026-01-01T00:00:00.000000Z'")


def change(host: Host, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(host.state / "kloros.db") as store:
        assert store.execute(statement).rowcount > 0
    store.close()


def test_the_runner_makes_it_and_no_tick_waits_or_starts_anybody(on: Host) -> None:
    ask(on)
    kicked(on)
    assert on.run("run_cycle").returncode == 0
    assert bundles(on) == ["cycle_00001"]
    on.decided()
    assert not kicked(on)
    assert bundles(on) == ["cycle_00001"]
    assert on.counter("kloros_bundles_total", 'result="made"') == 1
    shown = json.loads(on.run("klorosctl", "show", "1", "--json").stdout)["bundle"]
    assert (shown["path"].startswith(str(on.state / "out" / "cycle_00001.tar.")), shown["error"]) == (True, "")
    assert json.loads(on.run("klorosctl", "bundle", "status", "--json").stdout)["pending"] == []


def test_the_manifest_in_it_is_the_one_of_the_end(on: Host, tmp_path: Path) -> None:
    ask(on)
    on.run_queued()
    (path,) = (one for one in (on.state / "out").glob("*.tar.*") if not one.name.endswith(".sha256"))
    inside = Path(bundle.extract(str(path), str(tmp_path / "to"))) / "manifest.json"
    assert inside.read_bytes() == (on.state / "cycles" / "cycle_00001" / "manifest.json").read_bytes()
    assert json.loads(inside.read_text())["state"] == "succeeded"


def test_a_failed_cycle_has_one_and_a_cancelled_that_left_nothing_has_none(on: Host, tmp_path: Path) -> None:
    on.set(KLR_DREAM_COMMAND=script(tmp_path, "fails.sh", ["exit 3"]))
    ask(on)
    on.run_queued()
    ask(on)
    assert on.run("klorosctl", "cancel", "2").returncode == 0
    on.run_queued()
    assert bundles(on) == ["cycle_00001"]
    assert on.rows("SELECT cycle FROM bundles") == [(1,)]


def test_off(on: Host) -> None:
    on.set(KLR_CYCLES_BUNDLE="false")
    ask(on)
    on.run_queued()
    assert not (on.state / "out").exists()
    assert "on demand only" in on.run("klorosctl", "bundle", "status").stdout


def test_a_failure_fails_no_cycle_is_shown_and_tried_again(on: Host) -> None:
    (on.state / "out").write_text("in the way")
    ask(on)
    on.run_queued()
    assert on.rows("SELECT state, settled_at IS NOT NULL FROM cycles") == [("succeeded", 1)]
    (pending,) = json.loads(on.run("klorosctl", "bundle", "status", "--json").stdout)["pending"]
    assert (pending["cycle"], pending["failures"]) == (1, 1)
    assert str(on.state / "out") in pending["error"]
    assert "can't be made" in on.run("klorosctl", "show", "1").stdout
    on.decided()
    assert on.counter("kloros_bundles_total", 'result="failed"') == 1
    assert "kloros_bundles_pending 1.0" in on.textfile.read_text()
    assert on.run("run_cycle").returncode == 0
    assert on.counter("kloros_bundles_total", 'result="failed"') == 1, "it waits for its time"
    (on.state / "out").unlink()
    kicked(on)
    on.decided()
    assert not kicked(on)
    overdue(on)
    on.decided()
    assert kicked(on)
    assert on.run("run_cycle").returncode == 0
    assert bundles(on) == ["cycle_00001"]
    on.decided()
    assert "kloros_bundles_pending 0.0" in on.textfile.read_text()
    assert not kicked(on)


def test_of_a_lost_cycle_a_tick_asks_for_it(on: Host) -> None:
    ask(on)
    on.run("run_cycle")
    change(on, "DELETE FROM bundles")  # its runner died before the end was recorded
    change(on, "UPDATE cycles SET settled_at = NULL, state = 'lost'")
    for path in (on.state / "out").iterdir():
        path.unlink()
    kicked(on)
    on.decided()
    assert kicked(on)
    assert on.run("run_cycle").returncode == 0
    assert bundles(on) == ["cycle_00001"]


def test_it_goes_with_its_cycle(on: Host) -> None:
    for _ in range(2):
        ask(on)
        on.run_queued()
    assert bundles(on) == ["cycle_00001", "cycle_00002"]
    on.set(KLR_RETENTION_KEEP_LAST="1", KLR_RETENTION_KEEP_FOR="0")
    on.decided()
    assert bundles(on) == ["cycle_00002"]


def test_a_folder_that_is_gone_asks_nobody_any_more(on: Host) -> None:
    (on.state / "out").write_text("in the way")
    ask(on)
    on.run_queued()
    (on.state / "out").unlink()
    for path in sorted((on.state / "cycles").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    overdue(on)
    assert on.run("run_cycle").returncode == 0
    assert on.counter("kloros_bundles_total", 'result="skipped"') == 1
    assert bundles(on) == []


def test_federation_copies_the_bundle_that_was_made(on: Host, tmp_path: Path) -> None:
    on.set(KLR_FEDERATION_TARGET=f"file://{tmp_path / 'copies'}")
    ask(on)
    on.run_queued()
    (path,) = (one for one in (on.state / "out").glob("*.tar.*") if not one.name.endswith(".sha256"))
    before = path.stat().st_mtime_ns
    assert kicked(on)
    assert on.run("run_cycle").returncode == 0
    (copy,) = (tmp_path / "copies" / "bundles").iterdir()
    assert copy.read_bytes() == path.read_bytes()
    assert path.stat().st_mtime_ns == before


@pytest.fixture
def looping(host: Host) -> Looping:
    return Looping(host)


def test_the_loop_makes_them_and_has_them_copied(looping: Looping, tmp_path: Path) -> None:
    host, copies = looping.host, tmp_path / "copies"
    host.set(KLR_CYCLES_BUNDLE="true", KLR_FEDERATION_TARGET=f"file://{copies}")
    done = looping.loop("--command", looping.good(), "--iterations", "2", "--sleep", "0")
    assert done.returncode == Exit.DONE, done.stderr
    assert bundles(host) == ["cycle_00001", "cycle_00002"]
    assert host.counter("kloros_bundles_total", 'result="made"') == 2
    until(lambda: host.rows("SELECT count(*) FROM federations WHERE done_at IS NOT NULL") == [(2,)], "both are copied")
    assert len(json.loads((copies / "index.json").read_text())["entries"]) == 2


def test_the_loop_does_not_fail_by_a_bundle(looping: Looping) -> None:
    host = looping.host
    host.set(KLR_CYCLES_BUNDLE="true")
    host.state.mkdir()
    (host.state / "out").write_text("in the way")
    done = looping.loop("--command", looping.good(), "--iterations", "2", "--sleep", "0")
    assert done.returncode == Exit.DONE, done.stderr
    assert looping.statuses() == ["success", "success"]
    assert host.rows("SELECT cycle, failures FROM bundles ORDER BY cycle") == [(1, 1), (2, 1)]
