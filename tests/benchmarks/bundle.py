"""How fast a bundle is made, verified and unpacked, against `tar --zstd` on the same folder.

    python tests/benchmarks/bundle.py [MEGABYTES]

Goal (issue 3): at least 0.7 times the throughput of `tar --zstd`. Both sides in turns, medians; needs tar and zstd. Ours
also takes the checksum, checks links, and syncs; in the second figure `sha256sum` and `sync -f` go with `tar`.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from orchestration.cycles import bundle, unbundling

RUNS = 7
WORDS = [f"word{number:04d}" for number in range(2000)]


def main() -> None:
    """Measure and print."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "cycle_00001")
        size = _fill(folder, megabytes)
        out = Path(home, "out")
        theirs = f"tar -C {home} --zstd -cf {home}/theirs.tar.zst cycle_00001"
        checked = f"{theirs} && sha256sum {home}/theirs.tar.zst > {home}/sum && sync -f {home}/theirs.tar.zst"
        made, tar, whole = _medians(
            lambda: bundle.make(str(folder), str(out), form=bundle.ZSTD), lambda: _shell(theirs), lambda: _shell(checked)
        )
        path = str(out / "cycle_00001.tar.zst")
        print(f"{size / 1e6:.0f} MB in {sum(len(files) for _, _, files in os.walk(folder))} files, packed {_size(path)} MB")
        _tell("make", size, made, tar, whole)
        to = Path(home, "to")

        def ours() -> None:
            unbundling.extract(path, str(to))
            shutil.rmtree(to)

        def others() -> None:
            _shell(f"mkdir {to} && tar -C {to} --zstd -xf {home}/theirs.tar.zst && rm -r {to}")

        verified, extracted, untarred = _medians(lambda: unbundling.verify(path), ours, others)
        print(f"verify  {size / 1e6 / verified:8.0f} MB/s")
        _tell("extract", size, extracted, untarred, untarred)


def _fill(folder: Path, megabytes: int) -> int:
    """Make what a cycle leaves: logs, telemetry, models that hardly compress, and many small files."""
    chance = random.Random(1)
    (folder / "logs").mkdir(parents=True)
    (folder / "artifacts" / "small").mkdir(parents=True)
    text = "\n".join(" ".join(chance.choices(WORDS, k=12)) for _ in range(20_000)).encode()
    for number in range(max(1, megabytes // 8)):
        (folder / "logs" / f"{number}.jsonl").write_bytes(text * 2)
        (folder / "artifacts" / f"{number}.bin").write_bytes(chance.randbytes(4_000_000))
    for number in range(2000):
        (folder / "artifacts" / "small" / f"{number}.json").write_bytes(text[number : number + 1500])
    return bundle.size_of(str(folder))


def _medians(*ways: Callable[[], object]) -> list[float]:
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(RUNS):
        for number, way in enumerate(ways):
            began = time.monotonic()
            way()
            taken[number].append(time.monotonic() - began)
    return [statistics.median(each) for each in taken]


def _shell(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True)


def _size(path: str) -> str:
    return f"{os.stat(path).st_size / 1e6:.0f}"


def _tell(what: str, size: int, ours: float, tar: float, whole: float) -> None:
    rates = [size / 1e6 / seconds for seconds in (ours, tar, whole)]
    print(f"{what:<8}{rates[0]:8.0f} MB/s, tar {rates[1]:.0f}, with sum and sync {rates[2]:.0f}: {rates[0] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
