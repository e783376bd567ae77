"""What starts D-REAM by itself, found in a root of the test's own: unit files, their links, tables of cron."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from orchestration.errors import KlorosError
from orchestration.operator import autonomous, cron_lines
from orchestration.operator.autonomous import Starter
from tests.acceptance.host import script

ME = pwd.getpwuid(os.getuid())
RUNNER = "/home/kloros/.venv/bin/python3 -m src.dream.runner"


class Root:
    """A host's files, as far as they start things."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def unit(
        self, name: str, command: str = "/bin/true", *, folder: str = "etc/systemd/system", enabled: bool = True
    ) -> Path:
        kind = {"service": f"[Service]\nExecStart={command}\n", "timer": "[Timer]\nOnCalendar=hourly\n"}
        path = self.write(f"{folder}/{name}", kind[name.rpartition(".")[2]])
        if enabled:
            wants = self.path / folder / "multi-user.target.wants"
            wants.mkdir(exist_ok=True)
            (wants / name).symlink_to(path)
        return path

    def found(self, *, uid: int = 0) -> list[Starter]:
        return autonomous.find(str(self.path), uid=uid)

    def names(self, *, uid: int = 0) -> list[str]:
        return [starter.name for starter in self.found(uid=uid)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root whose tables of cron are read by a `crontab` that knows files beside it."""
    tables = tmp_path / "tables"
    tables.mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    lines = [
        f'who={ME.pw_name}; if [ "$1" = -u ]; then who="$2"; shift 2; fi',
        f'if [ "$1" = - ]; then cat > "{tables}/$who"; exit; fi',
        f'[ -e "{tables}/$who" ] || {{ echo "no crontab for $who" >&2; exit 1; }}',
        f'cat "{tables}/$who"',
    ]
    script(tools, "crontab", lines)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return Root(tmp_path / "root")


def test_a_unit_counts_when_it_is_enabled(root: Root) -> None:
    root.unit("dream-background.service")
    root.unit("dream-domains.service", enabled=False)
    root.unit("something.service", RUNNER)
    root.unit("other.service")
    by_name, by_command = root.found()
    assert (by_name.name, by_name.off) == ("dream-background.service", "systemctl disable --now dream-background.service")
    assert by_name.evidence.endswith("is enabled; known by its name, dream-background")
    assert (by_command.name, "it runs src.dream.runner" in by_command.evidence) == ("something.service", True)


def test_a_timer_is_named_with_what_it_starts(root: Root) -> None:
    root.unit("nightly.service", RUNNER, enabled=False)
    root.unit("nightly.timer")
    (timer,) = root.found()
    assert timer.name == "nightly.timer"
    assert "it starts nightly.service" in timer.evidence


def test_a_masked_or_overridden_unit_is_off(root: Root) -> None:
    root.unit("dream-runner.service", folder="usr/lib/systemd/system")
    root.path.joinpath("etc/systemd/system").mkdir(parents=True)
    root.path.joinpath("etc/systemd/system/dream-runner.service").symlink_to("/dev/null")
    root.unit("worker.service", RUNNER, folder="usr/lib/systemd/system")
    root.write("etc/systemd/system/worker.service", "[Service]\nExecStart=/bin/true\n")
    assert root.names() == []


def test_units_of_a_person_and_of_everybody(root: Root) -> None:
    root.unit("dream-runner.service", folder=f"{ME.pw_dir.lstrip('/')}/.config/systemd/user")
    root.unit("kloros-dream.service", folder="etc/systemd/user")
    offs = {starter.name: starter.off for starter in root.found(uid=os.getuid())}
    assert offs["dream-runner.service"] == "systemctl --user disable --now dream-runner.service"
    assert offs["kloros-dream.service"].endswith("systemctl --global disable kloros-dream.service")


def test_a_pipe_in_the_place_of_a_unit_holds_nobody(root: Root) -> None:
    folder = root.path / "etc/systemd/system"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "odd.service")
    assert root.names() == []


def test_cron_lines_are_named_with_their_line(root: Root) -> None:
    root.write(
        "etc/crontab", f"SHELL=/bin/sh\n# 1 2 * * * kloros {RUNNER}\n17 * * * * root true\n0 3 * * * kloros {RUNNER}\n"
    )
    root.write("etc/cron.d/dream", f"@daily kloros {RUNNER}\n")
    root.write("etc/cron.d/dream.disabled", f"@daily kloros {RUNNER}\n")  # cron reads no name with a dot
    root.write("etc/cron.daily/overnight", "#!/bin/sh\n/home/kloros/dream_overnight.sh\n", 0o755)
    root.write("etc/cron.weekly/asleep", "#!/bin/sh\n/home/kloros/dream_overnight.sh\n", 0o644)
    found = root.found()
    assert [starter.name.removeprefix(str(root.path)) for starter in found] == [
        "/etc/crontab, line 4",
        "/etc/cron.d/dream, line 1",
        "/etc/cron.daily/overnight",
    ]
    assert [starter.off.replace(str(root.path), "") for starter in found] == [
        "sed -i '4s/^/#/' /etc/crontab",
        "sed -i '1s/^/#/' /etc/cron.d/dream",
        "chmod -x /etc/cron.daily/overnight",
    ]


def test_the_named_command_switches_it_off(root: Root) -> None:
    root.write("etc/crontab", f"0 3 * * * kloros {RUNNER}\n")
    root.write("etc/cron.daily/overnight", "#!/bin/sh\n/home/kloros/dream_overnight.sh\n", 0o755)
    table(root, f"MAILTO=x\n5 4 * * * {RUNNER}\n")
    found = root.found(uid=os.getuid())
    assert len(found) == 3
    for starter in found:
        subprocess.run(["sh", "-c", starter.off.removeprefix("sudo ")], check=True)
    assert root.names(uid=os.getuid()) == []


def table(root: Root, text: str) -> Path:
    """Give this user a table of cron, as `crontab` keeps it."""
    path = root.path.parent / "tables" / ME.pw_name
    path.write_text(text)
    root.write(f"var/spool/cron/crontabs/{ME.pw_name}", text)
    return path


def test_switching_off_changes_that_line_only(root: Root) -> None:
    cron_d = root.write("etc/cron.d/dream", f"PATH=/bin\n@daily kloros {RUNNER}\n\xe4 * * * * kloros true\n", 0o640)
    kept = table(root, f"MAILTO=x\n5 4 * * * {RUNNER}\n")
    for starter in root.found():
        starter.switch_off()
    assert cron_d.read_text() == f"PATH=/bin\n#@daily kloros {RUNNER}\n\xe4 * * * * kloros true\n"
    assert cron_d.stat().st_mode & 0o777 == 0o640
    assert kept.read_text() == f"MAILTO=x\n#5 4 * * * {RUNNER}\n"
    assert root.names() == []


def test_a_line_that_was_changed_meanwhile_stays(root: Root) -> None:
    path = root.write("etc/cron.d/dream", f"@daily kloros {RUNNER}\n")
    (line,) = cron_lines.cron_lines(str(root.path), uid=0)
    path.write_text(f"@hourly kloros true\n@daily kloros {RUNNER}\n")
    with pytest.raises(KlorosError, match="was changed meanwhile"):
        cron_lines.switch_off(line)
    assert path.read_text().startswith("@hourly")


def test_the_doctor_warns_of_each_and_is_content_without(root: Root) -> None:
    root.unit("dream-background.service")
    (check,) = autonomous.checks(root.found())
    assert (check.name, check.level) == ("autonomous", "warning")
    assert "systemctl disable --now dream-background.service" in check.advice
    (check,) = autonomous.checks([])
    assert (check.level, check.evidence) == ("ok", "no unit and no cron line starts D-REAM by itself")


def test_a_table_that_can_not_be_read_is_not_called_empty(root: Root) -> None:
    script(root.path.parent / "tools", "crontab", ["echo 'crontab: permission denied' >&2; exit 1"])
    (check,) = autonomous.checks(root.found())
    assert check.evidence.endswith("; your cron table can't be read from here")
