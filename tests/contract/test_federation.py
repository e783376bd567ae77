"""Copies of bundles: the same promises on a folder, on S3, by SFTP, and on a store that can't compare."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from orchestration.configuration import load
from orchestration.cycles import federation, retention
from orchestration.cycles.cycle import CycleNumber
from orchestration.cycles.remote import Remote, public, remote
from orchestration.host import clock
from orchestration.settings import Settings
from orchestration.store.instants import to_text
from orchestration.store.sqlite import SqliteDatabase

ENDED = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT_ONCE = {"KLR_FEDERATION_BACKOFF": "0"}
FEDERATE = """
import os, sys
from orchestration.configuration import load
from orchestration.cycles.federation import federate
from orchestration.store.sqlite import SqliteDatabase
settings = load(os.environ)
done = federate(SqliteDatabase(settings.state_dir + "/kloros.db"), settings)
print(sorted(done.sent), done.failed)
"""


class Origin:
    """A state folder with ended cycles whose bundles are to be copied."""

    def __init__(self, home: Path, target: str, options: dict[str, Any] | None = None, **environ: str) -> None:
        self.home, self.target, self.options = home, target, options or {}
        home.mkdir()
        (home / "state").mkdir()
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.options.items()]
        (home / "settings.toml").write_text(
            "\n".join((f'[federation]\ntarget = "{target}"', "[federation.options]", *lines))
        )
        self.environ = {
            "KLR_STATE_DIR": str(home / "state"),
            "KLR_CONFIG": str(home / "settings.toml"),
            **AT_ONCE,
            **environ,
        }
        self.db = SqliteDatabase(str(home / "state" / "kloros.db"))

    @property
    def settings(self) -> Settings:
        return load(self.environ)

    def cycle(self, number: int, content: bytes = b"x", *, ask: bool = True) -> None:
        ended = to_text(ENDED)
        with sqlite3.connect(self.home / "state" / "kloros.db") as raw:
            raw.execute(
                "INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at,"
                " started_at, ended_at, settled_at) VALUES (?, 'dream', 'succeeded', ?, 'intent', ?, '[]', 1, ?, ?, ?, ?)",
                (number, str(number), json.dumps({"cause": "intent", "tick_id": "t", "promotions": []}), *[ended] * 4),
            )
        raw.close()
        folder = self.home / "state" / "cycles" / f"cycle_{number:05d}" / "artifacts"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(content)
        if ask:
            self.db.run("federation.ask", cycle=number, now=ended)

    def federate(self) -> federation.Done:
        return federation.federate(self.db, self.settings)

    def process(self, code: str = FEDERATE) -> subprocess.Popen[str]:
        environ = {**os.environ, **self.environ}
        return subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)

    def place(self) -> Remote:
        return remote(self.target, self.options, writer="test")

    def index(self) -> dict[str, Any]:
        found = self.place().read("index.json")
        assert found is not None
        entries: dict[str, Any] = json.loads(found.content)["entries"]
        return entries

    def row(self, number: int) -> dict[str, Any]:
        (row,) = self.db.rows("federation.get", cycle=number)
        return {name: row[name] for name in row.keys()}  # noqa: SIM118 (a Row is no dict)

    def counted(self) -> dict[str, float]:
        found = {
            str(row["labels"]): row["value"] for row in self.db.rows("counters.all") if "federation" in str(row["name"])
        }
        return {labels.split('"')[1]: float(str(value)) for labels, value in found.items()}

    def assert_canonical(self, cycles: int) -> None:
        """Everything listed is there, and whole; nothing else is; every cycle of this origin is listed."""
        place, index, name = self.place(), self.index(), federation.origin(self.db)
        assert index.keys() == place.names("entries")
        for entry in index.values():
            copy = place.read(entry["bundle"])
            assert copy is not None
            assert (len(copy.content), hashlib.sha256(copy.content).hexdigest()) == (entry["size"], entry["sha256"])
        assert {entry["bundle"] for entry in index.values()} == place.names("bundles")
        assert sorted(entry["cycle"] for entry in index.values() if entry["origin"] == name) == list(range(1, cycles + 1))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3, on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")}
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
    yield f"http://{host}:{port}"
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture
def bucket(s3: str) -> tuple[str, dict[str, str]]:
    """A fresh bucket: its URL, and the options that lead to it."""
    name = f"kloros-{os.urandom(6).hex()}"
    fsspec.filesystem("s3", endpoint_url=s3, skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/copies", {"endpoint_url": s3}


class Sshd:
    """An OpenSSH server of ours on loopback, which lets in whoever has the key."""

    def __init__(self, folder: Path) -> None:
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # for its privilege separation; Debian's unit makes it too
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nPermitRootLogin yes\n"
            "PasswordAuthentication no\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        )
        self.key, self.known_hosts = folder / "user_key", folder / "known_hosts"
        public_key = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key}\n")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"], stderr=log)
        deadline = clock.monotonic() + 20
        while self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as made:
                assert made.recv(4) == b"SSH-"
                return
            assert clock.monotonic() < deadline, (folder / "log").read_text()
        raise AssertionError((folder / "log").read_text())

    def target(self, folder: Path) -> str:
        return f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{folder}"

    def options(self) -> dict[str, Any]:
        own = {"key_filename": str(self.key), "known_hosts": str(self.known_hosts)}
        return {**own, "allow_agent": False, "look_for_keys": False}

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if not Path("/usr/sbin/sshd").exists():
        pytest.fail("no sshd: apt-get install openssh-server") if os.environ.get("CI") == "true" else pytest.skip("no sshd")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


Make = Callable[..., Origin]


@pytest.fixture(params=["folder", "s3", "sftp"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make origins that share one target."""
    yield from _maker(request, tmp_path)


