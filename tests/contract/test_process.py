"""What `run` promises its callers, with real commands."""

from __future__ import annotations

import os
import sys
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from orchestration.errors import CommandNotStarted, Unwritable
from orchestration.host import process

if TYPE_CHECKING:
    from pathlib import Path

# pytest-xdist's workers have a second thread, at which Python 3.12 warns; the program itself has none.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")

ENV = {"PATH": os.environ["PATH"]}


def _run(folder: Path, *argv: str, **changed: Any) -> process.Completed:
    asked: dict[str, Any] = {
        "env": ENV,
        "cwd": str(folder),
        "output": str(folder / "output.log"),
        "output_limit": 10_000,
        "timeout": timedelta(seconds=60),
        "grace": timedelta(seconds=0.2),
    }
    return process.run(argv, **(asked | changed))


def _output(folder: Path) -> str:
    return (folder / "output.log").read_text()


def test_both_streams_are_kept_in_the_order_written(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "echo one; echo two >&2; echo three")
    assert _output(tmp_path) == "one\ntwo\nthree\n"
    assert completed.succeeded
    assert (completed.returncode, completed.signal) == (0, None)
    assert (tmp_path / "output.log").stat().st_mode & 0o777 == 0o600


def test_a_command_reads_the_file_it_is_given_and_nothing_without_one(tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("read me\n" * 3)
    _run(tmp_path, "cat", standard_input=str(given))
    assert _output(tmp_path) == "read me\n" * 3
    _run(tmp_path, "cat")
    assert _output(tmp_path) == ""


def test_a_missing_standard_input_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CommandNotStarted, match="nowhere"):
        _run(tmp_path, "touch", "ran", standard_input=str(tmp_path / "nowhere"))
    assert not (tmp_path / "ran").exists()


def test_the_log_calls_a_command_what_it_is_told_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, "echo", "hush", told=("echo", "{prompt}"))
    assert _output(tmp_path) == "hush\n"
    said = capfd.readouterr().err
    assert "{prompt}" in said
    assert "hush" not in said


def test_a_failing_command_gives_its_exit_code(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "exit 7")
    assert (completed.returncode, completed.signal, completed.succeeded) == (7, None, False)
    assert completed.describe() == "exit code 7"


def test_a_command_killed_from_outside_gives_the_signal(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "kill -9 $$")
    assert (completed.returncode, completed.signal) == (None, 9)
    assert completed.describe() == "killed by SIGKILL"


def test_exit_127_is_not_a_missing_command(tmp_path: Path) -> None:
    assert _run(tmp_path, "sh", "-c", "exit 127").returncode == 127
    with pytest.raises(CommandNotStarted, match="no-such-program") as refused:
        _run(tmp_path, "no-such-program")
    assert ENV["PATH"] in refused.value.hint


def test_a_file_that_is_not_executable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(CommandNotStarted, match="Permission denied"):
        _run(tmp_path, str(tmp_path / "script"))


def test_a_missing_working_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandNotStarted, match="nowhere"):
        _run(tmp_path, "true", cwd=str(tmp_path / "nowhere"))


def test_an_output_file_that_cannot_be_made_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match=r"nowhere/output\.log"):
        _run(tmp_path, "true", output=str(tmp_path / "nowhere" / "output.log"))


def test_the_environment_is_exactly_the_one_given(tmp_path: Path) -> None:
    _run(tmp_path, sys.executable, "-c", "import os; print(sorted(os.environ))", env=ENV | {"KLR_CYCLE": "42"})
    assert [name for name in ("KLR_CYCLE", "PATH", "HOME") if name in _output(tmp_path)] == [
        "KLR_CYCLE",
        "PATH",
    ]


def test_nothing_open_is_inherited_and_standard_input_is_empty(tmp_path: Path) -> None:
    shown = "[n for n in range(256) if os.path.exists(f'/proc/self/fd/{n}')]"
    code = f"import os, sys; print(sys.stdin.read(), {shown})"
    inheritable = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        _run(tmp_path, sys.executable, "-c", code)
    finally:
        os.close(inheritable)
    assert _output(tmp_path).split() == ["[0,", "1,", "2]"]


def test_signals_that_python_ignores_work_in_the_command(tmp_path: Path) -> None:
    assert _run(tmp_path, "sh", "-c", "kill -PIPE $$").signal == 13
    assert _run(tmp_path, "sh", "-c", "kill -TERM $$").signal == 15


def test_the_command_leads_a_session_of_its_own(tmp_path: Path) -> None:
    _run(tmp_path, sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())")
    assert _output(tmp_path) == "True\n"


