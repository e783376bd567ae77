"""The folder of node_exporter, to which install.sh's `open_metrics_folder` lets the group kloros write."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

METRICS = "/var/lib/prometheus/node-exporter"  # of Debian's package prometheus-node-exporter


def close() -> None:
    """Take back what was done to it, if it is as it was left."""
    if shutil.which("dpkg-statoverride") is None:
        return
    listed = subprocess.run(
        ["dpkg-statoverride", "--list", METRICS], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if not listed.stdout.startswith("root kloros 775 "):
        return
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(METRICS, "kloros.prom"))
    if os.path.isdir(METRICS):
        os.chown(METRICS, -1, 0)
        os.chmod(METRICS, 0o755)  # noqa: S103  # as Debian's package has it
    # Last: it is what tells that the folder is open.
    subprocess.run(["dpkg-statoverride", "--quiet", "--remove", METRICS], stdin=subprocess.DEVNULL, check=True)