@pytest.fixture(params=["folder", "s3"])
def comparing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make origins that share one target, which can compare and swap."""
    yield from _maker(request, tmp_path)


def _maker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    target, options = f"file://{tmp_path}/copies", dict[str, Any]()
    if request.param == "s3":
        target, options = request.getfixturevalue("bucket")
    if request.param == "sftp":
        server = request.getfixturevalue("sshd")
        target, options = server.target(tmp_path / "copies"), server.options()
    made: list[Origin] = []

    def origin(name: str = "a", **environ: str) -> Origin:
        made.append(Origin(tmp_path / name, target, options, **environ))
        return made[-1]

    yield origin
    for one in made:
        one.db.close()


def test_bundles_entries_and_the_index(make: Make) -> None:
    one = make()
    one.cycle(1)
    one.cycle(2, b"y")
    done = one.federate()
    assert (done.sent, done.failed) == ((1, 2), {})
    one.assert_canonical(2)
    assert one.counted() == {"sent": 2.0}
    assert federation.pending(one.db) == []
    assert [copy["cycle"] for copy in federation.newest(one.db, 5)] == [2, 1]
    assert one.federate() == federation.Done((), {})


def test_a_complete_object_is_not_sent_again_and_a_partial_one_is_replaced(make: Make) -> None:
    one = make()
    one.cycle(1)
    one.federate()
    place, name = one.place(), str(one.row(1)["place"])
    before = place.read(name)
    modified = place._system.modified(place.path(name))
    one.db.run("federation.ask_again", cycle=1, now=to_text(ENDED))
    assert one.federate().sent == (1,)
    assert place._system.modified(place.path(name)) == modified
    assert before is not None
    for broken in (before.content[:-1], before.content[:-1] + b"!"):
        place.write(name, broken)
        one.db.run("federation.ask_again", cycle=1, now=to_text(ENDED))
        assert one.federate().sent == (1,)
        one.assert_canonical(1)


def test_stores_of_two_hosts_do_not_touch_each_other(make: Make) -> None:
    one, two = make("a"), make("b")
    for each, content in ((one, b"same"), (two, b"same")):
        each.cycle(1, content)
        each.federate()
    assert len(one.index()) == 2
    one.assert_canonical(1)
    two.assert_canonical(1)


def test_an_index_that_is_lost_or_broken_is_made_from_the_entries(make: Make) -> None:
    one = make()
    one.cycle(1)
    one.federate()
    for number, broken in ((2, b"{"), (3, b"[]"), (4, b"")):
        one.place().write("index.json", broken)
        one.cycle(number, str(number).encode())
        assert one.federate().sent == (number,)
        one.assert_canonical(number)
    one.place()._system.rm(one.place().path("index.json"))
    assert federation.merge(one.place(), None) == 4
    one.assert_canonical(4)


def test_a_swap_of_what_has_changed_is_refused(comparing: Make) -> None:
    place = comparing().place()
    assert place.compares
    assert place.swap("index.json", b"1", None)
    assert not place.swap("index.json", b"2", None)
    first = place.read("index.json")
    assert first is not None
    assert place.swap("index.json", b"3", first.mark)
    assert not place.swap("index.json", b"4", first.mark)
    second = place.read("index.json")
    assert second is not None
    assert second.content == b"3"


def test_processes_at_once_lose_no_entry(make: Make) -> None:
    origins = [make(name) for name in "abc"]
    for each in origins:
        for number in range(1, 5):
            each.cycle(number, f"{each.home}{number}".encode())
    running = [each.process() for each in origins for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in running]
    assert all("{}" in text for text in said), said
    for each in origins:
        each.federate()
        each.assert_canonical(4)
        assert each.counted() == {"sent": 4.0}
    assert len(origins[0].index()) == 12


def test_killed_anywhere_the_next_turn_finishes(make: Make) -> None:
    one, chance = make(), random.Random(3)
    rounds, kills, whole = 12, 0, 0.0
    for number in range(rounds):
        for more in (1, 2, 3):
            one.cycle(3 * number + more, os.urandom(100_000))
        started = clock.monotonic()
        process = one.process()
        try:
            process.communicate(timeout=chance.uniform(0.2, 0.9) * whole if whole else 60)
            took = clock.monotonic() - started
            whole = min(whole, took) if whole else took
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
    assert kills > rounds / 3
    assert one.federate().failed == {}
    one.assert_canonical(3 * rounds)
    assert one.counted() == {"sent": 3.0 * rounds}


def test_an_ssh_server_that_is_not_known_gets_nothing(sshd: Sshd, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    options = {**sshd.options(), "known_hosts": str(other)}
    one = Origin(tmp_path / "a", sshd.target(tmp_path / "copies"), options)
    one.cycle(1)
    changed = sshd.key.with_suffix(".pub").read_text().rsplit(" ", 1)[0]  # another key of the same type
    for known in ("", f"[127.0.0.1]:{sshd.port} {changed}\n"):
        other.write_text(known)
        (told,) = one.federate().failed.values()
        assert f"ssh-keyscan -t ssh-ed25519 -p {sshd.port} 127.0.0.1" in told
        assert not (tmp_path / "copies").exists()
    shutil.copy(sshd.known_hosts, other)
    assert one.federate().sent == (1,)
    one.assert_canonical(1)
    one.db.close()


LARGE = 20 * 1024 * 1024


def test_a_large_bundle_goes_in_parts_and_is_whole(comparing: Make) -> None:
    one = comparing()
    one.cycle(1, random.Random(1).randbytes(LARGE))
    assert one.federate().failed == {}
    one.assert_canonical(1)
    assert int(one.row(1)["size"]) > LARGE


class Hindered(Remote):
    """A store that can't compare, in which others write the index whenever somebody writes it."""

    def __init__(self, system: Any, root: str, *, writer: str, others: list[str]) -> None:
        super().__init__(system, root, writer=writer)
        self.others = others

    def swap(self, name: str, content: bytes, before: str | None) -> bool:
        if self.others:  # entered by another who did not see ours, and then our write goes over theirs
            other = self.others.pop()
            self.write(other, b'{"cycle": 9}')
            super().swap(name, json.dumps({"entries": {other: {"cycle": 9}}}).encode(), None)
        return super().swap(name, content, before)


