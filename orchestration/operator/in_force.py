"""The settings in force, for a process that stays: read again when they may have changed.

Like `klorosctl` it sees the mode, the window and the state folder that the installed unit gives ticks, unless its own
variables say otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from orchestration import wiring
from orchestration.operator.units import Units

if TYPE_CHECKING:
    from orchestration.settings import Settings

_SETTINGS_LAST: Final = 1.0  # seconds for which settings are taken as read


class InForce:
    """The settings in force."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take the process's own variables."""
        self._caller = dict(environ)
        self._read_at = -_SETTINGS_LAST
        self._settings: Settings | None = None

    @property
    def environ(self) -> dict[str, str]:
        """Our variables over those that the installed unit gives ticks."""
        units = Units.of(self._caller, user=None)
        given = units.environment() if units.ticks_for(self._caller) else {}
        return {**{name: value for name, (value, _) in given.items() if name.startswith("KLR_")}, **self._caller}

    def settings(self) -> Settings:
        """Return them. Raises: SettingsInvalid."""
        now = time.monotonic()
        if self._settings is None or now - self._read_at >= _SETTINGS_LAST:
            self._settings, self._read_at = wiring.settings(self.environ), now
        return self._settings
