"""How busy the host is: what the kernel and `nvidia-smi` say, and what of it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.host import clock, load
from tests.acceptance.host import script

PSI = "some avg10=0.00 avg60=12.50 avg300=3.01 total=1\nfull avg10=0.00 avg60=99.00 avg300=0.00 total=1\n"


def test_pressure_is_that_of_the_last_minute(tmp_path: Path) -> None:
    (tmp_path / "cpu").write_text(PSI)
    (tmp_path / "io").write_text("some avg10=a avg60=b\n")
    (tmp_path / "memory").write_text("")
    assert load.pressures(str(tmp_path)) == {"cpu": 12.5}
    assert load.pressures(str(tmp_path / "absent")) == {}


def test_this_host_has_a_load() -> None:
    assert load.load_each() >= 0


@pytest.mark.parametrize(
    ("lines", "used"),
    [
        (["echo 3", "echo ' 87 '"], 87.0),
        (["echo '[N/A]'"], None),
        (["echo 'Failed to initialize NVML'; exit 9"], None),
        (["echo 50; exit 1"], None),
    ],
)
def test_the_busiest_gpu_counts_and_what_is_no_answer_says_nothing(
    tmp_path: Path, lines: list[str], used: float | None
) -> None:
    script(tmp_path, "nvidia-smi", lines)
    assert load.gpu({"PATH": f"{tmp_path}:/usr/bin:/bin"}) == used


def test_without_the_program_nobody_can_tell(tmp_path: Path) -> None:
    assert load.gpu({"PATH": str(tmp_path)}) is None
    (tmp_path / "nvidia-smi").write_text("no program")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert load.gpu({"PATH": str(tmp_path)}) is None


@pytest.mark.filterwarnings("ignore:subprocess")  # it is not waited for, on purpose
def test_a_driver_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    script(tmp_path, "nvidia-smi", ["exec tail -f /dev/null"])
    began = clock.monotonic()
    assert load.gpu({"PATH": f"{tmp_path}:/usr/bin:/bin"}, seconds=0.2) is None
    assert clock.monotonic() - began < 5


def test_what_is_above_its_limit_is_said() -> None:
    assert load.busy(max_pressure=100, max_load=10_000, max_gpu=100) == ""
    assert "for each processor, the limit is -1" in load.busy(max_pressure=100, max_load=-1, max_gpu=100)
