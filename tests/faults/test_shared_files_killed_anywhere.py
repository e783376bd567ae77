"""What hosts share, with a tick killed before each change it makes: of a file, and before and after each word to the store.

After each kill the next ticks, led by the same host or by another, must come to the very story of a run that was not
killed: each promotion answered once, each intent filed once and noted once, on the host it came from, and nothing on its
way any more. Every 17th change is tried here, and all of them where `KLR_TEST_EVERY=1`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import orchestration
from orchestration import run_cycle, run_once
from orchestration.store import libpq
from tests.acceptance.host import Host
from tests.acceptance.scopes import Scoped
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")

EVERY = int(os.environ.get("KLR_TEST_EVERY", "17"))  # change before which it is killed, of some thousand; 1: of all
KILLED = 9
_AUDITED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.utime"}
_ONCE = ("kloros_promotions_total", "kloros_intents_total", "kloros_cycles_total")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What a child need not import: most of a tick, else."""
    for module in pkgutil.walk_packages(orchestration.__path__, "orchestration."):
        importlib.import_module(module.name)
    gc.freeze()


class World(Scoped):
    """Three hosts and their store, which can be put back in an instant."""

    def __init__(self, home: Path, cluster: Cluster) -> None:
        super().__init__(cluster.new_database(), home / "world")
        self._cluster, self._kept = cluster, home / "kept"
        self.home.mkdir()
        self._name = self.url.partition("///")[2].partition("?")[0]
        self.trying("abc")
        self.tick("b")
        self.lead("b")
        self.tick("bac")

    def keep(self) -> None:
        """Remember everything as it is."""
        shutil.copytree(self.home, self._kept, symlinks=True)
        self._do(f"CREATE DATABASE {self._name}_kept TEMPLATE {self._name}")

    def put_back(self) -> None:
        """Make everything what it was."""
        shutil.rmtree(self.home)
        shutil.copytree(self._kept, self.home, symlinks=True)
        self._do(f"DROP DATABASE {self._name} WITH (FORCE)")
        self._do(f"CREATE DATABASE {self._name} TEMPLATE {self._name}_kept")

    def _do(self, statement: str) -> None:
        with psycopg.connect(self._cluster.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def tick(self, names: str) -> None:
        """Let these hosts tick, each in a process of its own."""
        for name in names:
            assert self.child(name, run_once.main, ["--json"]) == 0, (self.home / "output").read_text()

    def run(self, name: str) -> None:
        """Let this host's runner run what is queued."""
        assert self.child(name, run_cycle.main, []) == 0, (self.home / "output").read_text()

    def child(self, name: str, main: Callable[..., int], arguments: list[str], *, at: int | None = None) -> int:
        """Run an entry in a child, killed before its change number `at`; give its exit code, or minus the signal."""
        pid = os.fork()
        if pid == 0:
            try:
                output = os.open(self.home / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(output, 1)
                os.dup2(output, 2)
                if at is not None:
                    _die_at(at)
                os._exit(main(arguments, dict(self.hosts[name].environ)))
            except BaseException:
                os._exit(70)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    def story(self) -> dict[str, Any]:
        """Tell what it has all come to, less times and ids."""
        cycles = self.ask("SELECT cycle, job, state, settled_at IS NOT NULL AS settled, origin FROM cycles ORDER BY cycle")
        for cycle in cycles:
            cycle["origin"] = {**json.loads(cycle["origin"]), "tick_id": ""}
        return {
            "cycles": cycles,
            "promotions": self.ask("SELECT stem, state, failures, fitness, reason, cycle FROM promotions ORDER BY stem"),
            "intents": self.ask("SELECT name, content_sha, status, reason, cycle, filed FROM intents ORDER BY name"),
            "versions": self.ask("SELECT version, kind, reason, promotion_ids, parameters FROM baseline_versions"),
            "counters": [row for row in self._counters() if row["name"] in _ONCE],
            "on its way": self.ask("SELECT host, folder, name, state FROM shared_files WHERE state <> 'there'"),
            "shared": self.ask("SELECT host, folder, name FROM shared_files WHERE folder <> 'cycles' ORDER BY 1, 2, 3"),
            "litter": [str(path) for path in self.home.rglob("*.tmp")],
            **{name: self._files(host) for name, host in self.hosts.items()},
        }

    def _counters(self) -> list[dict[str, Any]]:
        return self.ask("SELECT name, labels, sum(value) AS value FROM counters GROUP BY name, labels ORDER BY name, labels")

    def _files(self, host: Host) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for folder in ("promotions", "promotions_ack", "intents"):
            for path in sorted((host.state / folder).rglob("*")):
                if path.is_file():
                    text = json.loads(path.read_text())
                    found[str(path.relative_to(host.state))] = {key: text[key] for key in text if key != "ts"}
        notes = host.state / "suggestions.jsonl"
        lines = notes.read_text().splitlines() if notes.exists() else []
        found["notes"] = [json.loads(line)["intent"] for line in lines]
        parameters = host.state / "baseline" / "baseline.json"
        found["baseline"] = json.loads(parameters.read_text())["parameters"] if parameters.exists() else None
        return found


def _die_at(at: int) -> None:
    """Kill this process before its change number `at`: of a file, or a word to the store, also once it is answered."""
    left = at

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), KILLED)

    def hook(event: str, given: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(given[2], int) and bool(given[2] & (os.O_WRONLY | os.O_RDWR))
        if event in _AUDITED or writes:
            count()

    ask = libpq.Connection.ask

    def asked(self: libpq.Connection, text: str) -> list[libpq.Answer]:
        count()
        answers = ask(self, text)
        count()
        return answers

    libpq.Connection.ask = asked  # type: ignore[method-assign]  # of this very process, which dies of it
    sys.addaudithook(hook)


def sharing(world: World) -> str:
    """A host has a promotion, one that is invalid, and intents of two kinds to share."""
    host = world.hosts["a"]
    host.promote("good_one")
    host.promote("invalid", fitness=-1)
    host.intend("suggest_honey")
    host.intend("curiosity_bees")
    return "a"


def deciding(world: World) -> str:
    """The leader finds all of it, refuses, notes, queues a cycle, files."""
    sharing(world)
    world.tick("a")
    return "b"


def settling(world: World) -> str:
    """A cycle that tried promotions of one host has ended on another."""
    world.hosts["a"].promote("good_one")
    world.hosts["a"].promote("bad_one", changes={"learning_rate": 0.02})
    world.hosts["a"].intend("suggest_honey")
    world.tick("ab")
    world.run("c")
    return "b"


def putting_back(world: World) -> str:
    """Acks and decided intents wait for their host."""
    settling(world)
    world.hosts["a"].intend("suggest_tea")
    world.hosts["a"].promote("invalid", fitness=-1)
    world.tick("cb")
    world.tick("a")
    world.hosts["a"].intend("suggest_milk")
    world.hosts["a"].promote("worse", fitness=-2)
    world.tick("a")
    world.tick("b")
    return "a"


def follow(world: World, leader: str) -> None:
    """Let every host tick until all is said."""
    if leader != "b":
        world.lead(leader)
    for _ in range(3):
        world.tick(leader)
        world.tick("".join(name for name in "abc" if name != leader))


@pytest.mark.parametrize(
    ("scene", "leader"),
    [(sharing, "b"), (deciding, "b"), (deciding, "c"), (settling, "b"), (settling, "c"), (putting_back, "b")],
)
def test_a_killed_tick_changes_nothing_in_the_end(
    memory: Path, cluster: Cluster, scene: Callable[[World], str], leader: str
) -> None:
    world = World(memory, cluster)
    victim = scene(world)
    world.keep()
    world.tick(victim)
    follow(world, leader)
    expected = world.story()
    assert expected["on its way"] == []
    assert expected["litter"] == []
    at, died = 0, True
    while died:
        world.put_back()
        code = world.child(victim, run_once.main, ["--json"], at=at)
        died = code == -KILLED
        assert died or code == 0, (world.home / "output").read_text()
        follow(world, leader)
        found = world.story()
        assert found == expected, f"killed before change {at}"
        at += EVERY
    assert at > 60, "it makes more changes than that"