def test_a_store_that_cannot_compare_loses_no_entry(tmp_path: Path) -> None:
    system = fsspec.filesystem("file")
    others = [f"entries/other/cycle_{number:05d}-0.json" for number in range(5)]
    place = Hindered(system, str(tmp_path), writer="us", others=list(others))
    place.write("entries/us/cycle_00001-0.json", b'{"cycle": 1}')
    assert federation.merge(place, {"entries/us/cycle_00001-0.json"}) == 6
    found = place.read("index.json")
    assert found is not None
    assert json.loads(found.content)["entries"].keys() == {*others, "entries/us/cycle_00001-0.json"}
    assert list(tmp_path.rglob(".*")) == []


def test_a_file_that_is_no_entry_holds_nobody_up(make: Make) -> None:
    one = make()
    one.place().write("entries/other/cycle_00001-0.json", b"{")
    one.cycle(1)
    assert one.federate().sent == (1,)
    assert len(one.index()) == 1


class Flaky:
    """Passes connections on to a server; breaks each one off after some bytes, or lets it hang, while it is told to."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").partition(":")
        self._upstream = (host, int(port))
        self.breaks_after: int | None = None
        self.hangs_after: int | None = None
        self.broken = 0
        self._closed = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if is_request and self.breaks_after is not None and passed > self.breaks_after:
                    self.broken += 1
                    break
                if is_request and self.hangs_after is not None and passed > self.hangs_after:
                    self._closed.wait()
                target.sendall(data)
        except OSError:
            pass
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        source.close()  # each of the two threads closes what it reads


def test_a_server_that_fails_midway_is_tried_again_later(
    s3: str, bucket: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    flaky = Flaky(s3)
    one = Origin(tmp_path / "a", bucket[0], {"endpoint_url": flaky.url}, KLR_FEDERATION_TIMEOUT="4s")
    one.environ["KLR_FEDERATION_BACKOFF"] = "1h"
    one.cycle(1, os.urandom(3_000_000))
    flaky.breaks_after = 500_000
    failed = one.federate()
    assert failed.sent == ()
    assert flaky.broken > 0
    row = one.row(1)
    assert row["failures"] == 1
    assert row["error"]
    assert row["due_at"] > to_text(clock.now() + timedelta(minutes=59))
    assert one.place().names("entries") == set()
    assert one.counted() == {"failed": 1.0}
    flaky.breaks_after = None
    assert one.federate() == federation.Done((), {}), "it waits for its time"
    one.db.run("federation.ask_again", cycle=1, now=to_text(ENDED))
    assert one.federate().sent == (1,)
    one.assert_canonical(1)
    one.db.close()
    flaky.close()


def test_parts_that_a_killed_upload_left_are_no_bundle(s3: str, bucket: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    slow = Flaky(s3)
    slow.hangs_after = 4_000_000
    one = Origin(tmp_path / "a", bucket[0], {"endpoint_url": slow.url})
    one.cycle(1, random.Random(1).randbytes(LARGE))
    server = remote(*bucket, writer="test")._system
    name = bucket[0].removeprefix("s3://").partition("/")[0]

    def unfinished() -> int:
        return len(server.call_s3("list_multipart_uploads", Bucket=name).get("Uploads", ()))

    process = one.process()
    deadline = clock.monotonic() + 60
    while not unfinished() and process.poll() is None:
        assert clock.monotonic() < deadline
    process.kill()
    process.communicate()
    assert unfinished() == 1
    slow.hangs_after = None
    assert one.place().names("bundles") == set()
    assert one.federate().sent == (1,)
    one.assert_canonical(1)
    one.db.close()
    slow.close()


@pytest.mark.parametrize("target", ["file:///dev/null/x", "nosuch://x", "sftp://user:secret@127.0.0.1:1/x"])
def test_a_target_that_can_not_be_is_a_failure_like_others(tmp_path: Path, target: str) -> None:
    one = Origin(tmp_path / "a", target)
    one.cycle(1)
    one.cycle(2)
    done = one.federate()
    assert done.failed.keys() == {1, 2}
    assert one.row(1)["failures"] == 1
    assert "secret" not in one.row(1)["error"]
    assert one.federate().failed.keys() == {1, 2}
    assert one.row(1)["failures"] == 2
    one.db.close()


def test_people_see_no_password() -> None:
    assert public("sftp://user:secret@host:22/x") == "sftp://host:22/x"
    assert public("s3://bucket/x@y") == "s3://bucket/x@y"
    said = federation._said(OSError("no route to sftp://user:secret@host/x"), "sftp://user:secret@host/x")
    assert said == "OSError: no route to sftp://host/x"


def test_a_cycle_that_left_nothing_is_skipped(tmp_path: Path) -> None:
    one = Origin(tmp_path / "a", f"file://{tmp_path}/copies")
    one.cycle(7)
    shutil.rmtree(one.home / "state" / "cycles" / "cycle_00007")
    assert one.federate().sent == (7,)
    assert one.counted() == {"skipped": 1.0}
    assert not (tmp_path / "copies").exists()
    one.db.close()


def test_a_queued_cycle_goes_first(tmp_path: Path) -> None:
    one = Origin(tmp_path / "a", f"file://{tmp_path}/copies")
    one.cycle(1)
    with sqlite3.connect(one.home / "state" / "kloros.db") as raw:
        raw.execute("UPDATE cycles SET state = 'queued', started_at = NULL, ended_at = NULL, settled_at = NULL")
    raw.close()
    assert one.federate() == federation.Done((), {})
    one.db.close()


def test_retention_holds_what_is_not_copied_yet(tmp_path: Path) -> None:
    one = Origin(tmp_path / "a", f"file://{tmp_path}/copies")
    one.cycle(1)
    now = ENDED + timedelta(days=400)
    assert retention.prune(one.db, one.settings, [CycleNumber(1)], now=now).held.keys() == {1}
    one.federate()
    assert retention.prune(one.db, one.settings, [CycleNumber(1)], now=now).removed == (1,)
    one.db.close()
