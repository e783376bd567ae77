"""Digits of chance come by the block: none twice, in a child process neither."""

from __future__ import annotations

import os
import re

from orchestration.host import chance


def test_every_piece_is_new() -> None:
    pieces = [chance.digits() for _ in range(2000)]
    assert len(set(pieces)) == 2000
    assert all(re.fullmatch(r"[0-9a-f]{20}", one) for one in pieces)


def test_a_child_does_not_give_what_its_parent_gives() -> None:
    chance.digits()  # so that a block is open
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, chance.digits().encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, chance.DIGITS).decode()
    os.close(reading)
    os.close(writing)
    assert told not in [chance.digits() for _ in range(600)]
