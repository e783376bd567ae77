"""`klorosctl rollback-rollout` and `klorosctl backup` as an operator types them, on an installation below a folder."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestration.exits import Exit
from orchestration.installation.record import Place
from orchestration.installation.stage import apply
from orchestration.store.sqlite import SCHEMA_VERSION
from tests.acceptance.host import Host


class Installed:
    """Two rollouts of versions that know different schemas of the store."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.base = host.home / "opt"
        self.place = Place(str(self.base))
        self.unit = host.home / "systemd/system/kloros-orchestrator.service"
        fake = host.home / "bin" / "systemctl"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\n")
        fake.chmod(0o755)
        host.set(PATH=f"{fake.parent}:{host.environ['PATH']}")

    def roll_out(self, version: str, *, knows: int, backup: str = "") -> None:
        """Install a version."""
        folder = Path(self.place.version(version))
        migrations = folder / "lib/python3.11/site-packages/orchestration/store/migrations"
        migrations.mkdir(parents=True)
        (migrations / f"{knows:04d}_last.sql").touch()
        (folder / "bin").mkdir()
        (folder / "bin" / "klorosctl").write_text("#!/bin/sh\nexit 0\n")
        (folder / "bin" / "klorosctl").chmod(0o755)
        (folder / ".complete").touch()
        stage = self.host.home / f"stage-{version}"
        for path, text in ((self.base / "bin/python", f"exec {folder}/bin/python\n"), (self.unit, f"# {version}\n")):
            staged = Path(f"{stage}{path}")
            staged.parent.mkdir(parents=True)
            staged.write_text(text)
        about = {"version": version, "kind": "system", "unit_folder": str(self.unit.parent), "packages": []}
        made = apply(self.place, str(stage), {**about, "state": str(self.host.state), "settings": "", "backup": backup})
        assert made is not None
        made.content["complete"] = True
        made.save()

    def roll_back(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return self.host.run("klorosctl", "rollback-rollout", "--base", str(self.base), *flags)

    def answer(self, *flags: str) -> dict[str, Any]:
        done = self.roll_back("--json", *flags)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def installed(host: Host) -> Installed:
    return Installed(host)


def ticks_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM ticks").fetchone()[0])
    finally:
        connection.close()


def test_it_lists_and_changes_nothing_until_told(installed: Installed) -> None:
    installed.roll_out("1", knows=SCHEMA_VERSION)
    installed.roll_out("2", knows=SCHEMA_VERSION)
    done = installed.roll_back()
    assert done.returncode == 0
    assert "restore  unit" in done.stdout
    assert "Nothing has been changed" in done.stdout
    assert installed.unit.read_text() == "# 2\n"
    assert installed.answer()["done"] is False

    assert installed.answer("--yes")["back_to"] == "1"
    assert installed.unit.read_text() == "# 1\n"
    assert "Before it: nothing" in installed.roll_back("--yes").stdout
    assert not installed.unit.exists()
    assert not installed.base.exists()


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_on_a_terminal_it_asks_and_takes_no_for_the_default(installed: Installed, answer: str) -> None:
    installed.roll_out("1", knows=SCHEMA_VERSION)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    arguments = installed.host.command("klorosctl", "rollback-rollout", "--base", str(installed.base))
    done = subprocess.run(
        arguments, env=installed.host.environ, stdin=theirs, stdout=theirs, stderr=theirs, check=False, timeout=60
    )
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Do it? [y/N]" in said
    assert installed.unit.exists() is (answer != "y"), said


def test_without_a_record_it_says_what_removes_the_rest(installed: Installed) -> None:
    done = installed.roll_back()
    assert done.returncode == Exit.USAGE
    assert "install.sh --uninstall" in done.stderr
    elsewhere = installed.host.run("klorosctl", "rollback-rollout")
    assert elsewhere.returncode == Exit.USAGE
    assert "--base" in elsewhere.stderr


def test_a_store_that_the_older_version_can_not_read_needs_a_copy(installed: Installed) -> None:
    installed.host.decided()
    installed.roll_out("1", knows=SCHEMA_VERSION - 1)
    installed.roll_out("2", knows=SCHEMA_VERSION)
    done = installed.roll_back("--yes")
    assert done.returncode == Exit.FAILED
    assert f"schema {SCHEMA_VERSION}, 1 knows {SCHEMA_VERSION - 1}" in done.stderr
    assert installed.unit.read_text() == "# 2\n"


def test_the_store_is_set_back_and_what_it_had_is_kept(installed: Installed) -> None:
    """The copy claims an older schema, as one made before a migration does."""
    host = installed.host
    host.decided()
    copy = json.loads(host.run("klorosctl", "backup", "--json").stdout)["path"]
    connection = sqlite3.connect(copy)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
    connection.close()
    installed.roll_out("1", knows=SCHEMA_VERSION - 1)
    installed.roll_out("2", knows=SCHEMA_VERSION, backup=copy)
    host.decided()
    host.decided()
    store = host.state / "kloros.db"

    with (host.state / "locks/runner.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = installed.roll_back("--yes")
    assert busy.returncode == Exit.LOCK_HELD
    assert installed.unit.read_text() == "# 2\n", "nothing is done while a cycle runs"

    said = installed.answer("--yes")
    assert [step["name"] for step in said["steps"] if step["action"] == "set back"] == [str(store)]
    assert ticks_in(store) == 1
    connection = sqlite3.connect(store)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION - 1,)
    connection.close()
    (kept,) = (host.state / "backups").glob("replaced-*.db")
    assert ticks_in(kept) == 3


def test_backups_are_whole_while_ticks_go_on_and_only_the_last_few_stay(host: Host) -> None:
    nothing = json.loads(host.run("klorosctl", "backup", "--json").stdout)
    assert nothing["path"] is None
    host.decided()
    made = [json.loads(host.run("klorosctl", "backup", "--keep", "2", "--json").stdout) for _ in range(3)]
    folder = host.state / "backups"
    assert sorted(str(path) for path in folder.iterdir()) == [one["path"] for one in made[1:]]
    assert made[2]["removed"] == [made[0]["path"]]
    copy = sqlite3.connect(made[2]["path"])
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    assert (folder.stat().st_mode & 0o777, Path(made[2]["path"]).stat().st_mode & 0o777) == (0o700, 0o600)
