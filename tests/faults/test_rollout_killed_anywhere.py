"""A rollout, and taking it back, killed before each of their changes: given again, it comes to the same end.

A forked child kills itself at the chosen one of its changes, as Python's own audit events tell them
(https://docs.python.org/3/library/audit_events.html).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from orchestration.operator.installation import remove_old_versions
from tests.contract.rollouts import UNIT, Root

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.chmod", "subprocess.Popen"}
FIRST = {UNIT: "unit 1\n", "etc/a": "1\n"}
SECOND = {UNIT: "unit 2\n", "etc/a": "2\n", "etc/b/c": "2\n", "etc/systemd/system/kloros-more.path": "2\n"}


def killed(act: Callable[[], object], at: int) -> bool:
    """Do something in a child that is killed before its change number `at`; False when it made fewer."""
    pid = os.fork()
    if pid == 0:
        left = at

        def hook(event: str, given: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(given[2], int) and bool(given[2] & (os.O_WRONLY | os.O_RDWR))
            if event in CHANGES or writes:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


@pytest.fixture
def worlds(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Root]:
    """Make a root with its first rollout, ever anew."""

    def world() -> Root:
        shutil.rmtree(memory / "world", ignore_errors=True)
        (memory / "world" / "root").mkdir(parents=True)
        root = Root(memory / "world" / "root")
        monkeypatch.setenv("PATH", root.path)
        root.roll_out("1", FIRST)
        return root

    return world


def test_a_rollout_killed_anywhere_is_gone_on_with_or_taken_back(worlds: Callable[[], Root]) -> None:
    for at in count():
        for again in (True, False):
            root = worlds()
            before = root.files()
            if not killed(lambda root=root: root.roll_out("2", SECOND), at):  # type: ignore[misc]  # mypy infers no lambda
                assert at > 20
                return
            if again:
                assert root.roll_out("2", SECOND) is not None
                assert root.files()["etc/b/c"] == "2\n"
            if len(root.place.records()) > 1:
                root.roll_back()
            assert root.files() == before, at


def test_a_rollback_killed_anywhere_is_finished_by_the_next(worlds: Callable[[], Root]) -> None:
    for at in count():
        root = worlds()
        before = root.files()
        root.roll_out("2", SECOND)
        if not killed(root.roll_back, at):
            assert at > 10
            return
        if len(root.place.records()) > 1:
            root.roll_back()
        remove_old_versions(root.place)  # as the next installation does
        assert root.files() == before, at
        assert os.listdir(root.top / "opt/versions") == ["1"], at
        root.roll_back()
        assert root.files() == {}, at
