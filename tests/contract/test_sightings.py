"""Lines in a cycle's output that rules watch for: all counted, the first kept, whatever the output is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.cycles import sightings
from orchestration.cycles.sightings import NAMED, Sighting, look
from orchestration.settings import Observer

CRITICAL = {"critical": r"\bCRITICAL\b"}


def seen(folder: Path, content: bytes, patterns: dict[str, str] = CRITICAL) -> dict[str, Sighting]:
    path = folder / "output.log"
    path.write_bytes(content)
    return look(str(path), patterns)


def test_each_line_counts_once_and_the_first_are_kept(tmp_path: Path) -> None:
    lines = [f"{n} CRITICAL and CRITICAL again" if n % 2 else f"{n} fine" for n in range(100)]
    found = seen(tmp_path, "\n".join(lines).encode())
    assert found["critical"].number == 50
    assert found["critical"].lines == tuple(lines[1 : 2 * NAMED : 2])


def test_a_rule_that_saw_nothing_is_left_out(tmp_path: Path) -> None:
    assert seen(tmp_path, b"all is well\nNOT CRITICALLY so\n") == {}
    assert seen(tmp_path, b"CRITICAL", {}) == {}
    assert look(str(tmp_path / "absent"), CRITICAL) == {}
    assert look(str(tmp_path), CRITICAL) == {}


@pytest.mark.parametrize("at", [(1 << 20) - 12, (1 << 20) - 4, 1 << 20, (3 << 20) - 9])
def test_a_line_across_two_pieces_is_one_line(tmp_path: Path, at: int) -> None:
    filler = b"." * 63 + b"\n"
    before = (filler * (at // 64 + 1))[: at - 1] + b"\n"
    found = seen(tmp_path, before + b"so CRITICAL it is\n" + filler * 30_000)
    assert found == {"critical": Sighting(1, ("so CRITICAL it is",))}


def test_what_is_no_text_and_no_line_is_looked_at_too(tmp_path: Path) -> None:
    found = seen(tmp_path, b"\x00\xff" * (1 << 20) + b" CRITICAL \x1b[31m\xff" + b"x" * (2 << 20))
    assert found["critical"].number == 1
    (line,) = found["critical"].lines
    assert line.isprintable()
    assert len(line) <= 300


def test_an_empty_match_comes_to_an_end(tmp_path: Path) -> None:
    assert seen(tmp_path, b"a\n\nb\n", {"any": "x*"})["any"].number >= 3


def test_it_stops_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "MOST_SECONDS", -1.0)
    found = seen(tmp_path, (b"CRITICAL\n" * 200_000))
    assert 0 < found["critical"].number < 200_000


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "gpu_out_of_memory"),
        ("RuntimeError: CUDA error: out of memory", "gpu_out_of_memory"),
        ("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY", "gpu_out_of_memory"),
        ("torch.OutOfMemoryError: HIP out of memory.", "gpu_out_of_memory"),
        ("hipErrorOutOfMemory: out of memory", "gpu_out_of_memory"),
        ("cudaErrorMemoryAllocation", "gpu_out_of_memory"),
        ("2026-11-21 03:00:01 CRITICAL trainer: giving up", "critical_line"),
        ("FATAL:  terminating connection", "critical_line"),
        ("MemoryError: out of memory", ""),
        ("this is not critical, nor fatal", ""),
    ],
)
def test_the_patterns_of_the_default_rules(tmp_path: Path, line: str, rule: str) -> None:
    patterns = {name: one.pattern for name, one in Observer().rules.items() if one.pattern}
    assert list(seen(tmp_path, f"before\n{line}\nafter\n".encode(), patterns)) == ([rule] if rule else [])
