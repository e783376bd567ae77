"""What this host has, and what a job may lack here."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestration.cycles import claims
from orchestration.cycles.cycle import JobName
from orchestration.host import capacity
from orchestration.settings import Needs, Settings


def test_it_is_what_the_kernel_tells() -> None:
    has = capacity.of_this_host()
    assert has.cpus == len(os.sched_getaffinity(0))
    with open("/proc/meminfo", encoding="ascii") as file:
        assert has.memory == int(file.readline().split()[1]) * 1024
    assert has.gpus >= 0


@pytest.mark.parametrize(
    ("needs", "lacks"),
    [
        ({}, ""),
        ({"cpus": 1, "memory": "1M"}, ""),
        ({"memory": "1"}, ""),
        ({"cpus": 99999}, "[dream.needs] asks for 99999 processors, it has "),
        ({"memory": "900T"}, "[dream.needs] asks for 900T of memory, it has "),
        ({"gpus": 4096}, "[dream.needs] asks for 4096 GPUs, it has "),
    ],
)
def test_what_is_lacking_is_told(needs: dict[str, Any], lacks: str) -> None:
    settings = cast("Settings", SimpleNamespace(dream=SimpleNamespace(needs=Needs(**needs))))
    told = claims.unmet(JobName.DREAM, settings)
    assert told.startswith(lacks)
    assert bool(told) == bool(lacks)
    assert claims.unmet(JobName.LOOP, settings) == ""
