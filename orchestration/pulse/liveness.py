"""What a tick leaves for the dead-man's switch: one file for each tick, empty at first, then with the tick's exit code.

The ping itself is `pings.py`'s, in a process of its own, so that no network can delay or fail a tick. Ticks import this
only where a URL is set. The file's name is the run id that the switch is told.
"""

import os
from contextlib import suppress

FOLDER = "heartbeat"
NOTHING = "-"
"""Instead of an exit code: the tick was turned away, and there is nothing to ping."""
_MOST = 60
"""Files that wait at most: where nobody pings, they must not pile up."""


class Beat:
    """One tick as the switch sees it."""

    def __init__(self, state_dir: str) -> None:
        self._descriptor = -1
        folder = os.path.join(state_dir, FOLDER)
        with suppress(OSError):  # the switch will say that no ping came
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if len(os.listdir(folder)) < _MOST:
                # Stays open, for `pings.py` renames the file when it takes it up.
                path = os.path.join(folder, run_id(os.urandom(16)))
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def end(self, exit_code: int) -> None:
        """Say how the tick ended. Only the first word counts."""
        self._say(str(int(exit_code)))

    def cancel(self) -> None:
        """Say that there is nothing to ping."""
        self._say(NOTHING)

    def _say(self, how: str) -> None:
        if self._descriptor >= 0:
            with suppress(OSError):
                os.write(self._descriptor, f"{how}\n".encode())


def run_id(chance: bytes) -> str:
    """Write 16 bytes as a random UUID (RFC 9562, version 4), which the module uuid would do at 3 ms of CPU."""
    octets = bytearray(chance)
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
