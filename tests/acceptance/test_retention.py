"""Ticks prune a little each time; an operator looks first, pins what to keep, and prunes at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host, script

AT_ONCE = {"KLR_RETENTION_KEEP_LAST": "1", "KLR_RETENTION_KEEP_FOR": "0"}


@pytest.fixture
def ran(host: Host, tmp_path: Path) -> Host:
    """A host with five settled cycles, the second of which set the baseline."""
    host.stepwise()
    for number in range(1, 6):
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0" if number == 2 else "exit 3"]))
        host.set(KLR_DREAM_BACKOFF="0")
        host.promote("a") if number == 2 else host.intend("trigger_dream", reason=str(number))
        host.decided()
        host.run_queued()
    assert len(host.rows("SELECT 1 FROM cycles WHERE settled_at IS NOT NULL")) == 5
    return host


def folders(host: Host) -> list[int]:
    return sorted(int(path.name[-5:]) for path in (host.state / "cycles").iterdir())


def contents(host: Host) -> dict[str, tuple[bytes, int]]:
    """Every file but the two that SQLite keeps beside a store that somebody, this test included, has open."""
    return {name: found for name, found in host.file_contents().items() if not name.endswith(("-wal", "-shm"))}


def test_a_tick_prunes_a_little(ran: Host) -> None:
    ran.decided()
    assert folders(ran) == [1, 2, 3, 4, 5]
    ran.set(**AT_ONCE)
    ran.decided()
    assert folders(ran) == [2, 3, 4, 5]
    ran.decided()
    ran.decided()
    assert folders(ran) == [2, 5]
    assert ran.counter("kloros_cycles_pruned_total") == 3
    assert "kloros_cycles_pruned_total 3.0" in ran.textfile.read_text()
    assert len(ran.rows("SELECT 1 FROM cycles")) == 5


def test_none_a_tick(ran: Host) -> None:
    ran.set(**AT_ONCE, KLR_RETENTION_PER_TICK="0")
    ran.decided()
    assert folders(ran) == [1, 2, 3, 4, 5]


def test_a_tick_does_not_fail_because_of_it(ran: Host) -> None:
    ran.set(**AT_ONCE)
    ran.change("DELETE FROM baseline_versions")  # as a release without versions left it
    (ran.state / "baseline" / "baseline.json").write_text("broken")
    done = ran.tick()
    assert done.returncode == Exit.DONE
    assert "nothing could be pruned" in done.stderr
    assert folders(ran) == [1, 2, 3, 4, 5]


def test_an_operator_looks_first_and_changes_no_byte(ran: Host) -> None:
    ran.set(**AT_ONCE)
    before = contents(ran)
    shown = json.loads(ran.run("klorosctl", "prune", "--dry-run", "--json").stdout)
    assert [one["cycle"] for one in shown["would_remove"]] == [1, 3, 4]
    assert all(one["bytes"] > 0 for one in shown["would_remove"])
    assert shown["held"] == {"2": "the baseline is of this cycle"}
    assert "would go" in ran.run("klorosctl", "prune", "--dry-run").stdout
    assert contents(ran) == before


def test_pinned_pruned_unpinned(ran: Host) -> None:
    ran.set(**AT_ONCE, KLR_RETENTION_PER_TICK="0")
    assert ran.run("klorosctl", "pin", "3", "--reason", "for the audit").returncode == 0
    assert ran.rows("SELECT cycle, reason FROM pins") == [(3, "for the audit")]
    done = json.loads(ran.run("klorosctl", "prune", "--json").stdout)
    assert [one["cycle"] for one in done["removed"]] == [1, 4]
    assert folders(ran) == [2, 3, 5]
    refused = ran.run("klorosctl", "unpin", "5")
    assert (refused.returncode, "pinned are 3" in refused.stderr) == (Exit.USAGE, True)
    assert ran.run("klorosctl", "unpin", "3").returncode == 0
    assert "gone" in ran.run("klorosctl", "prune").stdout
    assert folders(ran) == [2, 5]
    assert ran.run("klorosctl", "show", "3").returncode == 0
    late = ran.run("klorosctl", "pin", "3")
    assert (late.returncode, "gone from disk already" in late.stderr) == (Exit.USAGE, True)


def test_nothing_to_prune(ran: Host) -> None:
    assert "Nothing to remove: beyond the last 200 cycles" in ran.run("klorosctl", "prune").stdout


def test_while_a_tick_is_at_work(ran: Host) -> None:
    from orchestration.host.lock import FileLock

    with FileLock(str(ran.state / "locks" / "orchestrator.lock")).held("test"):
        assert ran.run("klorosctl", "prune").returncode == Exit.LOCK_HELD
