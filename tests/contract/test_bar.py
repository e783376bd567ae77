"""The bar: on a terminal, and for what takes a while."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from orchestration.cycles.bar import WORTH_A_BAR

SHOWN = f"""
from orchestration.cycles.bar import bar
with bar("cycle 7", {{expected}}) as progress:
    print("told" if progress else "silent")
    if progress:
        progress({WORTH_A_BAR} // 2)
"""


@pytest.mark.parametrize(
    ("expected", "terminal", "said"),
    [(WORTH_A_BAR, True, "told"), (WORTH_A_BAR - 1, True, "silent"), (WORTH_A_BAR, False, "silent")],
)
def test_a_bar_is_shown_on_a_terminal_from_100_mb_on(expected: int, terminal: bool, said: str) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", SHOWN.format(expected=expected)],
        stdout=subprocess.PIPE,
        stderr=theirs if terminal else subprocess.DEVNULL,
        text=True,
        check=True,
    )
    os.write(theirs, b"end")  # so that there is something to read
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert done.stdout.strip() == said
    assert ("cycle 7" in shown and "50%" in shown) == (said == "told")
