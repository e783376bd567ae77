"""The documented container: built by buildah, run with `state/` as a volume, killed and replaced.

No Docker engine is needed: buildah builds and runs it in a chroot, as root, with plain copies as storage. The base image is
a Debian 12 with Python under the name that the recipe asks for, so no registry of images is. What buildah does not do is
`docker run`'s reading of ENTRYPOINT and CMD, and a volume's first owner: the test does both.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.recipes import fenced
from tests.system import layers
from tests.system.installation import copy_source
from tests.system.operator import rows_of
from tests.waiting import until

LEFT_OUT = (
    "./usr/share/doc",
    "./usr/share/locale",
    "./usr/share/man",
    "./var/lib/apt",
    "./var/cache",
    "./proc",
    "./sys",
    "./dev",
)
SCRIPT = """#!/bin/sh
echo "$RUN_CYCLE_ITERATION" >> state/ran
while [ -e state/hang ]; do sleep 0.05; done
"""


class Images:
    """What buildah keeps, in a folder of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._storage = ["--storage-driver=vfs", f"--root={folder}/root", f"--runroot={folder}/run"]

    def command(self, *words: str) -> list[str]:
        return ["buildah", *self._storage, *words]

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def build(self, name: str, recipe: str, context: Path) -> None:
        file = self.folder / "Containerfile"
        file.write_text(recipe)
        self("bud", "--isolation=chroot", "--pull-never", f"--tag={name}", f"--file={file}", str(context))


class Container:
    """The recipe's image with a volume, run anew for each `running`."""

    def __init__(self, images: Images, folder: Path) -> None:
        self._images = images
        self.volume, self._tools = folder / "volume", folder / "tools"
        self._tools.mkdir()
        (self._tools / "run_cycle.sh").write_text(SCRIPT)
        (self._tools / "run_cycle.sh").chmod(0o755)
        config = json.loads(images("inspect", "--type=image", "agent"))["OCIv1"]["config"]
        self._words = [*config["Entrypoint"], *config["Cmd"]]
        (self._state,) = config["Volumes"]

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        name = self._images("from", "--pull-never", "agent")
        if not self.volume.exists():
            shutil.copytree(f"{self._images('mount', name)}{self._state}", self.volume)
            owner = os.stat(f"{self._images('mount', name)}{self._state}")
            os.chown(self.volume, owner.st_uid, owner.st_gid)
        self._images("config", f"--volume={self._state}-", name)  # else buildah lays a folder of its own over ours, or not
        volumes = [f"--volume={self.volume}:{self._state}", f"--volume={self._tools}:/work/tools:ro"]
        before = self.latest().get("pid")
        process = subprocess.Popen(
            self._images.command("run", "--isolation=chroot", *volumes, name, "--", *self._words),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            # Until this loop has said who it is, latest.json names the one before it.
            until(lambda: process.poll() is not None or self.latest().get("pid") != before, what="the loop says who it is")
            if process.poll() is None:
                self.signal(int(self.latest()["pid"]), signal.SIGKILL)
            process.wait(30)
            (self.volume / "hang").unlink(missing_ok=True)
            self._images("rm", name)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Signal the loop; a chroot shares the host's pids."""
        assert b"orchestration.run_loop" in Path(f"/proc/{pid}/cmdline").read_bytes()
        os.kill(pid, number)

    def latest(self) -> dict[str, Any]:
        path = self.volume / "logs" / "latest.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def rows(self) -> list[tuple[int, str]]:
        path = self.volume / "run_cycle_history.jsonl"
        return [(row["iteration"], row["status"]) for row in rows_of(path)]


@pytest.fixture
def images(can_boot: None, tmp_path: Path) -> Images:
    if shutil.which("buildah") is None:
        pytest.skip("buildah is missing (Debian package buildah)")
    images = Images(tmp_path)
    with layers.mounted(layers.with_python()) as root:
        packed = tmp_path / "context" / "base.tar"
        packed.parent.mkdir()
        left_out = [f"--exclude={name}/*" for name in LEFT_OUT]
        subprocess.run(["tar", "-C", str(root), "-cf", str(packed), *left_out, "."], check=True)
    if Path(layers.HOST_BUNDLE).exists():
        shutil.copy(layers.HOST_BUNDLE, packed.parent / "certificates.crt")
    reach = {**layers.registry_environment(), "PATH": "/opt/python/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    settings = [f"ENV {name}={json.dumps(value)}" for name, value in reach.items()]
    trust = [f"COPY certificates.crt {layers.GUEST_BUNDLE}"] if Path(layers.HOST_BUNDLE).exists() else []
    base = fenced("dockerfile").split("\n", 1)[0].removeprefix("FROM ")
    images.build(f"localhost/{base}", "\n".join(("FROM scratch", "ADD base.tar /", *trust, *settings)), packed.parent)
    packed.unlink()
    return images


@pytest.mark.xdist_group("container")
def test_the_documented_container_keeps_its_rows_when_it_is_killed_and_replaced(images: Images, tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_source(source)
    images.build("agent", fenced("dockerfile"), source)
    container = Container(images, tmp_path)

    with container.running() as engine:
        until(lambda: container.latest().get("state") == "waiting", what="the first iteration is done")
        container.signal(container.latest()["pid"], signal.SIGTERM)
        until(lambda: container.latest()["state"].startswith("ended"), what="the loop ends")
        assert engine.wait(30) == 0
    assert container.rows() == [(1, "degraded")]
    assert {path.stat().st_uid for path in container.volume.iterdir()} == {1000}, "the loop is not root"

    (container.volume / "hang").touch()
    with container.running() as engine:
        until(lambda: (container.volume / "ran").read_text().split() == ["1", "2"], what="the second container works")
        container.signal(container.latest()["pid"], signal.SIGKILL)
        assert engine.wait(30) != 0
    with container.running():
        until(lambda: len(container.rows()) > 1, what="the third container ends what the second has left")
    assert container.rows()[:2] == [(1, "degraded"), (2, "lost")]
