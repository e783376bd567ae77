"""One suite for every launcher: systemd's kicks, a process of our own, and the fake that other tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from orchestration.cycles.launch import launcher
from orchestration.cycles.launch.detached import DetachedLauncher
from orchestration.cycles.launch.external import ExternalLauncher
from orchestration.cycles.launch.port import ENTRIES, Launcher
from orchestration.cycles.launch.systemd import SystemdLauncher
from orchestration.errors import CommandNotStarted, Unwritable, Usage
from orchestration.host.lock import FileLock
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

REPOSITORY = str(Path(__file__).parents[2])

# Stands for `python -m`: notes which module it was to run, with what environment and which open files.
WITNESS = """
import json, os, sys
facts = {
    "module": sys.argv[1],
    "environ": dict(os.environ),
    "open": [n for n in range(256) if os.path.exists(f"/proc/self/fd/{n}")],
    "leads_session": os.getsid(0) == os.getpid(),
    "session": os.getsid(0),
    "parent": os.getppid(),
    "stdin": sys.stdin.read(),
}
path = os.path.join(os.environ["WITNESS"], sys.argv[1])
with open(path + ".new", "w") as file:
    json.dump(facts, file)
os.rename(path + ".new", path)
print("to the log")
"""


class FakeLauncher:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, entry: str) -> None:
        if entry not in ENTRIES:
            raise Usage(f"no entry {entry!r} can be started")
        self.started.append(entry)


class Case:
    """A launcher, and how to see from outside that an entry was started."""

    def __init__(self, made: Launcher, seen: Callable[[str], bool]) -> None:
        self.launcher = made
        self.seen = seen


def _detached(folder: Path, **environ: str) -> DetachedLauncher:
    script = folder / "witness.py"
    script.write_text(WITNESS)
    return DetachedLauncher(
        str(folder / "logs"),
        {"PATH": os.environ["PATH"], "WITNESS": str(folder), **environ},
        python=(sys.executable, str(script)),
    )


def _facts(folder: Path, entry: str) -> dict[str, Any]:
    import json

    path = folder / f"orchestration.{entry}"
    until(path.exists, f"{entry} has started")
    return cast("dict[str, Any]", json.loads(path.read_text()))


@pytest.fixture(params=["fake", "systemd", "detached"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "systemd":
        kicks = {"run_cycle": tmp_path / "cycle", "run_once": tmp_path / "tick", "run_notice": tmp_path / "notice"}
        return Case(SystemdLauncher(str(tmp_path)), lambda entry: kicks[entry].exists())
    if request.param == "detached":
        return Case(_detached(tmp_path), lambda entry: (tmp_path / f"orchestration.{entry}").exists())
    fake = FakeLauncher()
    return Case(fake, lambda entry: entry in fake.started)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_started_and_no_other(case: Case, entry: str) -> None:
    case.launcher.start(entry)
    until(lambda: case.seen(entry), f"{entry} has started")
    assert [name for name in ENTRIES if case.seen(name)] == [entry]


def test_asking_twice_is_no_fault(case: Case) -> None:
    case.launcher.start("run_cycle")
    case.launcher.start("run_cycle")
    until(lambda: case.seen("run_cycle"), "run_cycle has started")


@pytest.mark.parametrize("entry", ["", "run_cycle.py", "../run_cycle", "klorosctl"])
def test_only_known_entries(case: Case, entry: str) -> None:
    with pytest.raises(Usage):
        case.launcher.start(entry)


def test_a_missing_kick_folder_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="kick/cycle"):
        SystemdLauncher(str(tmp_path / "kick")).start("run_cycle")


def test_a_detached_process_inherits_nothing_open(tmp_path: Path) -> None:
    lock = FileLock(str(tmp_path / "tick.lock"))
    with lock.held("tick-1"):
        for number in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{number}") and lock.path in os.readlink(f"/proc/self/fd/{number}"):
                os.set_inheritable(int(number), True)  # even then
        _detached(tmp_path).start("run_cycle")
        facts = _facts(tmp_path, "run_cycle")
    assert facts["open"] == [0, 1, 2]
    assert facts["stdin"] == ""
    assert lock.is_free()


def test_a_detached_process_is_in_a_session_of_its_own_and_nobodys_child(tmp_path: Path) -> None:
    _detached(tmp_path).start("run_cycle")
    facts = _facts(tmp_path, "run_cycle")
    assert facts["session"] != os.getsid(0)
    assert not facts["leads_session"]
    assert facts["parent"] != os.getpid()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_detached_process_writes_to_its_log_which_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run_cycle.log"
    log.parent.mkdir()
    log.write_text("x" * 2_000_000)
    _detached(tmp_path).start("run_cycle")
    until(lambda: log.read_text() == "to the log\n", "it has written")
    assert (tmp_path / "logs" / "run_cycle.log.1").stat().st_size == 2_000_000
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_detached_process_outlives_a_killed_starter(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        f"import time\nwhile not __import__('os').path.exists({str(tmp_path / 'go')!r}): pass\n" + WITNESS
    )
    code = (
        "import sys, signal; from orchestration.cycles.launch.detached import DetachedLauncher\n"
        f"DetachedLauncher({str(tmp_path / 'logs')!r}, {{'WITNESS': {str(tmp_path)!r}}},"
        f" python=(sys.executable, {str(tmp_path / 'slow.py')!r})).start('run_once')\n"
        "print('started', flush=True); signal.pause()"
    )
    environ = {"PYTHONPATH": REPOSITORY}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        os.killpg(starter.pid, 9)
    (tmp_path / "go").touch()
    assert _facts(tmp_path, "run_once")["module"] == "orchestration.run_once"


def test_a_program_that_cannot_be_executed_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandNotStarted, match="No such file"):
        DetachedLauncher(str(tmp_path), {}, python=("/nowhere/python", "-m")).start("run_cycle")


def _settings(folder: Path, name: str) -> Settings:
    return cast("Settings", SimpleNamespace(state_dir=str(folder), launcher=name))


@pytest.mark.parametrize(
    ("name", "booted", "kicks", "expected"),
    [
        ("auto", True, True, SystemdLauncher),
        ("auto", True, False, DetachedLauncher),
        ("auto", False, True, DetachedLauncher),
        ("systemd", False, False, SystemdLauncher),
        ("detached", True, True, DetachedLauncher),
    ],
)
def test_which_launcher(tmp_path: Path, name: str, booted: bool, kicks: bool, expected: type[Launcher]) -> None:
    systemd = tmp_path / "run-systemd-system"
    for folder, wanted in ((systemd, booted), (tmp_path / "kick", kicks)):
        if wanted:
            folder.mkdir()
    made = launcher(_settings(tmp_path, name), {}, booted=str(systemd))
    assert type(made) is expected


def test_what_marks_a_cycle_is_not_passed_on(tmp_path: Path) -> None:
    """Else the next runner, started from within a cycle's command, would be killed as a leftover of that cycle."""
    from orchestration.cycles.environment import without_cycle

    environ = {
        "PATH": "/bin",
        "KLR_CYCLE_TOKEN": "t",
        "KLR_CYCLE": "1",
        "JOURNAL_STREAM": "1:2",
        "KLR_CYCLES_TERM_GRACE": "1s",
    }
    assert without_cycle(environ) == {"PATH": "/bin", "KLR_CYCLES_TERM_GRACE": "1s"}


def test_the_external_launcher_starts_nothing_and_knows_the_names() -> None:
    for entry in ENTRIES:
        ExternalLauncher().start(entry)
    with pytest.raises(Usage, match="run_nothing"):
        ExternalLauncher().start("run_nothing")
