"""The first process of a machine: gives it a name and identities of its own, collects the dead, ends with who started it.

Run by `network.py` as `first.py IDENTITY`, with a pipe that stays open as long as the machine is on.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import select
import signal
import socket
import sys
import uuid
from contextlib import suppress

_BIND = 4096  # linux/mount.h: MS_BIND


def main() -> None:
    path = sys.argv[1]
    with open(path, encoding="utf-8") as file:
        identity = json.load(file)
    name = str(identity["name"])
    socket.sethostname(name)
    _own_shared_memory(os.path.dirname(path))
    boot = uuid.UUID(hashlib.sha256(f"{name} {identity['boot']}".encode()).hexdigest()[:32])
    _shadow(f"{path}.machine", "/etc/machine-id", hashlib.sha256(name.encode()).hexdigest()[:32])
    _shadow(f"{path}.boot", "/proc/sys/kernel/random/boot_id", str(boot))
    woken, waking = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waking)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("up", flush=True)
    while 0 not in select.select([0, woken], [], [])[0]:  # nothing is ever written to it: it is readable at its end
        with suppress(BlockingIOError):
            os.read(woken, 100)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _own_shared_memory(kept: str) -> None:
    """Have a /dev/shm of its own: libfaketime names what it leaves there by process number, and every machine has the same.

    `kept` is the folder of the field, which may lie there itself.
    """
    descriptor = os.open(kept, os.O_PATH)
    _mount("tmpfs", "/dev/shm", kind="tmpfs")
    if not os.path.exists(kept):
        os.makedirs(kept)
        _mount(f"/proc/self/fd/{descriptor}", kept, flags=_BIND)
    os.close(descriptor)


def _shadow(source: str, target: str, text: str) -> None:
    """Have a file say something else in this machine."""
    with open(source, "w", encoding="utf-8") as file:
        print(text, file=file)
    if os.path.exists(target):
        _mount(source, target, flags=_BIND)


def _mount(source: str, target: str, *, kind: str = "", flags: int = 0) -> None:
    if ctypes.CDLL(None, use_errno=True).mount(source.encode(), target.encode(), kind.encode() or None, flags, None):
        raise OSError(ctypes.get_errno(), f"{source} can't be mounted on {target}")


if __name__ == "__main__":
    main()
