"""What install.sh promises on its command line, and the settings file that it leaves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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


def test_one_person_has_units_of_their_own_beside_them() -> None:
    listed = sourced('printf "%s\\n" "${user_units[@]}"').stdout.split()
    assert sorted(listed) == sorted(path.name for path in (ROOT / "systemd/user").iterdir())


@pytest.mark.parametrize(
    ("wanted", "remembered", "expected"),
    [
        ("", "", "bundle"),
        ("federation,s3", "", "bundle,federation,s3"),
        ("", "bundle,s3", "bundle,s3"),
        ("none", "bundle,s3", "bundle"),
        ("s3", "bundle,federation", "bundle,s3"),
    ],
)
def test_extras_are_as_told_else_as_they_were(tmp_path: Path, wanted: str, remembered: str, expected: str) -> None:
    (tmp_path / "extras").write_text(f"{remembered}\n")
    assert sourced(f"base={tmp_path}; wanted={wanted}; extras").stdout.strip() == expected


@pytest.mark.parametrize("extras", ["dev", "federation,nonsense", "journal"])
def test_an_extra_that_is_none_is_refused_with_those_that_there_are(extras: str) -> None:
    ended = run("--user", "--with", extras)
    assert ended.returncode == 64
    for name in ("bundle", "federation", "s3"):
        assert name in ended.stderr


def test_extras_make_another_version_of_the_same_sources() -> None:
    names = sourced("python=python3; version_name; echo; wanted=s3; version_name").stdout.split()
    assert len(set(names)) == 2


def test_all_that_is_laid_down_is_known_to_uninstalling(tmp_path: Path) -> None:
    """Also without any record: every path of the stage is among those that are removed."""
    fake = (
        'make_environment() { mkdir -p "$1/bin"; ln -s /bin/true "$1/bin/klorosctl"; };'
        'roll_out() { find "$stage" -type f -o -type l; exit; };'
        "need_supported_system() { :; }; need_python() { python=python3; }; apt_install() { :; };"
    )
    for places, installing, more in (
        ("set_places_system", "install_system", '"${host_files[@]}"'),
        ("set_places_user", "install_user", '"${user_units[@]/#/$unit_folder/}" "$base/logrotate.conf"'),
    ):
        below = f"{places}; base={tmp_path}/base state={tmp_path}/state"
        said = sourced(f"{fake} {below}; {installing} >{tmp_path}/laid", HOME=str(tmp_path))
        laid = {re.sub(r"^/tmp/tmp\.\w+", "", line) for line in (tmp_path / "laid").read_text().split() if "/tmp." in line}
        known = sourced(f"{below}; all_paths {more}", HOME=str(tmp_path)).stdout
        assert len(laid) > 10, said.stderr
        assert laid <= set(known.split())


def test_what_it_runs_of_the_program_needs_the_standard_library_alone() -> None:
    """It runs before there is any environment."""
    seen = f"import sys; sys.path.insert(0, '{ROOT}'); import orchestration.installation.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-ISBc", seen], capture_output=True, text=True, check=True)
    ours = {name for name in done.stdout.split() if name.startswith("orchestration.installation.")}
    assert len(ours) > 5
    known = {"__main__", "orchestration", "orchestration.installation", *ours}
    assert {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names} <= known


def test_it_runs_this_source_from_anywhere_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "orchestration", source / "orchestration", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "install.sh", source)
    before = sorted(source.rglob("*"))
    run_it = f'source "{source}/install.sh"; python={sys.executable}; base={tmp_path}/base; cd /; record running'
    done = subprocess.run(["bash", "-c", run_it], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert sorted(source.rglob("*")) == before


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
