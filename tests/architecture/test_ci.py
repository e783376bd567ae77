"""The workflow on GitHub is one by its published schema, and what it does can be done here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cycles import unbundling

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflow_is_one(schema: str) -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run([tool, "--builtin-schema", schema, WORKFLOW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_runs_scripts_that_are_there() -> None:
    text = WORKFLOW.read_text()
    for script in (".ci/run", ".ci/smoke-package"):
        assert f"./{script}" in text
        assert os.access(ROOT / script, os.X_OK)
    assert "  smoke-package:\n" in text


def test_the_package_alone_runs_a_cycle_and_leaves_a_bundle(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([ROOT / ".ci/smoke-package", tmp_path], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is in order" in done.stdout
    verified = unbundling.verify(str(tmp_path / "run" / "out" / "cycle_00001.tar.gz"))
    assert (verified.folder, verified.listed) == ("cycle_00001", 3)
    assert not (ROOT / "build").exists()
