"""`docs/how-to/second-host.md`, typed letter by letter: two hosts, the database's machine, and what systemctl would do."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.acceptance import next_release
from tests.acceptance.host import Host, script
from tests.acceptance.runbook import Runbook
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")
PAGE = Runbook("../how-to/second-host")
URL = "postgresql://kloros@db.example/kloros"


class Lab:
    """The hosts of the page."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.newer = home / "newer"
        self.told_systemd: list[str] = []
        self.home = home

    def host(self, name: str) -> Host:
        home = self.home / name
        home.mkdir()
        host = Host(home)
        host.stepwise()
        report = "echo '{}' >$KLR_CYCLE_DIR/artifacts/report.json"
        host.set(KLR_DREAM_COMMAND=f"sh {script(home, 'job', [report])}")
        return host

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Ask the database."""
        with psycopg.connect(self.cluster.url("kloros"), autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def configure(self, host: Host, heading: str) -> None:
        """Write into a host's settings what the page says."""
        section = PAGE.text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        (block,) = re.findall(r"^```toml\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        host.configure(block.replace(URL, self.cluster.url("kloros").replace("user=postgres", "user=kloros")))

    def follow(self, host: Host, heading: str, part: slice = slice(None)) -> None:
        """Type the commands of a section, or some of them, on a host; what is said to systemctl is only noted, and
        install.sh is played: it brings the newer release."""
        commands = PAGE.commands(heading)[part]
        assert commands, heading
        for command in commands:
            if command.line.startswith("systemctl "):
                self.told_systemd.append(command.line)
            elif command.line == "./install.sh":
                next_release.upgrade(host, self.newer)
            else:
                PAGE.run(host, command)

    def follow_at_the_database(self, heading: str, part: slice = slice(None)) -> None:
        """Type them on the database's machine, as postgres."""
        environ = {"PATH": os.environ["PATH"], "PGHOST": self.cluster.folder, "PGUSER": "postgres"}
        for command in PAGE.commands(heading)[part]:
            done = subprocess.run(
                ["sh", "-c", command.line], env=environ, cwd=self.home, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Lab:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(b"DROP DATABASE IF EXISTS kloros")
        connection.execute(b"DROP ROLE IF EXISTS kloros")
    lab = Lab(cluster, tmp_path)
    lab.follow_at_the_database("Make the database")
    next_release.make(lab.newer)
    return lab


def answered(stem: str, owner: Host, *hosts: Host) -> None:
    """Let hosts tick and run what is queued until a promotion has its ack."""
    for _ in range(5):
        if (owner.state / "promotions_ack" / f"{stem}_ack.json").exists():
            assert owner.ack(stem)["accepted"]
            return
        for host in hosts:
            host.decided()
            host.run_queued()
    raise AssertionError(f"{stem} has no answer")


def test_the_whole_page(lab: Lab) -> None:
    first, second = lab.host("lab-1"), lab.host("lab-2")
    first.promote("before")
    answered("before", first, first)

    lab.follow(first, "Bring the first host", slice(2))
    lab.configure(first, "Bring the first host")
    lab.follow(first, "Bring the first host", slice(2, None))
    lab.configure(second, "Bring the second host")
    lab.follow(second, "Bring the second host")
    assert lab.ask("SELECT stem, state FROM promotions") == [("lab-1@before", "accepted")], "it was taken along"

    second.promote("here")
    answered("here", second, second, first)
    assert not (first.state / "promotions_ack" / "here_ack.json").exists()

    lab.follow(first, "Work on the leader")
    second.decided()
    assert lab.ask("SELECT holder FROM leases") == [("lab-2",)]

    lab.follow_at_the_database("Upgrade them", slice(1))
    assert "CREATE TABLE public.ticks" in (lab.home / "before-upgrade.sql").read_text()
    lab.follow(first, "Upgrade them", slice(1, 4))
    second.promote("waits")
    lab.follow(second, "Upgrade them", slice(4, None))
    lab.follow(second, "Upgrade them", slice(1, 2))
    answered("waits", second, second, first)

    first.run("klorosctl", "leader", "pin", "lab-1")
    first.decided()
    lab.ask("UPDATE hosts SET last_tick_at = last_tick_at - interval '16 minutes' WHERE host = 'lab-2' RETURNING host")
    lab.follow(first, "Take a host away")
    assert lab.ask("SELECT host FROM hosts") == [("lab-1",)]

    units = {word for line in lab.told_systemd for word in line.split() if word.startswith("kloros-")}
    lacking = [unit for unit in units if not (Path(__file__).parents[2] / "systemd" / unit).exists()]
    assert lacking == [], "a unit that is none of ours"
