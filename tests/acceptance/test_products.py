"""What a cycle leaves: the manifest and all that it says, whoever writes it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.cycles.cycle import CycleState
from orchestration.exits import Exit
from orchestration.host import process_identity
from tests.acceptance.test_run_cycle import World

LEAVES = """
mkdir artifacts/model
printf weights > artifacts/model/w.bin
printf '{"step": 1}\\n' > logs/steps.jsonl
printf scratch > scratch.txt
ln -s model artifacts/latest
echo "id $CYCLE_ID"
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.environ["SOME_SECRET"] = "hunter2"
    yield made
    made.db.close()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_manifest_says_what_ran_where_and_what_it_left(world: World) -> None:
    number = world.queue_script(LEAVES)
    assert world.run() == Exit.DONE
    found = world.manifest(number)
    assert (found["schema"], found["cycle"], found["job"], found["state"]) == ("v1", number, "dream", "succeeded")
    assert found["command"] == ["sh", "-c", LEAVES]
    assert (found["host"], found["boot_id"]) == (os.uname().nodename, process_identity.boot_id())
    assert found["revision"] is None
    assert found["resources"]["wall_seconds"] > 0
    assert found["resources"]["peak_bytes"] > 0
    assert found["artifacts"] == [
        {"path": "artifacts/latest", "size": None, "sha256": None, "media_type": "inode/symlink"},
        {
            "path": "artifacts/model/w.bin",
            "size": 7,
            "sha256": sha(b"weights"),
            "media_type": "application/octet-stream",
        },
    ]
    (telemetry,) = found["telemetry"]
    assert (telemetry["path"], telemetry["sha256"]) == ("logs/steps.jsonl", sha(b'{"step": 1}\n'))
    output = f"id {number}\n".encode()
    assert [(log["path"], log["sha256"]) for log in found["logs"]] == [("logs/output.log", sha(output))]
    assert [other["path"] for other in found["others"]] == ["promotions.json", "scratch.txt"]
    assert found["files_omitted"] == 0


def test_the_telemetry_that_a_command_wrote_is_kept_with_its_end(world: World) -> None:
    number = world.queue_script("""echo '{"joy": 1, "n": {"x": 2}}
    torn
    {"joy": 3}' > logs/steps.jsonl; exit 3""")
    assert world.run() == Exit.DONE
    (row,) = world.db.rows("records.line", cycle=number)
    assert row["state"] == CycleState.FAILED
    assert json.loads(str(row["telemetry"])) == {"series": {"joy": [3, 2, 1, 3, 4], "n.x": [2, 1, 2, 2, 2]}, "damaged": 1}


def test_the_environment_is_told_by_name_only(world: World) -> None:
    number = world.queue_script("true")
    assert world.run() == Exit.DONE
    names = world.manifest(number)["environment"]
    assert {"PATH", "SOME_SECRET", "CYCLE_ID", "KLR_CYCLE", "KLR_CYCLE_TOKEN", "KLR_TOPIC"} <= set(names)
    assert names == sorted(names)
    assert b"hunter2" not in (world.folder(number) / "manifest.json").read_bytes()


def test_the_revision_is_that_of_the_commands_tree(world: World, tmp_path: Path) -> None:
    (tmp_path / "tree" / ".git").mkdir(parents=True)
    (tmp_path / "tree" / ".git" / "HEAD").write_text("5" * 40 + "\n")
    (tmp_path / "tree" / "run.sh").touch()
    number = world.queue("sh", str(tmp_path / "tree" / "run.sh"))
    assert world.run() == Exit.DONE
    assert world.manifest(number)["revision"] == "5" * 40


def test_a_tick_repairs_the_manifest_to_the_byte(world: World) -> None:
    number = world.queue_script(LEAVES)
    assert world.run() == Exit.DONE
    path = world.folder(number) / "manifest.json"
    written = path.read_bytes()
    path.unlink()
    (world.folder(number) / "artifacts" / "late").touch()
    assert world.run("run_once") == Exit.DONE
    assert path.read_bytes() == written
    assert world.cycle(number).settled_at is not None


def test_a_failed_cycle_tells_what_it_left(world: World) -> None:
    number = world.queue_script("touch artifacts/half; exit 3")
    assert world.run() == Exit.DONE
    assert [one["path"] for one in world.manifest(number)["artifacts"]] == ["artifacts/half"]


def test_a_cycle_that_never_began_claims_nothing_of_an_older_folder(world: World) -> None:
    number = world.queue_script("true")
    (world.folder(number) / "artifacts").mkdir(parents=True)
    (world.folder(number) / "artifacts" / "old").touch()
    world.db.run("cycles.ask_cancel", cycle=number, now="2026-11-21T00:00:00.000000Z")
    assert world.run() == Exit.DONE
    found = world.manifest(number)
    assert (found["state"], found["artifacts"], found["environment"]) == ("cancelled", [], None)


def test_what_a_lost_cycle_left_is_unknown(world: World) -> None:
    number = world.queue_script("touch artifacts/half; kill -9 $(awk '{print $4}' /proc/$PPID/stat); sleep 600")
    world.run()
    assert world.run("run_once") == Exit.DONE
    assert world.end(number)[0] is CycleState.LOST
    found = json.loads((world.folder(number) / "manifest.json").read_bytes())
    assert (found["artifacts"], found["telemetry"], found["files_omitted"]) == (None, None, None)
    assert "CYCLE_ID" in found["environment"]