def test_output_over_the_limit_is_cut_with_a_marker(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "yes | head -c 5000", output_limit=100)
    text = _output(tmp_path)
    assert completed.output_truncated
    assert text.startswith("y\n" * 50 + "\n[kloros: output cut here, 4900 more bytes")
    assert len(text) < 200


def test_output_at_the_limit_is_not_cut(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "yes | head -c 100", output_limit=100)
    assert not completed.output_truncated
    assert _output(tmp_path) == "y\n" * 50


def test_a_command_that_never_stops_writing_meets_its_deadline(tmp_path: Path) -> None:
    completed = _run(tmp_path, "yes", timeout=timedelta(seconds=0.2))
    assert (completed.timed_out, completed.signal) == (True, 15)


def test_the_deadline_ends_a_command_that_listens_to_term(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sleep", "600", timeout=timedelta(seconds=0.1), grace=timedelta(seconds=60))
    assert (completed.timed_out, completed.cancelled, completed.signal) == (True, False, 15)
    assert completed.wall < timedelta(seconds=30)
    assert "timed out" in completed.describe()


def test_a_command_may_use_the_grace_to_end_well(tmp_path: Path) -> None:
    script = "trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    completed = _run(tmp_path, "sh", "-c", script, timeout=timedelta(seconds=0.3), grace=timedelta(seconds=60))
    assert (completed.timed_out, completed.returncode, completed.succeeded) == (True, 0, False)
    assert _output(tmp_path).endswith("saved\n")


def test_a_stopped_command_is_woken_to_end_well(tmp_path: Path) -> None:
    script = "trap 'echo saved; exit 0' TERM; kill -STOP $$; while :; do sleep 0.01; done"
    completed = _run(tmp_path, "sh", "-c", script, timeout=timedelta(seconds=0.3), grace=timedelta(seconds=60))
    assert (completed.timed_out, completed.returncode) == (True, 0)
    assert _output(tmp_path) == "saved\n"


def test_after_the_grace_a_deaf_command_is_killed(tmp_path: Path) -> None:
    completed = _run(tmp_path, "sh", "-c", "trap '' TERM; while :; do sleep 1; done", timeout=timedelta(seconds=0.1))
    assert (completed.timed_out, completed.signal) == (True, 9)


def test_the_caller_can_stop_it(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    completed = _run(tmp_path, "sleep", "600", should_stop=lambda: next(answers), poll=timedelta(milliseconds=10))
    assert (completed.cancelled, completed.timed_out, completed.signal) == (True, False, 15)
    assert completed.wall < timedelta(seconds=30)


def test_what_the_caller_raises_ends_the_command_first(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail() -> bool:
        if pids:
            raise RuntimeError("the store is gone")
        return False

    with pytest.raises(RuntimeError, match="the store is gone"):
        _run(tmp_path, "sleep", "600", should_stop=fail, poll=timedelta(milliseconds=10), started=pids.append)
    assert not os.path.exists(f"/proc/{pids[0]}")


def test_the_pid_is_told_as_soon_as_it_runs(tmp_path: Path) -> None:
    pids: list[int] = []
    _run(tmp_path, "sh", "-c", "echo $$", started=pids.append)
    assert _output(tmp_path).split() == [str(pids[0])]


def test_the_figures_are_of_the_whole_tree(tmp_path: Path) -> None:
    eat = "b = bytearray(200_000_000); sum(range(3_000_000))"
    completed = _run(tmp_path, "sh", "-c", f"{sys.executable} -c '{eat}' & wait; true")
    assert completed.peak_bytes > 200_000_000
    assert timedelta(seconds=0.02) < completed.cpu < timedelta(seconds=60)
    assert completed.started_at.tzinfo is UTC
    assert completed.ended_at - completed.started_at == completed.wall > timedelta(0)


def test_the_command_is_logged_ready_to_paste(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    _run(folder, "printf", "%s", "it's")
    assert f"cd '{folder}' && printf %s 'it'\\\"'\\\"'s'" in capfd.readouterr().err


def test_a_run_inside_the_command_of_a_run(tmp_path: Path) -> None:
    inner = (
        "from datetime import timedelta; from orchestration.host import process; import sys;"
        f"c = process.run(['sh', '-c', 'exit 5'], env={{}}, cwd='/', output={str(tmp_path / 'inner')!r},"
        " output_limit=9, timeout=timedelta(seconds=60)); sys.exit(c.returncode)"
    )
    env = ENV | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert _run(tmp_path, sys.executable, "-c", inner, env=env).returncode == 5
