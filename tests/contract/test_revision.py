"""The revision of a command's code, as git itself says it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestration.cycles.revision import of_command, revision


def git(tree: Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", tree, *names, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "src").mkdir(parents=True)
    git(made, "init", "-q")
    git(made, "commit", "-q", "--allow-empty", "-m", "one")
    return made


def test_a_branch(tree: Path) -> None:
    head = git(tree, "rev-parse", "HEAD")
    assert revision(str(tree)) == revision(str(tree / "src")) == head


def test_a_packed_branch(tree: Path) -> None:
    git(tree, "pack-refs", "--all", "--prune")
    assert revision(str(tree)) == git(tree, "rev-parse", "HEAD")


def test_a_detached_head(tree: Path) -> None:
    git(tree, "checkout", "-q", "--detach")
    assert revision(str(tree)) == git(tree, "rev-parse", "HEAD")


def test_a_linked_work_tree_on_a_branch_of_its_own(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    git(tmp_path / "side", "commit", "-q", "--allow-empty", "-m", "two")
    assert revision(str(tmp_path / "side")) == git(tree, "rev-parse", "side") != revision(str(tree))
    git(tree, "pack-refs", "--all", "--prune")
    assert revision(str(tmp_path / "side")) == git(tree, "rev-parse", "side")


def test_no_tree_no_commit_or_nonsense(tmp_path: Path) -> None:
    assert revision(str(tmp_path)) is None
    git(tmp_path, "init", "-q")
    assert revision(str(tmp_path)) is None
    (tmp_path / ".git" / "HEAD").write_text("nonsense")
    assert revision(str(tmp_path)) is None


def test_where_a_command_has_its_code(tree: Path, tmp_path: Path) -> None:
    program = tree / "src" / "trial.py"
    program.touch()
    head = git(tree, "rev-parse", "HEAD")
    assert of_command(["python3", str(program)], "") == head
    assert of_command(["make"], str(tree)) == head
    assert of_command(["make", str(tree / "absent")], str(tmp_path)) is None
