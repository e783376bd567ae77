"""What install.sh's recorder keeps, and that going back by it leads to what was before: files in, files out.

The systemd of these tests is a script that writes down what it was asked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from orchestration.installation import files, metrics_folder, versions
from orchestration.installation.record import Refused
from orchestration.installation.rollback import Undoing
from orchestration.installation.step import Step
from orchestration.operator.rollout import interrupted
from tests.contract.rollouts import UNIT, Root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    (tmp_path / "root").mkdir()
    root = Root(tmp_path / "root")
    monkeypatch.setenv("PATH", root.path)
    return root


def test_nothing_is_left_of_a_first_rollout(root: Root) -> None:
    (root.top / "etc").mkdir()
    (root.top / "etc" / "mine").write_text("mine\n")
    root.roll_out("1", {UNIT: "unit 1\n", "etc/made/by/us": "1\n"})
    root.roll_back()
    assert sorted(str(path.relative_to(root.top)) for path in root.top.rglob("*")) == ["etc", "etc/mine"]
    assert "disable --quiet kloros-orchestrator.service" in root.asked.read_text()


def test_an_upgrade_goes_back_to_every_byte_before(root: Root) -> None:
    root.roll_out("1", {UNIT: "unit 1\n", "etc/same": "same\n", "etc/kloros": "1\n"})
    before = root.files()
    root.roll_out("2", {UNIT: "unit 2\n", "etc/same": "same\n", "etc/kloros": "2\n", "etc/new": "2\n"})
    assert root.files() != before
    done = root.roll_back()
    assert root.files() == before
    assert done == {UNIT: "restore", "etc/kloros": "restore", "etc/new": "remove", "opt/bin/python": "restore",
                    "opt/versions/2": "remove"}  # fmt: skip
    root.roll_back()
    assert root.files() == {}


def test_what_changes_nothing_is_no_rollout(root: Root) -> None:
    root.roll_out("1", {UNIT: "unit 1\n"})
    assert root.roll_out("1", {UNIT: "unit 1\n"}) is None
    assert [rollout.number for rollout in root.place.records()] == [1]


def test_what_was_there_before_the_first_rollout_is_there_again(root: Root) -> None:
    (root.top / "usr").mkdir()
    (root.top / "usr" / "klorosctl").symlink_to("/somewhere/else")
    mode = root.top / "usr" / "kept"
    mode.write_text("theirs\n")
    mode.chmod(0o600)
    root.roll_out("1", {"usr/klorosctl": "ours\n", "usr/kept": "ours\n"})
    root.roll_back()
    assert os.readlink(root.top / "usr" / "klorosctl") == "/somewhere/else"
    assert (mode.read_text(), mode.stat().st_mode & 0o777) == ("theirs\n", 0o600)


@pytest.mark.parametrize("force", [False, True])
def test_what_an_operator_changed_is_left_unless_forced(root: Root, force: bool) -> None:
    root.roll_out("1", {"etc/kloros": "1\n"})
    root.roll_out("2", {"etc/kloros": "2\n"})
    (root.top / "etc/kloros").write_text("2 and mine\n")
    assert root.roll_back(force=force)["etc/kloros"] == ("restore" if force else "leave")
    assert root.files()["etc/kloros"] == ("1\n" if force else "2 and mine\n")


@pytest.mark.parametrize("later", ["enabled", "disabled"])
def test_the_mode_that_an_operator_switched_in_a_unit_stays_both_ways(root: Root, later: str) -> None:
    text = "[Service]\nEnvironment=KLR_ORCHESTRATION_MODE={1}\n# {0}\n"
    root.roll_out("1", {UNIT: text.format(1, "enabled")})
    unit = root.top / UNIT
    unit.write_text(text.format(1, "disabled"))
    root.roll_out("2", {UNIT: text.format(2, "enabled")})
    assert unit.read_text() == text.format(2, "disabled")
    unit.write_text(text.format(2, later))
    assert root.roll_back()[UNIT] == "restore"
    assert unit.read_text() == text.format(1, later)


def test_a_changed_launcher_is_refused_before_anything_is_done(root: Root) -> None:
    root.roll_out("1", {"etc/kloros": "1\n"})
    root.roll_out("2", {"etc/kloros": "2\n"})
    (root.top / "opt/bin/python").write_text("mine\n")
    with pytest.raises(Refused, match="changed since"):
        root.roll_back()
    assert root.files()["etc/kloros"] == "2\n"


def test_without_the_version_before_it_is_refused(root: Root) -> None:
    root.roll_out("1", {"etc/kloros": "1\n"})
    root.roll_out("2", {"etc/kloros": "2\n"})
    (Path(root.place.version("1")) / ".complete").unlink()
    with pytest.raises(Refused, match="no longer"):
        root.roll_back()


def test_two_versions_stay_and_the_older_ones_go(root: Root) -> None:
    for version in "123":
        root.roll_out(version, {"etc/kloros": version})
    assert versions.remove_old(root.place) == []
    assert sorted(os.listdir(root.top / "opt/versions")) == ["2", "3"]
    root.roll_back()
    with pytest.raises(Refused, match="no longer"):
        root.roll_back()


def test_a_killed_rollout_is_gone_on_with(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its files it was killed at: what was before it stays what was before."""
    root.roll_out("1", {"etc/a": "1\n", "etc/b": "1\n"})
    before = root.files()
    put, calls = files.put, []

    def dying(path: str, *given: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        put(path, *given)  # type: ignore[arg-type]  # the same arguments, handed on

    monkeypatch.setattr(files, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        root.roll_out("2", {"etc/a": "2\n", "etc/b": "2\n"})
    monkeypatch.undo()
    monkeypatch.setenv("PATH", root.path)
    made = root.roll_out("2", {"etc/a": "2\n", "etc/b": "2\n"})
    assert made is not None
    assert made.number == 2
    root.roll_back()
    assert root.files() == before


def test_a_rollback_that_was_killed_is_finished_by_the_next(root: Root) -> None:
    """Killed after each of its steps in turn."""
    for dies_at in range(6):
        root.roll_out("1", {UNIT: "unit 1\n", "etc/a": "1\n"})
        before = root.files()
        root.roll_out("2", {UNIT: "unit 2\n", "etc/a": "2\n", "etc/b": "2\n"})
        told: list[str] = []

        def dying(step: Step, told: list[str] = told, dies_at: int = dies_at) -> None:
            told.append(step.name)
            if len(told) == dies_at:
                raise KeyboardInterrupt

        undoing = root.undoing()
        try:
            undoing.undo(dying)
        except KeyboardInterrupt:
            if root.place.records()[-1].version == "2":
                root.roll_back()
        assert root.files() == before, dies_at
        root.roll_back()
        assert root.files() == {}


def test_at_rest_nothing_starts_ticks_and_the_older_program_is_in_place(root: Root) -> None:
    root.roll_out("1", {"etc/systemd/system/kloros-orchestrator.timer": "1\n"})
    root.roll_out("2", {"etc/systemd/system/kloros-orchestrator.timer": "2\n"})
    fake = root.asked.parent / "bin" / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$*" >>{root.asked}\ncase "$*" in *is-active*) echo active;; esac\n')
    root.asked.write_text("")
    at_rest: list[str] = []
    root.undoing().undo(lambda _: None, at_rest=lambda: at_rest.extend([root.place.running(), root.asked.read_text()]))
    assert at_rest[0] == "1"
    assert "stop kloros-orchestrator.timer" in at_rest[1]
    assert "start kloros-orchestrator.timer" in root.asked.read_text().removeprefix(at_rest[1])


SERVING = ("kloros-pulse.service", "kloros-bridge.service", "kloros-supervisor.service")


def test_what_serves_all_day_takes_up_the_older_program(root: Root) -> None:
    """Also where its own unit is the same in both versions."""
    units = {f"etc/systemd/system/{unit}": "1\n" for unit in SERVING}
    root.roll_out("1", units)
    root.roll_out("2", units)
    root.asked.write_text("")
    root.roll_back()
    (asked,) = (line.split() for line in root.asked.read_text().splitlines() if "try-restart" in line)
    assert set(SERVING) <= set(asked)


def test_at_rest_nothing_serves_from_the_store(root: Root) -> None:
    """Nor is about to: what fails and is started again and again is `activating`."""
    units = {f"etc/systemd/system/{unit}": "1\n" for unit in SERVING}
    root.roll_out("1", units)
    root.roll_out("2", units)
    fake = root.asked.parent / "bin" / "systemctl"
    fake.write_text(fake.read_text() + 'case "$*" in *is-active*) printf "active\\nactivating\\nactive\\n";; esac\n')
    root.asked.write_text("")
    at_rest: list[str] = []
    root.undoing().undo(lambda _: None, at_rest=lambda: at_rest.append(root.asked.read_text()))
    (stopped,) = (line for line in at_rest[0].splitlines() if " stop " in line)
    (started,) = (line for line in root.asked.read_text().splitlines() if " start " in line)
    for unit in SERVING:
        assert unit in stopped
        assert unit in started


def test_ticks_start_again_also_when_it_was_killed_at_rest(root: Root) -> None:
    root.roll_out("1", {"etc/systemd/system/kloros-orchestrator.timer": "1\n"})
    root.roll_out("2", {"etc/systemd/system/kloros-orchestrator.timer": "1\n"})
    fake = root.asked.parent / "bin" / "systemctl"
    active = fake.read_text() + 'case "$*" in *is-active*) echo active;; esac\n'
    inactive = fake.read_text()

    def dying() -> None:
        raise KeyboardInterrupt

    fake.write_text(active)
    with pytest.raises(KeyboardInterrupt):
        root.undoing().undo(lambda _: None, at_rest=dying)
    fake.write_text(inactive)
    root.asked.write_text("")
    root.roll_back()
    assert "start kloros-orchestrator.timer" in root.asked.read_text().splitlines()[-1]


def test_going_forward_after_a_rollback_killed_at_rest_starts_ticks_again(root: Root) -> None:
    """Once: what an operator stops later stays off in the next rollback."""
    timer = "etc/systemd/system/kloros-orchestrator.timer"
    root.roll_out("1", {timer: "1\n"})
    root.roll_out("2", {timer: "1\n"})
    fake = root.asked.parent / "bin" / "systemctl"
    inactive = fake.read_text()
    fake.write_text(inactive + 'case "$*" in *is-active*) echo active;; esac\n')

    def dying() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        root.undoing().undo(lambda _: None, at_rest=dying)
    fake.write_text(inactive)
    root.roll_out("2", {timer: "1\n"}, finished=False)
    root.asked.write_text("")
    root.errand("finish")
    assert "start kloros-orchestrator.timer" in root.asked.read_text()
    root.asked.write_text("")
    root.roll_back()
    assert " start " not in root.asked.read_text()


def test_a_rollout_that_is_gone_on_with_takes_the_newest_copy_that_the_version_before_can_read(root: Root) -> None:
    root.roll_out("1", {"etc/a": "1\n"})
    root.roll_out("2", {"etc/a": "2\n"}, backup="/copies/first", finished=False)
    (root.top / "opt/bin/python").write_text(f"#!/bin/sh\nexec {root.place.version('1')}/bin/python\n")
    again = root.roll_out("2", {"etc/a": "2\n"}, backup="/copies/second", finished=False)
    assert again is not None
    assert again.content["backup"] == "/copies/second", "what version 1 did in between would be lost with the first"
    newer = root.roll_out("3", {"etc/a": "3\n"}, backup="/copies/of-what-2-made-of-it", finished=False)
    assert newer is not None
    assert newer.content["backup"] == "/copies/second"


def test_an_uninstallation_that_was_killed_is_only_to_be_finished(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of every version is gone: an upgrade or a rollback would keep the other half for what was before."""
    root.roll_out("1", {UNIT: "unit 1\n", "etc/a": "1\n", "etc/b": "1\n"})
    root.roll_out("2", {UNIT: "unit 2\n", "etc/a": "1\n", "etc/b": "1\n"})
    everything = [str(root.top / name) for name in (UNIT, "etc/a", "etc/b", "opt/bin/python")]
    removing = Undoing.of_everything(root.place, everything, user=False)

    def dying(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        removing.undo(dying)
    left = root.files()
    with pytest.raises(Refused, match="uninstall"):
        root.roll_out("3", {UNIT: "unit 3\n"})
    with pytest.raises(Refused, match="uninstall"):
        root.roll_back()
    assert root.files() == left
    monkeypatch.setattr(sys, "prefix", root.place.version("2"))
    (told,) = interrupted()
    assert "install.sh --uninstall" in told.advice
    Undoing.of_everything(root.place, everything, user=False).undo(lambda _: None)
    assert root.files() == {}
    root.roll_out("3", {UNIT: "unit 3\n"})
    root.roll_back()
    assert root.files() == {}


def test_a_record_that_can_not_be_read_stops_all_but_uninstalling(root: Root) -> None:
    root.roll_out("1", {"etc/kloros": "1\n"})
    Path(root.place.rollouts, "0001", "record.json").write_text("{")
    with pytest.raises(Refused, match=r"record\.json can't be read"):
        root.roll_back()
    paths = [root.top / "etc/kloros", root.top / "opt/bin/python"]
    root.errand("remove", "--kind", "system", *paths)
    assert root.files() == {}


def test_uninstalling_goes_back_past_every_rollout_and_needs_no_record(root: Root) -> None:
    (root.top / "etc").mkdir()
    (root.top / "etc/theirs").write_text("theirs\n")
    root.roll_out("1", {UNIT: "unit 1\n", "etc/theirs": "1\n", "etc/old": "1\n"})
    root.roll_out("2", {UNIT: "unit 2\n", "etc/theirs": "2\n"})
    (root.top / "etc/unrecorded").write_text("2\n")
    paths = [root.top / name for name in (UNIT, "etc/unrecorded", "etc/never")]
    for _ in range(2):
        root.errand("remove", "--kind", "system", *paths)
        assert root.files() == {"etc/theirs": "theirs\n"}
    assert not (root.top / "opt").exists()


def test_the_recorder_says_which_units_are_new(root: Root) -> None:
    root.roll_out("1", {UNIT: "unit 1\n"})
    stage = root.top.parent / "stage"
    for name in (UNIT, "etc/systemd/system/kloros-more.path"):
        path = Path(f"{stage}{root.top}") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("2\n")
    folder = root.top / "etc/systemd/system"
    applied = ("apply", "--stage", stage, "--version", "2", "--unit-folder", folder, "--kind", "system")
    for _ in range(2):
        assert root.errand(*applied) == "kloros-more.path\n"
    root.errand("finish")
    assert root.errand(*applied) == "\n"
    assert json.loads(Path(root.place.rollouts, "0002", "record.json").read_text())["complete"] is True


def test_the_schema_that_a_version_knows_is_its_newest_migration(root: Root) -> None:
    folder = Path(root.place.version("1")) / "lib/python3.11/site-packages/orchestration/store/migrations"
    assert versions.known_schema(root.place, "1") is None
    folder.mkdir(parents=True)
    for name in ("0001_initial.sql", "0012_more.sql", "0003_x.sql"):
        (folder / name).touch()
    assert versions.known_schema(root.place, "1") == 12


def test_closing_the_metrics_folder_is_finished_by_the_next_when_killed(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed where dpkg has just forgotten the folder."""
    if os.geteuid() != 0:
        pytest.skip("only root gives a folder to another group")
    folder = root.top / "node-exporter"
    folder.mkdir()
    os.chown(folder, -1, 1)
    folder.chmod(0o775)
    (folder / "kloros.prom").touch()
    listed = root.top / "statoverride"
    listed.write_text(f"root kloros 775 {folder}\n")
    fake = root.asked.parent / "bin" / "dpkg-statoverride"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *--list*) cat {listed} 2>&-;; *) rm {listed}; kill -9 $PPID;; esac\n')
    fake.chmod(0o755)
    monkeypatch.setattr(metrics_folder, "METRICS", str(folder))
    pid = os.fork()
    if pid == 0:
        try:
            metrics_folder.close()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    metrics_folder.close()
    assert list(folder.iterdir()) == []
    assert (folder.stat().st_gid, folder.stat().st_mode & 0o777) == (0, 0o755)
