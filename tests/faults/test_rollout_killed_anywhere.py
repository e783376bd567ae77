"""A rollout, and taking it back, killed before each of their changes: given again, it comes to the same end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from orchestration.installation import versions
from orchestration.installation.record import Refused
from orchestration.installation.rollback import Undoing
from tests.contract.rollouts import UNIT, Root
from tests.faults.kill import killed

FIRST = {UNIT: "unit 1\n", "etc/a": "1\n"}
SECOND = {UNIT: "unit 2\n", "etc/a": "2\n", "etc/b/c": "2\n", "etc/systemd/system/kloros-more.path": "2\n"}


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
        versions.remove_old(root.place)  # as the next installation does
        assert root.files() == before, at
        assert os.listdir(root.top / "opt/versions") == ["1"], at
        root.roll_back()
        assert root.files() == {}, at


def test_an_uninstallation_killed_anywhere_is_finished_by_the_next_and_until_then_by_nothing_else(
    worlds: Callable[[], Root],
) -> None:
    for at in count():
        root = worlds()
        root.roll_out("2", SECOND)
        paths = [str(root.top / name) for name in (*SECOND, "opt/bin/python")]

        def uninstall(root: Root = root, paths: list[str] = paths) -> None:
            Undoing.of_everything(root.place, paths, user=False).undo(lambda _: None)

        if not killed(uninstall, at):
            assert at > 15
            return
        whole, left = {**FIRST, **SECOND}.items() <= root.files().items(), len(root.place.records())
        try:
            root.undoing().check()
        except Refused:
            assert left == 2
        else:
            assert whole or left < 2, at
        uninstall()
        assert root.files() == {}, at
        assert root.roll_out("3", FIRST) is not None
        root.roll_back()
        assert root.files() == {}, at
