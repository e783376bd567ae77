"""Machines that are network, process, mount, IPC and host-name namespaces, on one switch that only they see.

A machine's first process (`first.py`) ends when the test's process does, and with it everything in its namespaces: nothing
is left behind, whatever happens. The switch is a bridge in a namespace of its own, so no packet comes anywhere near this
machine's own network. The addresses are those that RFC 5737 keeps for documentation: they lead nowhere.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.waiting import until

NETWORK = "192.0.2"
_FIRST = str(Path(__file__).with_name("first.py"))
_TOOLS = ("unshare", "nsenter", "ip", "bridge", "mount", "strace")
_OWN = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
_FORWARDING, _DISABLED = "3", "0"  # a bridge port's states: bridge(8)


def missing() -> str:
    """Say what keeps machines from being made here; empty when nothing does."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"no field of machines: {', '.join(lacking)} missing: apt-get install iproute2 util-linux mount strace"
    if os.geteuid() != 0:
        return "no field of machines: making network namespaces needs root"
    tried = subprocess.run(["unshare", *_OWN, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return f"no field of machines: namespaces can't be made here: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """One machine: on from the start, at an address, with a link that can be cut."""

    def __init__(self, name: str, number: int, switch: Switch | None, folder: Path) -> None:
        """Switch it on. `number` is the last part of its address; without a switch it is the switch's own machine."""
        self.name = name
        self.number = number
        self.address = f"{NETWORK}.{number}"
        self._switch = switch
        self._folder = folder
        self.boots = 0
        self._started: list[subprocess.Popen[str]] = []
        self.is_paused = False
        self.boot()

    def boot(self) -> None:
        """Switch it on: an empty machine, plugged in."""
        self.boots += 1
        self.is_paused = False
        identity = self._folder / f"{self.name}-{self.boots}.json"
        identity.write_text(json.dumps({"name": self.name, "boot": self.boots}))
        self._process = subprocess.Popen(
            ["unshare", *_OWN, sys.executable, "-I", _FIRST, str(identity)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect(self._process.stdout, "up")
        self.first = int(_children(self._process.pid)[0])
        """Its first process, as this machine numbers it."""
        self._namespace = os.readlink(f"/proc/{self.first}/ns/pid")
        if self._switch is not None:
            self._switch.plug(self)

    def _expect(self, stream: IO[str] | None, word: str) -> None:
        assert stream is not None
        said = stream.readline()
        assert said.strip() == word, f"{self.name} said {said!r} instead of {word!r}"

    @property
    def is_on(self) -> bool:
        return self._process.poll() is None

    def cut_power(self) -> None:
        """Kill everything in it at once, and let nobody hear of it: its connections end without a word."""
        if self._switch is not None:
            self._switch.unplug(self)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        until(lambda: not self.pids(), f"{self.name} is dead")
        while self._started:
            send(self._started[-1].pid, signal.SIGKILL)
            self._started.pop().wait()

    def inside(self, *command: str, user: tuple[int, int] | None = None) -> list[str]:
        """Return the command that runs a command in it, as root or as a user and group."""
        identity = [f"--setuid={user[0]}", f"--setgid={user[1]}"] if user else []
        spaces = ("--net", "--uts", "--ipc", "--mount", "--pid")
        return ["nsenter", f"--target={self.first}", *spaces, *identity, "--", *command]

    def in_network(self, *command: str) -> list[str]:
        """Return the command that runs a command with its network only: its processes are this machine's."""
        return ["nsenter", f"--target={self.first}", "--net", "--", *command]

    def run(
        self, *command: str, environ: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        return subprocess.run(
            self.inside(*command),
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def start(
        self,
        *command: str,
        environ: Mapping[str, str] | None = None,
        output: Path | None = None,
        user: tuple[int, int] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in it; its output goes to a file, which is added to, or nowhere."""
        with open(output or os.devnull, "a", encoding="utf-8") as into:
            started = subprocess.Popen(
                self.inside(*command, user=user), env=environ, stdin=subprocess.DEVNULL, stdout=into, stderr=into, text=True
            )
        self._started.append(started)
        return started

    def pids(self) -> list[int]:
        """List its processes but the first, as this machine numbers them."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self.first:
                with suppress(OSError):
                    if os.readlink(f"/proc/{name}/ns/pid") == self._namespace and _is_alive(int(name)):
                        found.append(int(name))
        return found

    def commands(self) -> dict[int, str]:
        """Tell what its processes are, less those that are ending: these have no command any more."""
        found = {}
        for pid in self.pids():
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        return {pid: command for pid, command in found.items() if command}

    def running(self, text: str) -> list[int]:
        """List the processes whose command has a text."""
        return sorted(pid for pid, command in self.commands().items() if text in command)

    def pause(self) -> None:
        """Stop every process of it where it stands, as when a virtual machine is paused."""
        self.is_paused = True
        stopped: set[int] = set()
        while rest := set(self.pids()) - stopped:
            for pid in rest:
                send(pid, signal.SIGSTOP)
            stopped |= rest

    def go_on(self) -> None:
        """Let it go on."""
        self.is_paused = False
        # nsenter(1) stops itself when its command is stopped.
        for pid in [*self.pids(), *(started.pid for started in self._started if started.poll() is None)]:
            send(pid, signal.SIGCONT)

    def cut(self) -> None:
        """Drop everything that goes in or out of it, silently: its own link stays up, and nobody is told."""
        assert self._switch is not None
        self._switch.port(self.number, _DISABLED)

    def mend(self) -> None:
        """Let its packets through again."""
        assert self._switch is not None
        self._switch.port(self.number, _FORWARDING)


class Switch(Machine):
    """The one that connects them."""

    def __init__(self, folder: Path) -> None:
        super().__init__("switch", 254, None, folder)
        self._ip("link add br0 type bridge forward_delay 0")
        self._ip("link set br0 up")
        # Who speaks with a machine that was switched off and on again must not wait for an old entry to grow old.
        self._ip("link set br0 type bridge ageing_time 100")

    def plug(self, machine: Machine) -> None:
        """Connect a machine that has just been switched on."""
        port = f"p{machine.number}"
        mac = f"02:00:00:00:00:{machine.number:02x}"  # the same after each boot, or the others would ask for a dead one
        self._ip(f"link add {port} type veth peer name eth0 address {mac} netns {machine.first}")
        self._ip(f"link set {port} master br0 up")
        for words in ("link set lo up", "link set eth0 up", f"address add {machine.address}/24 dev eth0"):
            _run(machine.in_network("ip", *words.split()))

    def port(self, number: int, state: str) -> None:
        """Let a port's packets through, or drop them."""
        _run(self.in_network("bridge", "link", "set", "dev", f"p{number}", "state", state))

    def unplug(self, machine: Machine) -> None:
        """Take away its link, if it has one. What its processes have open keeps its network for a while after their end."""
        subprocess.run(self.in_network("ip", "link", "delete", f"p{machine.number}"), capture_output=True, check=False)

    def _ip(self, words: str) -> None:
        _run(self.in_network("ip", *words.split()))


@contextmanager
def switched(folder: Path) -> Iterator[Switch]:
    """Give a switch until the end of the block."""
    switch = Switch(folder)
    try:
        yield switch
    finally:
        switch.cut_power()


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to who may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
