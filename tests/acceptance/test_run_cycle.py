"""The runner as a process: cycles in the store in, commands run, rows, files and exit code out.

The launcher is systemd's, so that the tick that follows a cycle is seen as a kick and does not run beside the test.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.configuration import load
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, Cycle, CycleNumber, CycleState, JobName, Origin
from orchestration.cycles.job import Job
from orchestration.cycles.runner import Runner
from orchestration.errors import CommandNotStarted, LockHeld
from orchestration.exits import Exit
from orchestration.host import clock, process_tree
from orchestration.host.lock import FileLock
from orchestration.store.sqlite import SqliteDatabase
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = str(Path(__file__).parents[2])

# A command that two processes of a session of their own outlive unless they are killed; all share one lock.
DEAF_TREE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
witness = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(witness, fcntl.LOCK_EX)
if not os.fork():
    os.setsid()
    os.fork()
print("standing", flush=True)
while True:
    signal.pause()
"""


class World:
    """A state folder with a store, and the program on it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.promotions = self.state / "promotions"
        for made in (self.promotions, self.state / "kick"):
            made.mkdir(parents=True)
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": REPOSITORY,
            "HOME": str(folder),
            "KLR_CONFIG": str(folder / "orchestrator.toml"),
            "KLR_STATE_DIR": str(self.state),
            "KLR_ORCHESTRATION_MODE": "enabled",
            "KLR_TEXTFILE": str(folder / "kloros.prom"),
            "KLR_LAUNCHER": "systemd",
            "KLR_CYCLES_TERM_GRACE": "0.2s",
            "KLR_CYCLE_TOKEN": "of-somebody-else",
        }
        (folder / "orchestrator.toml").touch()
        self.db = SqliteDatabase(str(self.state / "kloros.db"))

    def queue(
        self,
        *command: str,
        job: JobName = JobName.DREAM,
        timeout: timedelta = timedelta(minutes=5),
        promotions: tuple[str, ...] = (),
        topic: str = "",
    ) -> CycleNumber:
        origin = Origin(Cause.INTENT, "tick-1", promotions=promotions, topic=topic)
        with self.db.transaction():
            return ledger.enqueue(
                self.db,
                job=Job(job, command, "", timeout),
                origin=origin,
                token=os.urandom(8).hex(),
                now=clock.now(),
                phase_date=date(2026, 11, 21) if job is JobName.PHASE else None,
            )

    def queue_script(self, text: str, **changed: Any) -> CycleNumber:
        return self.queue("sh", "-c", text, **changed)

    def queue_deaf_tree(self, **changed: Any) -> CycleNumber:
        return self.queue(sys.executable, "-S", "-c", DEAF_TREE, str(self.state / "witness"), **changed)

    def start(self, entry: str = "run_cycle") -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", f"orchestration.{entry}"], env=self.environ, stderr=subprocess.PIPE)

    def run(self, entry: str = "run_cycle") -> int:
        with self.start(entry) as runner:
            runner.communicate(timeout=60)
            return runner.returncode

    def cycle(self, number: CycleNumber) -> Cycle:
        cycle = ledger.get(self.db, number)
        assert cycle is not None
        return cycle

    def end(self, number: CycleNumber) -> tuple[CycleState, str]:
        cycle = self.cycle(number)
        assert cycle.result is not None
        return cycle.state, cycle.result.reason

    def folder(self, number: CycleNumber) -> Path:
        return self.state / "cycles" / f"cycle_{number:05d}"

    def output(self, number: CycleNumber) -> str:
        path = self.folder(number) / "logs" / "output.log"
        return path.read_text() if path.exists() else ""

    def manifest(self, number: CycleNumber) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder(number) / "manifest.json").read_text())
        return content

    def stands(self, number: CycleNumber) -> bool:
        return self.output(number).count("standing") == 3

    def tree_is_gone(self) -> bool:
        return FileLock(str(self.state / "witness")).is_free()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.db.close()


def test_a_cycle_that_succeeds(world: World) -> None:
    number = world.queue_script("echo out; echo err >&2")
    assert world.run() == Exit.DONE
    cycle = world.cycle(number)
    assert world.end(number) == (CycleState.SUCCEEDED, "exit code 0")
    assert cycle.result is not None
    assert (cycle.result.exit_code, cycle.result.signal) == (0, None)
    assert world.output(number) == "out\nerr\n"
    manifest = world.manifest(number)
    assert (manifest["state"], manifest["result"]["exit_code"]) == ("succeeded", 0)
    assert manifest["started_at"] <= manifest["ended_at"]
    assert (world.state / "kick" / "tick").exists()


def test_what_ends_badly_says_how(world: World) -> None:
    failed = world.queue_script("exit 7")
    killed = world.queue_script("kill -9 $$")
    missing = world.queue("no-such-program")
    late = world.queue_script("sleep 600", timeout=timedelta(seconds=0.2))
    assert world.run() == Exit.DONE
    assert world.end(failed) == (CycleState.FAILED, "exit code 7")
    assert world.end(killed) == (CycleState.FAILED, "killed by SIGKILL")
    state, reason = world.end(missing)
    assert state is CycleState.FAILED
    assert "no-such-program could not be executed" in reason
    assert world.environ["PATH"] in reason
    state, reason = world.end(late)
    assert state is CycleState.TIMED_OUT
    assert "timed out" in reason


def test_cycles_run_in_order_one_at_a_time(world: World) -> None:
    numbers = [
        world.queue_script(f"echo {n} begins >> {world.state}/order; echo {n} ends >> {world.state}/order") for n in "abc"
    ]
    assert world.run() == Exit.DONE
    assert (world.state / "order").read_text().split("\n")[:-1] == [
        f"{n} {what}" for n in "abc" for what in ("begins", "ends")
    ]
    assert [world.end(number)[0] for number in numbers] == [CycleState.SUCCEEDED] * 3


def test_nothing_queued(world: World) -> None:
    assert world.run() == Exit.DONE
    assert not (world.state / "cycles").exists()


@pytest.mark.parametrize(("mode", "code"), [("disabled", Exit.DISABLED), ("Enabled", Exit.DISABLED)])
def test_disabled(world: World, mode: str, code: Exit) -> None:
    number = world.queue_script("true")
    world.environ["KLR_ORCHESTRATION_MODE"] = mode
    assert world.run() == code
    assert world.cycle(number).state is CycleState.QUEUED


def test_halted(world: World) -> None:
    number = world.queue_script("true")
    (world.state / "killswitch").touch()
    assert world.run() == Exit.HALTED
    assert world.cycle(number).state is CycleState.QUEUED


def test_settings_invalid(world: World) -> None:
    world.environ["KLR_LAUNCHER"] = "carrier-pigeon"
    assert world.run() == Exit.SETTINGS_INVALID


def test_wrong_use(world: World) -> None:
    command = [sys.executable, "-m", "orchestration.run_cycle", "--now"]
    assert subprocess.run(command, env=world.environ, capture_output=True, check=False).returncode == Exit.USAGE


def test_cancelled_while_it_runs(world: World) -> None:
    number = world.queue_deaf_tree()
    runner = world.start()
    until(lambda: world.stands(number), "the tree stands")
    assert ledger.ask_cancel(world.db, number, now=clock.now())
    runner.communicate(timeout=30)
    assert runner.returncode == Exit.DONE
    assert world.end(number) == (CycleState.CANCELLED, "cancelled on request")
    assert world.tree_is_gone()


def test_cancelled_before_it_starts(world: World) -> None:
    number = world.queue_script(f"touch {world.state}/ran")
    ledger.ask_cancel(world.db, number, now=clock.now())
    assert world.run() == Exit.DONE
    assert world.end(number) == (CycleState.CANCELLED, "cancelled before it started")
    assert not (world.state / "ran").exists()
    assert world.manifest(number)["state"] == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_runner_asked_to_stop(world: World, number: signal.Signals) -> None:
    running, waiting = world.queue_deaf_tree(), world.queue_script("true")
    runner = world.start()
    until(lambda: world.stands(running), "the tree stands")
    runner.send_signal(number)
    runner.communicate(timeout=30)
    assert runner.returncode == Exit.DONE
    assert world.end(running) == (CycleState.CANCELLED, f"the runner was stopped by {number.name}")
    assert world.tree_is_gone()
    assert world.cycle(waiting).state is CycleState.QUEUED


def test_a_stop_that_reaches_the_command_as_well_is_no_failure(world: World) -> None:
    """systemd sends SIGTERM to everything in the unit, so the command may be gone before the runner looks."""
    number = world.queue_script("echo standing; sleep 600")
    runner = world.start()
    until(lambda: world.output(number) == "standing\n", "the command runs")
    os.kill(runner.pid, signal.SIGTERM)
    keeper = next(p.pid for p in process_tree.all_processes() if p.parent == runner.pid)
    process_tree.terminate(process_tree.descendants([keeper]))
    runner.communicate(timeout=30)
    assert world.end(number)[0] is CycleState.CANCELLED


def test_the_runner_killed(world: World) -> None:
    """No child is left, the manifest still says running, and the next tick records the cycle as lost, once."""
    number = world.queue_deaf_tree()
    runner = world.start()
    until(lambda: world.stands(number), "the tree stands")
    assert world.manifest(number)["state"] == "running"
    runner.kill()
    runner.communicate()
    until(world.tree_is_gone, "the tree is gone")
    until(FileLock(str(world.state / "locks" / "runner.lock")).is_free, "the lock is free")
    assert world.cycle(number).state is CycleState.RUNNING
    assert world.run("run_once") == Exit.DONE
    state, reason = world.end(number)
    assert state is CycleState.LOST
    assert "unknown" in reason
    assert world.manifest(number)["state"] == "lost"


def test_runner_and_keeper_killed_in_the_same_instant(world: World) -> None:
    """Processes that nobody watches any more are found by their mark; the next runner ends them first."""
    number, following = world.queue_deaf_tree(), world.queue_script("true")
    runner = world.start()
    until(lambda: world.stands(number), "the tree stands")
    keeper = next(p.pid for p in process_tree.all_processes() if p.parent == runner.pid)
    for pid in (runner.pid, keeper):
        os.kill(pid, signal.SIGSTOP)
    for pid in (keeper, runner.pid):
        os.kill(pid, signal.SIGKILL)
    runner.communicate()
    assert not world.tree_is_gone()
    assert world.run() == Exit.DONE
    assert world.tree_is_gone()
    assert world.end(number)[0] is CycleState.LOST
    assert world.end(following)[0] is CycleState.SUCCEEDED


def test_the_keeper_killed(world: World) -> None:
    number, following = world.queue_deaf_tree(), world.queue_script("true")
    runner = world.start()
    until(lambda: world.stands(number), "the tree stands")
    os.kill(next(p.pid for p in process_tree.all_processes() if p.parent == runner.pid), signal.SIGKILL)
    runner.communicate(timeout=30)
    assert world.end(number)[0] is CycleState.LOST
    assert world.tree_is_gone()
    assert world.end(following)[0] is CycleState.SUCCEEDED


def test_a_second_runner_leaves_the_work_to_the_first(world: World) -> None:
    first = world.queue_script(f"echo standing; while [ ! -e {world.state}/go ]; do sleep 0.01; done")
    runner = world.start()
    until(lambda: world.output(first) == "standing\n", "the first cycle runs")
    second = world.queue_script("true")
    assert world.run() == Exit.DONE
    assert world.cycle(second).state is CycleState.QUEUED
    (world.state / "go").touch()
    runner.communicate(timeout=30)
    assert [world.end(number)[0] for number in (first, second)] == [CycleState.SUCCEEDED] * 2


class ProbedLock(FileLock):
    """A lock that others probe in the very instant of the first tries."""

    def __init__(self, path: str, probes: int) -> None:
        super().__init__(path)
        self.probes = probes

    @contextmanager
    def held(self, holder: str, *, patience: float = 0.0) -> Iterator[None]:
        if self.probes:
            self.probes -= 1
            raise LockHeld("probed")
        with super().held(holder):
            yield


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_probe_of_the_lock_turns_no_runner_away(world: World) -> None:
    """A tick asks whether a runner lives by a shared lock; a runner that starts in that instant must not give up."""
    number = world.queue_script("true")
    lock = ProbedLock(str(world.state / "locks" / "runner.lock"), probes=2)
    started: list[str] = []
    runner = Runner(load(world.environ), world.db, lock=lock, environ=world.environ, start=started.append)
    assert runner.run() == 1
    assert world.end(number)[0] is CycleState.SUCCEEDED
    assert started == ["run_once"]


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_cycle_queued_as_the_runner_leaves_is_not_stranded(world: World) -> None:
    """Its starter was turned away by the lock that is being given up, so whoever gives it up looks once more."""
    late: list[CycleNumber] = []

    class LeavingLock(FileLock):
        @contextmanager
        def held(self, holder: str, *, patience: float = 0.0) -> Iterator[None]:
            with super().held(holder):
                yield
                if not late:
                    late.append(world.queue_script("true"))

    world.queue_script("true")
    lock = LeavingLock(str(world.state / "locks" / "runner.lock"))
    runner = Runner(load(world.environ), world.db, lock=lock, environ=world.environ, start=lambda _entry: None)
    assert runner.run() == 2
    assert world.end(late[0])[0] is CycleState.SUCCEEDED


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_tick_that_cannot_be_started_changes_no_result(world: World) -> None:
    def refuse(entry: str) -> None:
        raise CommandNotStarted(f"no {entry} today")

    number = world.queue_script("true")
    lock = FileLock(str(world.state / "locks" / "runner.lock"))
    assert Runner(load(world.environ), world.db, lock=lock, environ=world.environ, start=refuse).run() == 1
    assert world.end(number)[0] is CycleState.SUCCEEDED
    assert world.manifest(number)["state"] == "succeeded"


def test_the_environment_of_a_dream_command(world: World) -> None:
    promotion = {"schema": "v1", "id": "p1", "timestamp": 1, "fitness": 0.5, "changes": {"temperature": 0.5}}
    (world.promotions / "a.json").write_text(json.dumps(promotion))
    number = world.queue_script("env; cat $KLR_PROMOTIONS", promotions=("a", "gone"), topic="sleep")
    assert world.run() == Exit.DONE
    assert world.end(number) == (CycleState.SUCCEEDED, "exit code 0")
    text, folder, cycle = world.output(number), world.folder(number), world.cycle(number)
    for line in (
        f"KLR_CYCLE={number}",
        f"KLR_CYCLE_DIR={folder}",
        f"KLR_CYCLE_TOKEN={cycle.token}",
        f"KLR_STATE_DIR={world.state}",
        f"KLR_CONFIG={world.environ['KLR_CONFIG']}",
        f"KLR_PROMOTIONS={folder}/promotions.json",
        "KLR_TOPIC=sleep",
        f"KLR_BASELINE={world.state}/baseline/baseline.json",
    ):
        assert f"{line}\n" in text
    handed = json.loads((folder / "promotions.json").read_text())
    assert (handed["schema"], handed["cycle"]) == ("v1", number)
    assert handed["promotions"] == [
        {
            "stem": "a",
            "id": "p1",
            "fitness": 0.5,
            "changes": {"temperature": 0.5},
            "path": str(world.promotions / "a.json"),
            "emitted_by": pwd.getpwuid(os.geteuid()).pw_name,
        }
    ]


def test_promotions_that_are_all_gone_fail_the_cycle(world: World) -> None:
    number = world.queue_script(f"touch {world.state}/ran", promotions=("gone",))
    assert world.run() == Exit.DONE
    assert world.end(number)[0] is CycleState.FAILED
    assert "can be read any more: gone" in world.end(number)[1]
    assert not (world.state / "ran").exists()


@pytest.mark.parametrize(
    ("content", "state"),
    [
        ('{"schema": "v1", "verdicts": [{"promotion": "a", "accepted": true, "reason": "r", "fitness": 1}]}', "succeeded"),
        ('{"schema": "v1", "verdicts": []}', "succeeded"),
        ('{"schema": "v1"}', "failed"),
        ('{"schema": "v1", "verdicts": [{"promotion": "a"}]}', "failed"),
        ("not json", "failed"),
        ("", "failed"),
    ],
)
def test_verdicts_must_be_in_order(world: World, content: str, state: str) -> None:
    number = world.queue_script(f"printf %s '{content}' > $KLR_CYCLE_DIR/artifacts/verdicts.json")
    assert world.run() == Exit.DONE
    assert world.end(number)[0] == state
    assert ("verdicts.json" in world.end(number)[1]) == (state == "failed")


def test_verdicts_that_are_no_file_fail_without_waiting(world: World) -> None:
    number = world.queue_script("mkfifo $KLR_CYCLE_DIR/artifacts/verdicts.json")
    assert world.run() == Exit.DONE
    assert world.end(number)[0] is CycleState.FAILED


def test_a_phase_gets_its_signal(world: World) -> None:
    number = world.queue_script("env; echo '{}' > $KLR_CYCLE_DIR/artifacts/report.json", job=JobName.PHASE)
    assert world.run() == Exit.DONE
    cycle = world.cycle(number)
    assert cycle.result is not None
    report = world.folder(number) / "artifacts" / "report.json"
    epoch = cycle.result.epoch
    assert (cycle.state, cycle.result.report) == (CycleState.SUCCEEDED, str(report))
    assert cycle.result.report_sha == hashlib.sha256(b"{}\n").hexdigest()
    assert epoch == f"phase_cycle_{cycle.queued_at:%Y%m%d_%H%M%S}"
    assert f"KLR_EPOCH={epoch}\n" in world.output(number)
    assert f"KLR_SIGNALS_DIR={world.state}/signals\n" in world.output(number)
    path = world.state / "signals" / f"klr_phase_complete_{epoch}.json"
    assert path.stat().st_mode & 0o777 == 0o640
    assert json.loads(path.read_text())["sha256"] == cycle.result.report_sha


def test_a_phase_without_a_report_has_failed(world: World) -> None:
    number = world.queue_script("true", job=JobName.PHASE)
    assert world.run() == Exit.DONE
    assert world.end(number)[0] is CycleState.FAILED
    assert "report.json is missing" in world.end(number)[1]


def test_a_phase_whose_signal_belies_its_report_has_failed(world: World) -> None:
    sign = (
        "echo '{}' > $KLR_CYCLE_DIR/artifacts/report.json;"
        'printf \'{"epoch_id": "%s", "ts": 1, "report": "%s", "sha256": "%064d"}\' $KLR_EPOCH'
        " $KLR_CYCLE_DIR/artifacts/report.json 0 > $KLR_SIGNALS_DIR/klr_phase_complete_$KLR_EPOCH.json"
    )
    number = world.queue_script(sign, job=JobName.PHASE)
    assert world.run() == Exit.DONE
    assert world.end(number)[0] is CycleState.FAILED
    assert "sha256" in world.end(number)[1]


def test_output_is_capped(world: World) -> None:
    world.environ["KLR_CYCLES_LOG_LIMIT_BYTES"] = "4096"
    number = world.queue_script("yes | head -c 100000")
    assert world.run() == Exit.DONE
    cycle = world.cycle(number)
    assert cycle.result is not None
    assert cycle.result.output_truncated
    assert "[kloros: output cut here" in world.output(number)
    assert len(world.output(number)) < 4300


def test_a_folder_of_the_same_number_is_put_aside(world: World) -> None:
    number = world.queue_script("true")
    old = world.folder(number) / "artifacts"
    old.mkdir(parents=True)
    (old / "verdicts.json").write_text("of another run")
    assert world.run() == Exit.DONE
    assert world.end(number)[0] is CycleState.SUCCEEDED
    assert (world.state / "cycles" / f"cycle_{number:05d}.1" / "artifacts" / "verdicts.json").exists()
