"""Bundles: the same folder gives the same bytes, what goes in comes out, and nothing that is forged gets in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.cycles import bundle, inventory, unbundling
from orchestration.cycles.archive import Limits
from orchestration.cycles.links import stays_inside
from orchestration.errors import KlorosError, Malformed, Unwritable
from orchestration.host import folders

NAME = "cycle_00007"
FORMS = [bundle.ZSTD, bundle.GZIP]


def tree(folder: Path) -> dict[bytes, tuple[str, object, int]]:
    """Tell everything below a folder that a bundle keeps."""
    found: dict[bytes, tuple[str, object, int]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        name = os.fsencode(path.relative_to(folder))
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("link", os.readlink(path), 0)
        elif path.is_dir():
            found[name] = ("folder", None, status.st_mode & 0o755 | 0o700)
        else:
            found[name] = ("file", path.read_bytes(), status.st_mode & 0o755 | 0o600)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cycles" / NAME
    (made / "artifacts" / "empty").mkdir(parents=True)
    (made / "artifacts" / "report.json").write_text("{}\n")
    (made / "artifacts" / "run.sh").write_text("#!/bin/sh\n")
    (made / "artifacts" / "run.sh").chmod(0o755)
    (made / "artifacts" / "latest").symlink_to("report.json")
    return made


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_as_other_tools_see_it(folder: Path, tmp_path: Path, form: str) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"), form=form)
    assert made.path == str(tmp_path / "out" / f"{NAME}{form}")
    assert sorted(os.listdir(tmp_path / "out")) == [f"{NAME}{form}", f"{NAME}{form}.sha256"]
    subprocess.run(["sha256sum", "--strict", "-c", f"{NAME}{form}.sha256"], cwd=tmp_path / "out", check=True)
    content = Path(made.path).read_bytes()
    if form == bundle.ZSTD:
        import zstandard

        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    else:
        assert content[4:8] == b"\0\0\0\0", "gzip's own time"
        content = gzip.decompress(content)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path / "there", filter="data")
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 315532800)}
    assert tree(tmp_path / "there" / NAME) == tree(folder)


NAMES = st.one_of(
    st.sampled_from(["a", "b", "manifest.txt", "é", "x" * 120, ".hidden", " ", "-rf", "\udcff\udcfe", "new\nline"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..")
    ),
)
TARGETS = st.lists(st.sampled_from(["a", "b", "..", ".", "é", "y" * 110]), min_size=1, max_size=4).map("/".join)
LEAVES = st.one_of(st.binary(max_size=2000), TARGETS.map(lambda target: ("link", target)))
TREES = st.recursive(LEAVES, lambda inside: st.dictionaries(NAMES, inside, max_size=4), max_leaves=12)


def grow(place: Path, what: Any, mode: int) -> None:
    if isinstance(what, bytes):
        place.write_bytes(what)
        place.chmod(mode)
    elif isinstance(what, tuple):
        place.symlink_to(what[1])
    else:
        place.mkdir()
        for name, inside in what.items():
            grow(place / name, inside, mode)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(NAMES, TREES, max_size=5), st.sampled_from(FORMS), st.sampled_from([0o600, 0o644, 0o755, 0o777]))
def test_any_tree_comes_out_as_it_went_in_and_twice_the_same(contents: dict[str, Any], form: str, mode: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        one, two, to = Path(top) / "one" / NAME, Path(top) / "two" / NAME, Path(top) / "to"
        for place in (one, two):
            place.parent.mkdir()
            grow(place, contents, mode)
            os.utime(place, (hash(str(place)) % 1000, 5))
        first = bundle.make(str(one), str(one.parent / "out"), form=form)
        second = bundle.make(str(two), str(two.parent / "out"), form=form)
        assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
        extracted = Path(unbundling.extract(first.path, str(to)))
        expected = tree(one)
        links = {
            tuple(os.fsdecode(path).split("/")): str(what) for path, (kind, what, _) in expected.items() if kind == "link"
        }
        for path in links:
            if not stays_inside(path, links):
                del expected[os.fsencode("/".join(path))]
        assert tree(extracted) == expected
        assert os.listdir(to) == [NAME]


def test_a_deep_tree(tmp_path: Path) -> None:
    place = tmp_path / NAME
    place.mkdir()
    for _ in range(1099):
        place /= "d"
        place.mkdir()
    (place / "leaf").touch()
    made = bundle.make(str(tmp_path / NAME), str(tmp_path / "out"))
    assert unbundling.verify(made.path).entries == 1101
    assert len(inventory.take(str(tmp_path / NAME)).files) == 1
    unbundling.extract(made.path, str(tmp_path / "to"))
    for top in (tmp_path / NAME, tmp_path / "to"):
        folders.remove(str(top))
        assert not top.exists()


def test_what_no_reader_would_take_is_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to("../../secret")
    (folder / "passwd").symlink_to("/etc/passwd")
    made = bundle.make(str(folder), str(tmp_path / "out"))
    assert sorted(path for path, _ in made.left_out) == ["out", "passwd", "pipe"]
    extracted = Path(unbundling.extract(made.path, str(tmp_path / "to")))
    assert sorted(os.listdir(extracted)) == ["artifacts"]


def test_a_manifest_that_is_being_written_is_not_in_it(folder: Path, tmp_path: Path) -> None:
    (folder / ".manifest.json.1.2.tmp").touch()
    assert bundle.make(str(folder), str(tmp_path / "out")).entries == 6


def test_one_form_takes_the_place_of_the_other(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bundle.make(str(folder), str(out), form=bundle.GZIP)
    bundle.make(str(folder), str(out), form=bundle.ZSTD)
    assert sorted(os.listdir(out)) == [f"{NAME}.tar.zst", f"{NAME}.tar.zst.sha256"]
    assert bundle.path_of(NAME, str(out)) == str(out / f"{NAME}.tar.zst")
    bundle.discard(NAME, str(out))
    assert os.listdir(out) == []
    assert bundle.path_of(NAME, str(out)) is None


def test_a_failure_leaves_the_older_bundle_and_no_litter(folder: Path, tmp_path: Path) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"))
    before = Path(made.path).read_bytes()
    (folder / "big").write_bytes(b"x" * 3_000_000)

    def shrink(_: int) -> None:
        os.truncate(folder / "big", 10)

    with pytest.raises(Malformed, match="shorter"):
        bundle.make(str(folder), str(tmp_path / "out"), progress=shrink)
    assert Path(made.path).read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out")) == [f"{NAME}.tar.zst", f"{NAME}.tar.zst.sha256"]
    assert unbundling.verify(made.path).folder == NAME


def test_temporary_files_of_the_dead_go(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".{NAME}.tar.gz.999999999.5.tmp").touch()
    bundle.make(str(folder), str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == [f"{NAME}.tar.zst", f"{NAME}.tar.zst.sha256"]


def test_verify_compares_with_the_manifest(folder: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"{}\n").hexdigest()
    listed = [
        {"path": "artifacts/report.json", "size": 3, "sha256": digest, "media_type": "application/json"},
        {"path": "artifacts/latest", "size": None, "sha256": None, "media_type": "inode/symlink"},
    ]
    (folder / "manifest.json").write_text(json.dumps({"artifacts": listed, "telemetry": None}))
    assert unbundling.verify(bundle.make(str(folder), str(tmp_path / "out")).path).listed == 1
    (folder / "artifacts" / "report.json").write_text("{ }\n")
    with pytest.raises(Malformed, match=r"report\.json' is another"):
        unbundling.verify(bundle.make(str(folder), str(tmp_path / "out")).path)
    (folder / "artifacts" / "report.json").unlink()
    with pytest.raises(Malformed, match=r"report\.json' is missing"):
        unbundling.verify(bundle.make(str(folder), str(tmp_path / "out")).path)


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


TOP = member(NAME, type=tarfile.DIRTYPE)


def forged(path: Path, *members: tuple[tarfile.TarInfo, bytes], tail: bytes = b"", form: int = tarfile.PAX_FORMAT) -> str:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return sealed(path, gzip.compress(raw.getvalue() + tail))


def sealed(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    Path(f"{path}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")
    return str(path)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


BAD = {
    "is an absolute name": [TOP, member("/etc/evil", b"x")],
    "leads out of the folder": [TOP, member(f"{NAME}/../../evil", b"x")],
    "is no name that we would write": [TOP, member(f"{NAME}//evil", b"x")],
    "is no name that we": [TOP, member(f"{NAME}/{'x' * 300}", b"x")],
    "leads out of its folder": [TOP, link(f"{NAME}/up", "../../evil")],
    "'up' leads out": [TOP, link(f"{NAME}/up", "/etc/passwd")],
    "'x' leads out": [TOP, link(f"{NAME}/here", "."), link(f"{NAME}/x", "here/../../evil")],
    "something that is no folder": [TOP, link(f"{NAME}/here", "."), member(f"{NAME}/here/evil", b"x")],
    "is a hard link": [TOP, link(f"{NAME}/evil", "/etc/passwd", tarfile.LNKTYPE)],
    "is a device node": [TOP, member(f"{NAME}/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "'cycle_00007/sda' is a device node": [TOP, member(f"{NAME}/sda", type=tarfile.BLKTYPE)],
    "is a pipe": [TOP, member(f"{NAME}/pipe", type=tarfile.FIFOTYPE)],
    "is in it twice": [TOP, member(f"{NAME}/a", b"x"), member(f"{NAME}/a", b"y")],
    "below nothing": [TOP, member("other/evil", b"x")],
    "and not with a folder": [member(NAME, b"x")],
    "is no cycle's folder": [member("home", type=tarfile.DIRTYPE)],
    "has an impossible size": [TOP, member(f"{NAME}/a", b"x" * 512, type=tarfile.DIRTYPE)],
    "an extended header that we don't write": [TOP, member(f"{NAME}/a", b"x", pax_headers={"GNU.sparse.map": "0,1"})],
    "of a form that we don't write": [TOP, member(f"{NAME}/a", type=tarfile.CONTTYPE)],
    "'cycle_00007/sparse' has a header of a form": [TOP, member(f"{NAME}/sparse", type=tarfile.GNUTYPE_SPARSE)],
    "extended header of a form": [TOP, member(f"{NAME}/a", b"x", pax_headers={"path": "a" * 70000})],
    "is empty": [],
    "its manifest.json is none of ours": [TOP, member(f"{NAME}/manifest.json", b"[" * 100_000)],
    "manifest.json is none": [TOP, member(f"{NAME}/manifest.json", b"[1]")],
}


@pytest.mark.parametrize(("told", "members"), BAD.items(), ids=BAD)
def test_what_is_forged_is_refused_and_writes_nothing(
    told: str, members: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    path = forged(tmp_path / f"{NAME}.tar.gz", *members)
    for read in (unbundling.verify, lambda path: unbundling.extract(path, str(tmp_path / "a" / "b"))):
        with pytest.raises(Malformed) as refused:
            read(path)
        assert told in str(refused.value)
        assert refused.value.message.startswith(path)
    assert sorted(os.listdir(tmp_path)) == [f"{NAME}.tar.gz", f"{NAME}.tar.gz.sha256"]


def test_names_in_gnu_tars_own_way_are_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "b.tar.gz", TOP, member(f"{NAME}/{'y' * 150}", b"x"), form=tarfile.GNU_FORMAT)
    with pytest.raises(Malformed, match="a header of a form that we don't write"):
        unbundling.verify(path)


def test_set_uid_and_others_permission_to_write_do_not_come_out(tmp_path: Path) -> None:
    path = forged(
        tmp_path / "b.tar.gz", member(NAME, type=tarfile.DIRTYPE, mode=0o7777), member(f"{NAME}/su", b"x", mode=0o6777)
    )
    extracted = Path(unbundling.extract(path, str(tmp_path / "to")))
    assert [one.stat().st_mode & 0o7777 for one in (extracted, extracted / "su")] == [0o755, 0o755]


@pytest.mark.parametrize("tail", [b"\0" * 512 + b"x" * 512, b"hidden"])
def test_something_after_the_end(tmp_path: Path, tail: bytes) -> None:
    with pytest.raises(Malformed, match="something follows"):
        unbundling.verify(forged(tmp_path / "b.tar.gz", TOP, tail=tail))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = forged(tmp_path / "b.tar.gz", TOP, member(f"{NAME}/zeros", b"\0" * 5_000_000))
    with pytest.raises(Malformed, match="more than 1000000 bytes, from 'cycle_00007/zeros'") as refused:
        unbundling.extract(path, str(tmp_path / "to"), limits=Limits(size=1_000_000))
    assert "--max-bytes" in refused.value.hint
    assert unbundling.verify(path, limits=Limits(size=6_000_000)).size == 5_000_000
    assert not (tmp_path / "to").exists()
    with pytest.raises(Malformed, match="more than 1 entries"):
        unbundling.verify(path, limits=Limits(entries=1))


def test_a_bomb_behind_the_end(tmp_path: Path) -> None:
    path = forged(tmp_path / "b.tar.gz", TOP, tail=b"\0" * 5_000_000)
    with pytest.raises(Malformed, match="more than 1000000 bytes"):
        unbundling.verify(path, limits=Limits(size=1_000_000))


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_or_cut_bundle(folder: Path, tmp_path: Path, form: str) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"), form=form)
    content = Path(made.path).read_bytes()
    for broken in (content[:-20], content[:60] + b"!" + content[61:], b"", content + b"x"):
        Path(made.path).write_bytes(broken)
        with pytest.raises(Malformed, match="not what its checksum says"):
            unbundling.verify(made.path)
        if broken != content + b"x" or form == bundle.GZIP:
            with pytest.raises(Malformed):
                unbundling.verify(sealed(Path(made.path), broken))
        Path(f"{made.path}.sha256").write_text(f"{made.sha256}  {NAME}{form}\n")


@pytest.mark.parametrize("line", ["", "nonsense\n", f"{'0' * 64}  other.tar.zst\n"])
def test_no_bundle_without_its_checksum(folder: Path, tmp_path: Path, line: str) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"))
    Path(f"{made.path}.sha256").write_text(line)
    with pytest.raises(Malformed, match="is missing, or is no checksum of it"):
        unbundling.verify(made.path)


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"))
    (tmp_path / "to" / NAME).mkdir(parents=True)
    with pytest.raises(KlorosError, match="there already"):
        unbundling.extract(made.path, str(tmp_path / "to"))
    assert os.listdir(tmp_path / "to" / NAME) == []


def no_bundle(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "told"),
    [(os.mkfifo, "no regular file"), (no_bundle, "no regular file"), (lambda path: None, "can't be read: No such file")],
)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None], told: str) -> None:
    make(tmp_path / "b.tar.gz")
    with pytest.raises(KlorosError, match=told):
        unbundling.verify(str(tmp_path / "b.tar.gz"))


def test_a_full_disk_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    made = bundle.make(str(folder), str(tmp_path / "out"))
    (tmp_path / "file").touch()
    with pytest.raises(Unwritable):
        unbundling.extract(made.path, str(tmp_path / "file" / "to"))
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").touch()
    with pytest.raises(Unwritable):
        bundle.make(str(folder), str(tmp_path / "out"))
