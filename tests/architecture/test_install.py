"""What install.sh promises on its command line, and the settings file that it leaves."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from orchestration.settings import Settings

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "systemd/orchestrator.toml"
STATE = "/var/lib/kloros"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "install.sh", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def sourced(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines with install.sh's functions at hand."""
    return subprocess.run(
        ["bash", "-c", f'source "{ROOT}/install.sh"; {script}'],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_names_every_way_to_use_it() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    for option in ("--user", "--try", "--uninstall", "--purge"):
        assert option in ended.stdout


@pytest.mark.parametrize("arguments", [("--frobnicate",), ("--purge",), ("--try", "--uninstall")])
def test_a_wrong_option_changes_nothing_and_says_so(arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 64
    assert "install.sh: " in ended.stderr


@pytest.mark.parametrize(
    ("release", "supported"),
    [
        ("ID=debian\nVERSION_ID=12", True),
        ("ID=debian\nVERSION_ID=13", True),
        ("ID=debian\nPRETTY_NAME=sid", True),
        ("ID=debian\nVERSION_ID=11\nPRETTY_NAME='Debian 11'", False),
        ("ID=ubuntu\nVERSION_ID=22.04", True),
        ("ID=ubuntu\nVERSION_ID=20.04\nPRETTY_NAME='Ubuntu 20.04'", False),
        ("ID=fedora\nVERSION_ID=42\nPRETTY_NAME='Fedora 42'", False),
    ],
)
def test_unsupported_systems_are_told_so(tmp_path: Path, release: str, supported: bool) -> None:
    (tmp_path / "os-release").write_text(release + "\n")
    ended = sourced(f"os_release={tmp_path}/os-release; need_supported_system")
    assert (ended.returncode == 0) is supported, ended.stderr
    assert supported or "Debian 12 or later" in ended.stderr


def test_every_unit_is_installed() -> None:
    listed = sourced('printf "%s\\n" "${units[@]}"').stdout.split()
    assert sorted(listed) == sorted(path.name for path in (ROOT / "systemd").glob("kloros*.*"))
    assert set(sourced('printf "%s\\n" "${started_units[@]}"').stdout.split()) == {
        path.name for path in (ROOT / "systemd").glob("kloros*.*") if path.suffix in (".timer", ".path")
    }


def test_one_person_gets_the_folders_that_tmpfiles_makes() -> None:
    conf = (ROOT / "systemd/tmpfiles.d/kloros.conf").read_text()
    made = {os.path.relpath(path, STATE) for path in re.findall(r"^d (\S+)", conf, re.MULTILINE)} - {"."}
    assert set(sourced('printf "%s\\n" "${folders[@]}"').stdout.split()) == made


def test_the_settings_file_is_valid_as_it_comes() -> None:
    assert Settings.model_validate(tomllib.loads(TEMPLATE.read_text())).launcher == "systemd"


def test_what_is_commented_out_is_the_default() -> None:
    """Uncomment everything: nothing changes."""
    all_in = re.sub(r"(?m)^# (?=(\w+ = |\[promotions))", "", TEMPLATE.read_text())
    all_in = re.sub(r"(?m)^(command = \[\"|timeout = \"10min\").*$", "", all_in)
    given = Settings.model_validate(tomllib.loads(all_in))
    assert given == Settings.model_validate(tomllib.loads(TEMPLATE.read_text()))


def test_every_setting_is_in_the_settings_file() -> None:
    text = TEMPLATE.read_text()
    for name, field in Settings.model_fields.items():
        nested = getattr(field.annotation, "model_fields", None)
        for key in nested or (name,):
            assert re.search(rf"(?m)^#? ?(\[[\w.]*\b{key}\b|{key} = )", text) or key == "orchestration_mode", (name, key)
