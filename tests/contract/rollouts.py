"""A file system with an installation below a folder, and a systemd that writes down what it was asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestration.installation.record import Place, Rollout
from orchestration.installation.rollback import Undoing
from orchestration.installation.stage import apply

INSTALLER = Path(__file__).parents[2] / "install.sh"
UNIT = "etc/systemd/system/kloros-orchestrator.service"


class Root:
    """A file system with an installation, below a temporary folder."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.place = Place(str(top / "opt"))
        self.asked = top.parent / "systemctl.log"
        fake = top.parent / "bin" / "systemctl"
        fake.parent.mkdir()
        fake.write_text(f'#!/bin/sh\necho "$*" >>{self.asked}\n')
        fake.chmod(0o755)
        self.path = f"{fake.parent}:/usr/bin:/bin"
        """The PATH with which it is asked."""

    def roll_out(self, version: str, files: dict[str, str], *, backup: str = "", finished: bool = True) -> Rollout | None:
        """Install a version that lays these files, as install.sh does."""
        folder = Path(self.place.version(version))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".complete").touch()
        stage = self.top.parent / f"stage-{version}"
        launcher = f"#!/bin/sh\nexec {folder}/bin/python\n"
        for name, text in {**files, "opt/bin/python": launcher}.items():
            path = Path(f"{stage}{self.top}") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        about = {"version": version, "kind": "system", "unit_folder": str(self.top / "etc/systemd/system")}
        made = apply(self.place, str(stage), {**about, "state": "", "settings": "", "backup": backup, "packages": []})
        if made is not None and finished:
            made.content["complete"] = True
            made.save()
        return made

    def errand(self, *arguments: str | Path) -> str:
        """Do one of install.sh's errands, as it does; returns what was said."""
        script = 'source "$1"; python=$2 base=$3; shift 3; record "$@"'
        command = ["bash", "-c", script, "errand", INSTALLER, sys.executable, self.place.base, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout

    def undoing(self, *, force: bool = False) -> Undoing:
        return Undoing(self.place, self.place.records()[-1:], force=force)

    def roll_back(self, *, force: bool = False) -> dict[str, str]:
        """Take the newest rollout back; returns what became of each path."""
        done: dict[str, str] = {}
        undoing = self.undoing(force=force)
        undoing.check()
        undoing.undo(lambda step: done.update({os.path.relpath(step.name, self.top): step.action}))
        return done

    def files(self) -> dict[str, str]:
        """Return every file with its text, but for records and versions."""
        found = (path for path in self.top.rglob("*") if path.is_file() and "opt/rollouts" not in str(path))
        return {str(path.relative_to(self.top)): path.read_text() for path in found if "opt/versions" not in str(path)}
