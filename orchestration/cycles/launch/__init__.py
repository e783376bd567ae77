"""Which launcher this host has: systemd's path units, or a process of our own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestration.cycles.environment import without_cycle
from orchestration.cycles.launch.port import Launcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestration.settings import Settings

_SYSTEMD = "/run/systemd/system"


def launcher(settings: Settings, environ: Mapping[str, str], *, booted: str = _SYSTEMD) -> Launcher:
    """Return the launcher that the settings name; `auto` is systemd's where it runs and our units' `kick/` exists.

    Args:
        settings: `launcher` and `state_dir`.
        environ: what a process of our own gets, less the variables of a cycle.
        booted: the folder whose existence says that systemd runs (sd_booted(3)).
    """
    if settings.launcher == "external":
        from orchestration.cycles.launch.external import ExternalLauncher

        return ExternalLauncher()
    kick_dir = os.path.join(settings.state_dir, "kick")
    automatic = settings.launcher == "auto" and os.path.isdir(booted) and os.path.isdir(kick_dir)
    if settings.launcher == "systemd" or automatic:
        from orchestration.cycles.launch.systemd import SystemdLauncher

        return SystemdLauncher(kick_dir)
    from orchestration.cycles.launch.detached import DetachedLauncher

    return DetachedLauncher(os.path.join(settings.state_dir, "logs"), without_cycle(environ))
