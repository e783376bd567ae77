"""What a quiet tick costs on PostgreSQL, against one on SQLite: `python -m tests.benchmarks.tick_postgres`.

The lease and the sharing of files included. The server is another process, and what it spends is not counted.
As `tick.py`: medians of 15, the sides in turns. Instructions of user code by perf, where it is installed.
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import tempfile

import psycopg

from tests.benchmarks.tick import ROOT, RUNS, Side, _compare, _machine, _tick
from tests.contract.postgres import running

PORT = 5499


def main() -> None:
    """Measure and print."""
    compileall.compile_dir(os.path.join(ROOT, "orchestration"), quiet=1)
    folder = tempfile.mkdtemp(prefix="kloros-benchmark-")
    try:
        os.chmod(folder, 0o711)
        certificate, key = _certificate(folder)
        tls = ("ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}")
        with running("fsync=off", "listen_addresses=127.0.0.1", f"port={PORT}", *tls) as cluster:
            sides = {"SQLite": _tick(os.path.join(folder, "sqlite"))}
            for name, rest in (("socket", ""), ("TCP", "disable"), ("TCP with TLS", "require")):
                database = f"kloros_{len(sides)}"
                with psycopg.connect(f"{cluster.url('postgres')}&port={PORT}", autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {database}".encode())
                url = f"{cluster.url(database)}&port={PORT}"
                if rest:
                    url = f"postgresql://postgres@127.0.0.1:{PORT}/{database}?sslmode={rest}"
                sides[f"PostgreSQL, {name}"] = _on(os.path.join(folder, name.replace(" ", "-")), url)
            _print(sides)
    finally:
        shutil.rmtree(folder)


def _on(state_dir: str, url: str) -> Side:
    tick = _tick(state_dir)
    return tick._replace(environ={**tick.environ, "KLR_DATABASE_URL": url, "KLR_SCOPE_HOST": "one"})


def _print(sides: dict[str, Side]) -> None:
    costs = _compare(list(sides.values()))
    instructions = [_instructions(side) for side in sides.values()]
    print(_machine())
    print("\n| NOOP tick on | CPU | ratio | instructions | ratio | peak |\n|---|---|---|---|---|---|")
    for name, cost, counted in zip(sides, costs, instructions, strict=True):
        cpu = f"{cost.cpu * 1e3:.1f} ms | {cost.cpu / costs[0].cpu:.2f}"
        print(f"| {name} | {cpu} | {counted / 1e6:.0f} M | {counted / instructions[0]:.2f} | {cost.peak / 1024:.0f} MiB |")


def _instructions(side: Side) -> float:
    if shutil.which("perf") is None:
        return float("nan")
    perf = ["perf", "stat", "-x,", "-e", "instructions:u", *side.command]
    told = [subprocess.run(perf, env=side.environ, capture_output=True, text=True, check=True).stderr for _ in range(RUNS)]
    return statistics.median(float(line.partition(",")[0]) for text in told for line in text.splitlines() if "instr" in line)


def _certificate(folder: str) -> tuple[str, str]:
    made = os.path.join(folder, "certificate"), os.path.join(folder, "key")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -out {} -keyout {}".format(*made)
    subprocess.run(command.split(), check=True, capture_output=True)
    if os.geteuid() == 0:
        shutil.chown(made[1], "postgres")
    os.chmod(made[1], 0o600)
    return made


if __name__ == "__main__":
    main()
