"""Lines in a cycle's output that rules watch for: all counted, the first kept, whatever the output is made of."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.cycles import line_search, sightings
from orchestration.cycles.line_search import LONGEST, NAMED
from orchestration.cycles.sightings import NOTHING, Sighting, look
from orchestration.settings import Observer

CRITICAL = {"critical": r"\bCRITICAL\b"}


def seen(folder: Path, content: bytes, patterns: dict[str, str] = CRITICAL) -> dict[str, Sighting]:
    path = folder / "output.log"
    path.write_bytes(content)
    found = look(str(path), patterns)
    assert found.unfinished == ()
    return dict(found.sightings)


def test_each_line_counts_once_and_the_first_are_kept(tmp_path: Path) -> None:
    lines = [f"{n} CRITICAL and CRITICAL again" if n % 2 else f"{n} fine" for n in range(100)]
    found = seen(tmp_path, "\n".join(lines).encode())
    assert found["critical"].number == 50
    assert found["critical"].lines == tuple(lines[1 : 2 * NAMED : 2])


def test_a_rule_that_saw_nothing_is_left_out(tmp_path: Path) -> None:
    assert seen(tmp_path, b"all is well\nNOT CRITICALLY so\n") == {}
    assert seen(tmp_path, b"CRITICAL", {}) == {}
    assert look(str(tmp_path / "absent"), CRITICAL) == NOTHING
    assert look(str(tmp_path), CRITICAL) == NOTHING


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


def test_a_line_is_longer_than_a_piece(tmp_path: Path) -> None:
    line = b"x" * (LONGEST - 9) + b" CRITICAL" + b" y" * LONGEST
    assert seen(tmp_path, b"CRITICAL\n" + line + b"\n" + line)["critical"].number == 3


def test_no_pattern_sees_beyond_a_line(tmp_path: Path) -> None:
    assert seen(tmp_path, b"disk\nfull\n", {"two": r"disk\s+full", "lines": r"(?s)disk.*full"}) == {}
    assert seen(tmp_path, b"a\nb\nc", {"all": r"\A.\Z"})["all"].number == 3


@pytest.mark.parametrize("pattern", [r"^(\w+\s?)*$", r"(?:a|b)*c"], ids=["time", "memory"])
def test_a_pattern_that_backtracks_is_given_up_and_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(sightings, "MOST_SECONDS", 0.5)
    output = tmp_path / "output.log"
    output.write_bytes(b"CRITICAL\n" + b"a" * 60 + b"!\n" + b"ab" * (4 << 20))
    begun = time.monotonic()
    found = look(str(output), {"before": "CRITICAL", "slow": pattern, **CRITICAL})
    assert time.monotonic() - begun < 30
    assert found.unfinished == ("slow",)
    assert found.sightings == {name: Sighting(1, ("CRITICAL",)) for name in ("before", "critical")}


def test_all_patterns_together_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"a" * 60 + b"!")
    begun = time.monotonic()
    found = look(str(tmp_path / "output.log"), {f"slow{n}": "(a+)+$" for n in range(50)}, within=0.5)
    assert time.monotonic() - begun < 10
    assert len(found.unfinished) == 50


def test_a_search_that_nobody_waits_for_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(b"a" * 60 + b"!")
    search = [sys.executable, line_search.__file__, str(tmp_path / "output.log"), "0.2"]
    done = subprocess.run(search, input=b'{"slow": "(a+)+$"}', capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGALRM


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
