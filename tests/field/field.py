"""The field: three hosts and two database machines on one switch, and every fault they can meet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from tests.field import database, network
from tests.field.database import Pair, Server
from tests.field.network import Machine, Switch, switched
from tests.field.station import Station

HOSTS = ("north", "east", "south")
LEASE = 3.0
_DATABASES = {"db1": 11, "db2": 12}


def missing() -> str:
    """Say what keeps a field from being laid out here; empty when nothing does."""
    return network.missing() or database.missing()


class Ground:
    """What lasts: the switch and the database machines, with a primary and its replica."""

    def __init__(self, switch: Switch, folder: Path) -> None:
        self.switch = switch
        self.folder = folder
        machines = [Machine(name, number, switch, folder) for name, number in _DATABASES.items()]
        self.databases = Pair(*(Server(machine, folder / machine.name) for machine in machines))
        self.databases.found()

    def end(self) -> None:
        """Switch the database machines off."""
        self.databases.end()


@contextmanager
def laid_out() -> Iterator[Ground]:
    """Give the ground until the end of the block."""
    shared = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="kloros-field-", dir=shared if shared.is_dir() else None))
    folder.chmod(0o755)  # the servers' user has its folders in it
    try:
        with switched(folder) as switch:
            ground = Ground(switch, folder)
            try:
                yield ground
            finally:
                ground.end()
    finally:
        shutil.rmtree(folder)


class Field:
    """Three hosts with one empty database, for one test."""

    def __init__(self, ground: Ground, *, pooled: tuple[str, ...] = ("east",)) -> None:
        """Switch the hosts on. Those of `pooled` reach the database through the poolers, the others without."""
        self.ground = ground
        self.databases = ground.databases
        self.database = self.databases.new_database()
        self.hosts: dict[str, Station] = {}
        home = ground.folder / self.database
        home.mkdir()
        for number, name in enumerate(HOSTS, 1):
            folder = home / name
            folder.mkdir()
            station = Station(Machine(name, number, ground.switch, ground.folder), folder)
            station.set(
                KLR_DATABASE_URL=self.databases.url(self.database, name, pooled=name in pooled),
                KLR_SCOPE_LEASE=f"{LEASE:g}s",
            )
            self.hosts[name] = station

    def __getitem__(self, name: str) -> Station:
        return self.hosts[name]

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Ask the primary, whatever the network does."""
        return self.databases.primary.ask(query, self.database)

    def say(self, statement: str) -> None:
        """Change something in the database from outside."""
        self.databases.primary.say(statement, self.database)

    def end(self) -> None:
        """Switch the hosts off."""
        for host in self.hosts.values():
            host.machine.cut_power()


@contextmanager
def playing(ground: Ground, *, pooled: tuple[str, ...] = ("east",)) -> Iterator[Field]:
    """Give a field with an empty database until the end of the block."""
    field = Field(ground, pooled=pooled)
    try:
        yield field
    finally:
        field.end()
