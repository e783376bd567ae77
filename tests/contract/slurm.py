"""A Slurm of the test's own: Debian's munged, slurmctld and slurmd in a temporary folder, on ports of its own on loopback.

One machine is all nodes (`FRONTEND` is no choice of Debian's build, several slurmd are), without control groups:
`proctrack/linuxproc` and `task/none`, as in https://slurm.schedmd.com/slurm.conf.html. Needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd")
_PATIENCE = 60.0
_MARK = "KLOROS_TEST_DAEMON"


def missing() -> str:
    """Say what keeps a Slurm from being started here; empty when nothing does."""
    if os.geteuid() != 0:
        return "only root can start a Slurm of its own"
    absent = [name for name in _DAEMONS if shutil.which(name, path="/usr/sbin:/usr/bin") is None]
    return f"{', '.join(absent)} not installed: apt-get install slurm-wlm slurmdbd munge mariadb-server" if absent else ""


class Slurm:
    """A controller and its nodes, each of which can be killed and started again."""

    def __init__(self, folder: Path, nodes: int = 2, *, accounting: bool = False) -> None:
        self.folder = folder
        self.accounting = accounting
        self._accounts_port, self._store_port = _free_ports(2)
        self.nodes = [f"node{number}" for number in range(nodes)]
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "log", "munge"):
            (folder / name).mkdir()
        folder.chmod(0o755)
        self.conf = folder / "slurm.conf"
        self.conf.write_text(self._configured())
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # a GPU for the books; nothing is computed on it

    @property
    def environ(self) -> dict[str, str]:
        """What Slurm's commands need to find this one."""
        return {"SLURM_CONF": str(self.conf), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def start(self) -> None:
        """Start everything, and wait until the nodes are idle."""
        self._start_munge()
        if self.accounting:
            self._start_store()
            self.start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(lambda: set(self.ask("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, "idle nodes")

    def start_controller(self) -> None:
        """Start slurmctld; it goes on from its state."""
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
        self.wait_for(lambda: "UP" in self.ask("scontrol", "ping"), "the controller")

    def start_accounting(self) -> None:
        """Start slurmdbd; it goes on from its store."""
        self._spawn("slurmdbd", "slurmdbd", "-D")
        added = ("sacctmgr", "-n", "-P", "show", "cluster")
        self.wait_for(lambda: self.folder.name in self.ask(*added) or self._add_cluster(), "slurmdbd with this cluster")

    def start_node(self, node: str) -> None:
        """Start the slurmd of one node."""
        self._spawn(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill `slurmctld` or a node: with everything that runs on it, at once, as a power cut does."""
        process = self._running.pop(name)
        for pid in self._started_by(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        process.send_signal(number)
        process.wait()

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stop a daemon for the length of the block."""
        self._running[name].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._running[name].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything, jobs too."""
        for name in [*self.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"]:
            if name in self._running:
                self.kill(name)

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints; what it says of an error too."""
        done = subprocess.run(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=30
        )
        return done.stdout

    def wait_for(self, seen: object, what: str) -> None:
        """Wait until it is so.

        Raises:
            TimeoutError: it is not so after a minute; with the end of every log.
        """
        assert callable(seen)
        until = time.monotonic() + _PATIENCE
        while not seen():
            if time.monotonic() > until:
                told = "\n".join(
                    f"{path.name}: {path.read_text()[-1500:]}" for path in sorted((self.folder / "log").iterdir())
                )
                raise TimeoutError(f"{what} did not come about\n{told}")
            with suppress(subprocess.TimeoutExpired):
                self._running["munged"].wait(0.1)

    def _add_cluster(self) -> bool:
        self.ask("sacctmgr", "-i", "add", "cluster", self.folder.name)
        return False

    def _start_store(self) -> None:
        """Start a MariaDB for slurmdbd, which takes no other."""
        store = self.folder / "store"
        store.mkdir()
        shutil.chown(store, "mysql")
        place = ("--no-defaults", "--user=mysql", f"--datadir={store}/data")
        made = ("mariadb-install-db", *place, "--auth-root-authentication-method=normal", "--skip-test-db")
        subprocess.run(made, stdout=subprocess.DEVNULL, check=True, timeout=_PATIENCE)
        self._spawn(
            "mariadbd", "mariadbd", *place, f"--socket={store}/socket", f"--pid-file={store}/pid", "--skip-grant-tables",
            f"--port={self._store_port}", "--bind-address=127.0.0.1", "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        ping = ("mariadb-admin", "--no-defaults", f"--socket={store}/socket", "ping")
        self.wait_for(lambda: "alive" in self.ask(*ping), "MariaDB")
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={self.folder}/munge/socket\nDbdHost={socket.gethostname()}\n"
            f"DbdAddr=127.0.0.1\nDbdPort={self._accounts_port}\nSlurmUser=root\nPidFile={self.folder}/slurmdbd.pid\n"
            f"LogFile={self.folder}/log/slurmdbd.own\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={self._store_port}\nStorageUser=root\nStorageLoc=slurm\n"
        )
        conf.chmod(0o600)  # slurmdbd wants it so

    def _start_munge(self) -> None:
        key, place = self.folder / "munge" / "key", self.folder / "munge"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        # munged wants nobody but its user to be able to change what lies above its files.
        self._spawn(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={place}/socket",
            f"--pid-file={place}/pid", f"--seed-file={place}/seed", f"--log-file={place}/log", "--num-threads=2",
        )  # fmt: skip
        until = time.monotonic() + _PATIENCE
        while not (place / "socket").exists() and time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                self._running["munged"].wait(0.05)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / "log" / name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env={**self.environ, _MARK: f"{self.folder}/{name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def _started_by(self, name: str) -> list[int]:
        """Return what a daemon has started, its supervisors of steps first: they would tell of the others' ends."""
        mark = f"{_MARK}={self.folder}/{name}".encode()
        of_a_job = {f"SLURMD_NODENAME={name}".encode(), f"SLURM_CLUSTER_NAME={self.folder.name}".encode()}
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                environ = set((entry / "environ").read_bytes().split(b"\0"))
                if mark in environ or of_a_job <= environ:
                    found.append(((entry / "comm").read_text() != "slurmstepd\n", int(entry.name)))
        own = self._running[name].pid if name in self._running else 0
        return [pid for _, pid in sorted(found) if pid != own]

    def _configured(self) -> str:
        ports = _free_ports(len(self.nodes) + 1)
        lines = [
            f"ClusterName={self.folder.name}",
            f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            "SlurmUser=root",
            "AuthType=auth/munge",
            f"AuthInfo=socket={self.folder}/munge/socket",
            "CredType=cred/munge",
            "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "ReturnToService=2",
            f"StateSaveLocation={self.folder}/state",
            f"SlurmdSpoolDir={self.folder}/spool/%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/%n.pid",
            f"SlurmctldLogFile={self.folder}/log/slurmctld.own",
            f"SlurmdLogFile={self.folder}/log/%n.own",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "DefMemPerCPU=100",
            "GresTypes=gpu",
            # Who comes to `urgent` takes the place of who is in `batch` or `spare`, as their own PreemptMode says.
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            "SchedulerParameters=sched_interval=2,bf_interval=2",
            *self._accounted(),
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=1",
            "JobAcctGatherParams=OverMemoryKill",
            "JobCompType=jobcomp/filetxt",
            f"JobCompLoc={self.folder}/completed",
            "KillWait=2",
            "InactiveLimit=0",
            "MinJobAge=300",
            "SlurmctldTimeout=10",
            "SlurmdTimeout=10",
            "MessageTimeout=5",
        ]
        for node, port in zip(self.nodes, ports[1:], strict=True):
            lines.append(
                f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=512"
                " Gres=gpu:1"
            )
        everywhere = f"Nodes={','.join(self.nodes)} MaxTime=INFINITE State=UP"
        lines.append(f"PartitionName=batch {everywhere} Default=YES PriorityTier=1 PreemptMode=REQUEUE")
        lines.append(f"PartitionName=spare {everywhere} PriorityTier=1 PreemptMode=CANCEL")
        lines.append(f"PartitionName=urgent {everywhere} PriorityTier=2 PreemptMode=OFF")
        return "\n".join(lines) + "\n"

    def _accounted(self) -> list[str]:
        if not self.accounting:
            return ["AccountingStorageType=accounting_storage/none"]
        return [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={self._accounts_port}",
            f"AccountingStoragePass={self.folder}/munge/socket",  # its word for where munge is (slurm.conf(5))
            "AccountingStorageTRES=gres/gpu",
        ]


def _free_ports(number: int) -> Sequence[int]:
    held = [socket.socket() for _ in range(number)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@contextmanager
def running(nodes: int = 2, *, accounting: bool = False) -> Iterator[Slurm]:
    """Run one until the end of the block; with `accounting` its slurmdbd too, and a MariaDB for that."""
    folder = Path(tempfile.mkdtemp(prefix="kloros-slurm-"))
    slurm = Slurm(folder, nodes, accounting=accounting)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(folder, ignore_errors=True)
