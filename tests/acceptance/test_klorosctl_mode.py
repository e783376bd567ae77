"""`enable` and `disable`: the line of the TOML file, or a drop-in of the unit that ticks for this installation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import Host

MODE = "KLR_ORCHESTRATION_MODE"
SERVICE = "kloros-orchestrator.service"


def mode(host: Host, *flags: str) -> Any:
    return json.loads(host.ctl(*flags, "status", "--json").stdout)["mode"]


@pytest.fixture
def plain(host: Host) -> Host:
    """A host whose shell says nothing about the mode, and where no unit is installed."""
    del host.environ[MODE]
    return host


def unit(host: Host, says: str, *, state: Path | None = None) -> Path:
    """Install the unit of one person that ticks for this host's state folder."""
    path = host.home / ".config/systemd/user" / SERVICE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"[Unit]\nEnvironment={MODE}=nonsense\n[Service]\n# Environment={MODE}=nonsense\nEnvironment={MODE}={says}\n"
        f"Environment=KLR_CONFIG={host.config}\nWorkingDirectory={state or host.state}\n"
    )
    return path


# --- the TOML file -------------------------------------------------------------------------------------------------


def test_without_units_the_line_in_the_file_is_set(plain: Host) -> None:
    plain.config.write_text("# orchestration_mode = 'enabled'\n")
    assert mode(plain) == {"value": "disabled", "source": "the default"}
    before = "# My host.\n# Ask Ada before you touch it.\n\ntextfile = '/nowhere/k.prom'  # none\n[phase]\nmissed = 'skip'\n"
    plain.config.write_text(before)
    plain.config.chmod(0o640)
    assert plain.tick().returncode == 2
    said = plain.ctl("enable").stdout
    assert str(plain.config) in said
    assert "Undo: klorosctl disable" in said
    line = 'orchestration_mode = "enabled"\n'
    assert line in plain.config.read_text()
    assert plain.config.read_text().replace(line, "") == before
    assert plain.config.stat().st_mode & 0o777 == 0o640
    assert plain.tick().returncode == 0
    assert mode(plain) == {"value": "enabled", "source": str(plain.config)}
    plain.ctl("disable")
    assert plain.tick().returncode == 2
    assert plain.config.read_text().count("orchestration_mode") == 1


def test_a_line_that_is_there_keeps_its_place_and_comment(plain: Host) -> None:
    plain.config.write_text("launcher = 'auto'\r\norchestration_mode = 'disabled' # as of May\r\n")
    plain.ctl("enable")
    assert plain.config.read_bytes() == b"launcher = 'auto'\r\norchestration_mode = \"enabled\" # as of May\r\n"
    inode = plain.config.stat().st_ino
    assert "already" in plain.ctl("enable").stdout
    assert plain.config.stat().st_ino == inode


@pytest.mark.parametrize(
    "text",
    [
        'state_dir = """/x\norchestration_mode = "enabled"\n"""\n',
        '"orchestration_mode" = "enabled"\n',
        "orchestration_mode = '''enabled'''\n",
        "orchestration_mode = 3\n",
    ],
    ids=["inside a string", "quoted key", "long string", "number"],
)
def test_what_only_looks_like_the_line_is_left_alone(plain: Host, text: str) -> None:
    plain.config.write_text(text)
    done = plain.run("klorosctl", "disable")
    assert done.returncode == 1 or 'orchestration_mode = "disabled"' in plain.config.read_text()
    if done.returncode == 1:
        assert "by hand" in done.stderr
        assert plain.config.read_text() == text
    else:
        assert text in plain.config.read_text()


def test_a_file_that_is_no_toml_is_left_alone(plain: Host) -> None:
    plain.config.write_text("orchestration_mode = enabled\n")
    assert "not TOML" in plain.ctl("disable", code=78).stderr
    assert plain.config.read_text() == "orchestration_mode = enabled\n"


def test_a_file_is_made_where_there_is_none(plain: Host) -> None:
    plain.config.unlink()
    plain.ctl("enable")
    assert plain.config.read_text() == 'orchestration_mode = "enabled"\n'


def test_a_variable_of_the_shell_that_beats_it_is_named(host: Host) -> None:
    assert f"unset {MODE}" in host.ctl("disable").stdout
    assert mode(host)["source"] == f"the variable {MODE} of this shell"


# --- the drop-in ---------------------------------------------------------------------------------------------------


def test_with_a_unit_a_drop_in_is_written_and_taken_away_again(plain: Host) -> None:
    path = unit(plain, "enabled")
    drop_in = path.with_name(f"{SERVICE}.d") / "50-klorosctl.conf"
    config = plain.config.read_bytes()
    assert mode(plain, "--user") == {"value": "enabled", "source": str(path)}
    assert str(drop_in) in plain.ctl("--user", "disable").stdout
    assert f"[Service]\nEnvironment={MODE}=disabled\n" in drop_in.read_text()
    assert mode(plain, "--user") == {"value": "disabled", "source": str(drop_in)}
    plain.ctl("--user", "tick", code=2)
    plain.ctl("--user", "enable")
    assert not drop_in.exists()  # or it would beat a later edit of the unit
    assert mode(plain, "--user")["value"] == "enabled"
    assert plain.config.read_bytes() == config


def test_a_unit_that_was_edited_to_disabled_is_enabled_by_the_drop_in(plain: Host) -> None:
    path = unit(plain, "disabled")
    plain.ctl("--user", "enable")
    assert mode(plain, "--user")["value"] == "enabled"
    assert f"{MODE}=disabled" in path.read_text()
    plain.ctl("--user", "disable")
    assert not (path.with_name(f"{SERVICE}.d") / "50-klorosctl.conf").exists()


def test_a_drop_in_that_beats_ours_is_named(plain: Host) -> None:
    path = unit(plain, "enabled")
    other = path.with_name(f"{SERVICE}.d") / "90-mine.conf"
    other.parent.mkdir()
    other.write_text(f'[Service]\nEnvironment="{MODE}=enabled"\n')
    assert str(other) in plain.ctl("--user", "disable", code=1).stderr


def test_an_empty_assignment_takes_back_what_was_given_before(plain: Host) -> None:
    path = unit(plain, "enabled")
    drop_in = path.with_name(f"{SERVICE}.d") / "10-reset.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nEnvironment=\n")
    assert mode(plain, "--user")["value"] == "disabled"


def test_a_tick_by_hand_has_the_mode_of_the_unit(plain: Host) -> None:
    unit(plain, "enabled")
    assert json.loads(plain.ctl("--user", "tick", "--json").stdout)["decision"] == "noop"


def test_the_units_of_another_installation_are_left_alone(plain: Host) -> None:
    path = unit(plain, "enabled", state=plain.home / "elsewhere")
    assert mode(plain, "--user")["value"] == "disabled"
    plain.ctl("--user", "disable")
    assert os.listdir(path.parent) == [SERVICE]
