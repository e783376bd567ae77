"""The baseline's files: copies of the store's versions, of one version at every instant, and nothing edited escapes."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from orchestration.baseline import copies, history
from orchestration.baseline.version import Kind, Provenance, Version, broken_links, following
from orchestration.errors import Usage
from orchestration.promotions.baseline import Accepted, BaselineInvalid, read_baseline
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


@pytest.fixture
def db(kernel_db: Database) -> Database:
    return kernel_db


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baseline"


def made(cycle: int = 1) -> Provenance:
    return Provenance(at=NOW, actor="kloros", kind=Kind.CYCLE, reason=f"cycle {cycle}", cycle=cycle)


def commit(db: Database, folder: Path, cycle: int, **changes: float) -> Version:
    with db.transaction():
        accepted = [Accepted(stem=f"p{cycle}", changes=changes, fitness=0.5)]
        version = history.take_in(db, accepted, made(cycle), state_dir=str(folder.parent))
    assert version is not None
    return version


def shown(folder: Path) -> tuple[object, object, object]:
    document = read_baseline(str(folder / "baseline.json"))
    assert document is not None
    manifest = json.loads((folder / "manifest.json").read_text())
    return yaml.safe_load((folder / "baseline.yaml").read_bytes()), manifest["version"], document.parameters


def test_what_is_committed_is_in_force_and_every_version_stays(db: Database, folder: Path) -> None:
    commit(db, folder, 1, a=1)
    commit(db, folder, 2, b=2)
    assert [version.version for version in copies.bring_up(db, str(folder))] == [1, 2]
    assert copies.bring_up(db, str(folder)) == []
    assert shown(folder) == ({"a": 1, "b": 2}, 2, {"a": 1, "b": 2})
    assert sorted(os.listdir(folder / "versions")) == ["baseline_v0001.yaml", "baseline_v0002.yaml"]
    assert yaml.safe_load((folder / "versions" / "baseline_v0001.yaml").read_bytes()) == {"a": 1}
    assert sorted(os.listdir(folder)) == [".v0002", "baseline.json", "baseline.yaml", "current", "manifest.json", "versions"]
    assert copies.verify(db, str(folder)) == []


def test_a_version_follows_the_newest_one_or_is_refused(db: Database, folder: Path) -> None:
    first = commit(db, folder, 1, a=1)
    commit(db, folder, 2, a=2)
    with pytest.raises(history.BaselineMoved), db.transaction():
        history.append(db, following(first, made(3), {"a": 3}))
    assert [version.parameters for version in history.every(db)] == [{"a": 1}, {"a": 2}]


def test_a_rollback_is_a_new_version(db: Database, folder: Path) -> None:
    commit(db, folder, 1, a=1)
    commit(db, folder, 2, a=2)
    with db.transaction():
        back = history.put_back(db, 1, made(3))
    assert (back.version, back.parameters) == (3, {"a": 1})
    copies.bring_up(db, str(folder))
    assert shown(folder) == ({"a": 1}, 3, {"a": 1})
    with pytest.raises(Usage, match="in force"), db.transaction():
        history.put_back(db, 3, made(4))
    with pytest.raises(Usage, match="no baseline version 9"), db.transaction():
        history.put_back(db, 9, made(4))


def test_a_baseline_from_before_the_versions_is_the_first_one(db: Database, folder: Path) -> None:
    folder.mkdir()
    older = {"schema": "v1", "parameters": {"a": 7, "c": 3}, "fitness": 0.4, "cycle": 0, "promotions": [], "ts": 1}
    (folder / "baseline.json").write_text(json.dumps(older))
    commit(db, folder, 5, a=8)
    first, second = history.every(db)
    assert (first.provenance.kind, first.parameters, first.provenance.cycle) == (Kind.IMPORTED, {"a": 7, "c": 3}, None)
    assert second.parameters == {"a": 8, "c": 3}
    copies.bring_up(db, str(folder))
    assert shown(folder) == ({"a": 8, "c": 3}, 2, {"a": 8, "c": 3})


FILES = ("baseline.yaml", "manifest.json", "baseline.json", "versions/baseline_v0001.yaml", "versions/baseline_v0002.yaml")


@pytest.mark.parametrize("name", FILES)
def test_an_edited_byte_anywhere_is_found_and_mended_and_what_was_edited_is_kept(
    db: Database, folder: Path, name: str
) -> None:
    commit(db, folder, 1, a=1)
    commit(db, folder, 2, a=2)
    copies.bring_up(db, str(folder))
    whole = (folder / name).read_bytes()
    for at in range(len(whole)):
        (folder / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        (fault,) = copies.verify(db, str(folder))
        assert fault == f"{folder / name} was edited: it differs from byte {at} on"
    assert copies.restore(db, str(folder)) == [str(folder / name)]
    assert copies.verify(db, str(folder)) == []
    assert (folder / name).read_bytes() == whole
    (kept,) = folder.rglob("*.edited")
    assert kept.read_bytes()[:-1] == whole[:-1]


def test_an_edited_row_is_found_and_no_file_is_made_after_it(folder: Path, tmp_path: Path) -> None:
    db = SqliteDatabase(str(tmp_path / "kloros.db"))
    commit(db, folder, 1, a=1)
    commit(db, folder, 2, a=2)
    copies.bring_up(db, str(folder))
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with closing(sqlite3.connect(tmp_path / "kloros.db")) as connection, connection:
        connection.execute("""UPDATE baseline_versions SET parameters = '{"a": 5}'""")
    assert copies.verify(db, str(folder)) == []  # the files are right
    faults = broken_links(history.every(db))
    assert [fault.partition(" was changed in the store")[0] for fault in faults] == ["version 1", "version 2"]
    with pytest.raises(BaselineInvalid, match="version 2 was changed in the store"):
        copies.check_in_force(db, str(folder))
    assert copies.restore(db, str(folder)) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files

    lost = folder / "versions" / "baseline_v0001.yaml"
    lost.write_text("a: 5\n")
    (folder / "current" / "baseline.yaml").write_text("a: 5\n")
    assert copies.verify(db, str(folder)) == [
        f"{lost} is not version 1 as it was committed",
        f"{folder / 'baseline.yaml'} is not version 2 as it was committed",
    ]
    assert copies.restore(db, str(folder)) == []  # nobody knows what to write


def test_a_file_of_no_version_is_found_and_put_aside(db: Database, folder: Path) -> None:
    """As it is left when the store is set back to a copy from before it."""
    commit(db, folder, 1, a=1)
    copies.bring_up(db, str(folder))
    stray = folder / "versions" / "baseline_v0002.yaml"
    stray.write_text("a: 2\n")
    assert copies.verify(db, str(folder)) == [f"{stray} is of no version that the store has"]
    assert copies.restore(db, str(folder)) == [str(stray)]
    assert copies.verify(db, str(folder)) == []
    assert stray.with_name(f"{stray.name}.edited").read_text() == "a: 2\n"


def test_a_missing_file_is_found_and_made_again(db: Database, folder: Path) -> None:
    commit(db, folder, 1, a=1)
    copies.bring_up(db, str(folder))
    (folder / "current").unlink()
    (folder / "versions" / "baseline_v0001.yaml").unlink()
    assert len(copies.verify(db, str(folder))) == 4
    copies.restore(db, str(folder))
    assert copies.verify(db, str(folder)) == []


@pytest.fixture
def many(db: Database, folder: Path) -> list[Version]:
    """Fifteen versions, whose files are in place."""
    for number in range(1, 16):
        commit(db, folder, number, a=number)
    return copies.bring_up(db, str(folder))


def retire(db: Database, folder: Path, *, keep: int = 10, limit: int = 100) -> list[str]:
    gone = [Path(path) for path in copies.retire(db, str(folder), keep=keep, at=NOW, limit=limit)]
    for path in gone:
        path.unlink()
    return [path.name for path in gone]


def test_old_files_go_and_their_versions_stay(db: Database, folder: Path, many: list[Version]) -> None:
    assert len(copies.retirable(db, str(folder), keep=10)) == 5
    assert retire(db, folder, limit=3) == [f"baseline_v000{n}.yaml" for n in (1, 2, 3)]
    assert copies.verify(db, str(folder)) == []
    assert retire(db, folder) == ["baseline_v0004.yaml", "baseline_v0005.yaml"]
    assert retire(db, folder) == []
    assert len(os.listdir(folder / "versions")) == 10
    assert copies.verify(db, str(folder)) == []
    assert copies.restore(db, str(folder)) == []
    assert history.every(db) == many
    with db.transaction():
        assert history.put_back(db, 1, made(16)).parameters == {"a": 1}


def test_one_more_that_is_gone_is_still_found(db: Database, folder: Path, many: list[Version]) -> None:
    retire(db, folder)
    lost = folder / "versions" / "baseline_v0006.yaml"
    lost.unlink()
    assert copies.verify(db, str(folder)) == [f"{lost} can't be read: No such file or directory"]
    assert copies.restore(db, str(folder)) == [str(lost)]
    assert copies.verify(db, str(folder)) == []


def test_an_edited_file_is_not_let_go_and_stays_found(db: Database, folder: Path, many: list[Version]) -> None:
    edited = folder / "versions" / "baseline_v0002.yaml"
    edited.write_bytes(edited.read_bytes() + b"# mine\n")
    assert edited.name not in retire(db, folder)
    assert [fault.partition(" was edited")[0] for fault in copies.verify(db, str(folder))] == [str(edited)]
    assert copies.restore(db, str(folder)) == [str(edited)]
    assert (edited.exists(), edited.with_name(f"{edited.name}.edited").exists()) == (False, True)
    assert copies.verify(db, str(folder)) == []


def test_noted_and_not_removed_yet_is_in_order_and_goes_the_next_time(
    db: Database, folder: Path, many: list[Version]
) -> None:
    assert len(copies.retire(db, str(folder), keep=10, at=NOW, limit=100)) == 5  # killed before the first was removed
    assert copies.verify(db, str(folder)) == []
    assert len(retire(db, folder)) == 5
