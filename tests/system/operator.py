"""What an operator, and the programs around us, do to an installed guest: drop files, read what came of it.

Owns paths and formats as the documentation promises them; nothing here imports the program under test.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from tests.system.day import SHUT, Day
from tests.system.guest import Guest
from tests.system.installation import SETTINGS
from tests.waiting import until

STATE = "/var/lib/kloros"
CONFIG = SETTINGS
TICK = "kloros-orchestrator.service"
CYCLE = "kloros-cycle.service"

# As operators have them in their notes, letter by letter.
MANUAL_TICK = "sudo -u kloros KLR_ORCHESTRATION_MODE=enabled /opt/kloros/bin/python -m orchestration.run_once"
DISABLE_BY_SED = (
    "sed -i 's/KLR_ORCHESTRATION_MODE=enabled/KLR_ORCHESTRATION_MODE=disabled/' "
    "/etc/systemd/system/kloros-orchestrator.service && systemctl daemon-reload"
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a file of JSON lines that may not be there yet, but a last one that is half written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class Operator:
    """One person at one guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._dropped = 0

    def configure(self, toml: str, *, window_opens_in: timedelta = SHUT, lasts: timedelta = timedelta(hours=2)) -> Self:
        """Replace the settings; the PHASE window opens relative to now, on the guest's own day."""
        top, _, sections = toml.strip().partition("[") if not toml.strip().startswith("[") else ("", "", toml.strip()[1:])
        hours = Day.of(self.guest.began).window(datetime.now(UTC), opens_in=window_opens_in, lasts=lasts)
        window = f"[phase]\n{hours}"
        sections = f"[{sections}" if sections else ""
        if sections.startswith("[phase]"):
            sections = sections.removeprefix("[phase]")
        self.guest.write(CONFIG, f'state_dir = "{STATE}"\nlauncher = "systemd"\n{top}\n{window}{sections}\n')
        return self

    def without_timer(self) -> Self:
        """Stop the timer, so that only hints start ticks, and wait until no tick runs."""
        self.guest.sh("systemctl stop kloros-orchestrator.timer")
        until(lambda: self.state_of(TICK) in ("inactive", "failed"), what="no tick runs")
        return self

    def drop(self, intent_type: str, *, priority: int = 5, **data: object) -> str:
        """Leave an intent as foreign programs do; returns its file's name."""
        self._dropped += 1
        now = time.time()
        payload: dict[str, Any] = {
            "intent_type": intent_type,
            "priority": priority,
            "reason": f"test {self._dropped}",
            "data": {**data, "number": self._dropped},
            "generated_at": now,
            "emitted_at": now,
            "emitted_by": "tests",
        }
        text = json.dumps(payload, indent=2)
        payload["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        name = f"{int(now * 1000)}_{intent_type}_{payload['sha256'][:8]}.json"
        self.guest.write(f"{STATE}/intents/{name}", json.dumps(payload, indent=2), owner=self.owner)
        return name

    def promote(self, stem: str, **changes: float) -> None:
        """Leave a valid promotion as D-REAM does."""
        promotion = {
            "schema": "v1",
            "id": stem,
            "timestamp": datetime.now(UTC).isoformat(),
            "fitness": 0.5,
            "changes": changes or {"learning_rate": 0.01},
        }
        self.guest.write(f"{STATE}/promotions/{stem}.json", json.dumps(promotion), owner=self.owner)

    @property
    def owner(self) -> str:
        """The numeric owner of the state folder, so that no name need be resolved."""
        found = self.guest.path(STATE).stat()
        return f"{found.st_uid}:{found.st_gid}"

    def tick(self, *flags: str, check: bool = True) -> str:
        """Do a tick by hand, as the README has it; returns what it printed."""
        return self.guest.sh(f"{MANUAL_TICK} {' '.join(flags)}", check=check).out

    def ctl(self, arguments: str) -> Any:
        """Ask klorosctl, as root, for JSON."""
        return json.loads(self.guest.sh(f"klorosctl {arguments} --json").out)

    def ticks(self) -> list[dict[str, Any]]:
        """Every recorded tick, oldest first."""
        return rows_of(self.guest.path(f"{STATE}/history.jsonl"))

    def processed(self, status: str) -> set[str]:
        """Names of the intents that ended with a status."""
        folder = self.guest.path(f"{STATE}/intents/processed/{status}")
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def manifest(self, cycle: int) -> dict[str, Any] | None:
        """A cycle's manifest, or None before there is one."""
        path = self.guest.path(f"{STATE}/cycles/cycle_{cycle:05d}/manifest.json")
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def ended_cycle(self, number: int, *, within: float = 30) -> dict[str, Any]:
        """Wait until a cycle has ended, and return its manifest."""

        def manifest() -> dict[str, Any] | None:
            found = self.manifest(number)
            return found if found and found["state"] not in ("queued", "running") else None

        return until(manifest, what=f"cycle {number} ends", within=within)

    def state_of(self, unit: str) -> str:
        """`active`, `activating`, `inactive`, `failed`…"""
        return self.guest.sh(f"systemctl is-active {unit}", check=False).out.strip()

    def property_of(self, unit: str, name: str) -> str:
        """One property as `systemctl show` gives it."""
        return self.guest.sh(f"systemctl show {unit} --property={name} --value").out.strip()

    def exit_of(self, unit: str) -> str:
        """The exit status of a unit's last run; one that is at work is waited for, since until then systemd shows 0."""

        def ended() -> str | None:
            said = self.guest.sh(f"systemctl show {unit} --property=ActiveState,ExecMainStatus").out
            shown = dict(line.split("=", 1) for line in said.splitlines())
            return shown["ExecMainStatus"] if shown["ActiveState"] in ("inactive", "failed") else None

        return until(ended, what=f"{unit} has ended", within=60)

    def starts_of(self, unit: str) -> list[float]:
        """When systemd began to start a unit, in seconds since the epoch, oldest first."""
        # MESSAGE_ID of SD_MESSAGE_UNIT_STARTING (systemd.journal-fields(7), sd-messages.h).
        entries = self.guest.journal("MESSAGE_ID=7d4958e842da4a758f6c1cdc7b36dcc5", f"UNIT={unit}")
        return [int(entry["__REALTIME_TIMESTAMP"]) / 1e6 for entry in entries]
