"""A leader's tick and its runner, met by a fault before each of their messages to the database: paused until another leads
and then continued, or killed. Nothing is written by who leads no more, and the scope comes to the same end.

Some of the messages in CI, each of them with `KLR_TEST_FAULTS` set.
"""

from __future__ import annotations

import os

import pytest

from tests.field.field import Field
from tests.field.play import Play

EVERY = "KLR_TEST_FAULTS" in os.environ
STRIDE = 1 if EVERY else 11
MESSAGES = 150
"""More than any of them sends."""


def test_a_leader_paused_at_any_message_writes_nothing_when_it_goes_on(field: Field) -> None:
    play = Play(field)
    for serial, number in enumerate(range(1, MESSAGES, STRIDE)):
        former, epoch = play.lease
        victim, successor = play.leader, play.standbys[serial % 2]
        play.truth.promote(victim.name, f"p{number}")
        paused = play.until_message(victim, "run_once", number, "STOP")
        if paused is None:
            assert number > 50, "a tick that queues a cycle sends more than that"
            break
        play.expire()
        code, said = play.step(successor)
        assert code == 0, said
        assert play.lease == (successor.name, epoch + 1), f"message {number}"
        before = field.ask("SELECT count(*) FROM field_account")
        play.go_on(victim)
        assert paused.wait(45) in (0, 69), (victim.home / "output").read_text()[-2000:]
        assert field.ask("SELECT count(*) FROM field_account") == before, f"{former} wrote after message {number}"
        play.settle()
        play.truth.assert_settled()
    else:
        raise AssertionError("it sends more messages than were tried")


@pytest.mark.parametrize("entry", ["run_once", "run_cycle"])
def test_killed_at_any_message(field: Field, entry: str) -> None:
    play = Play(field)
    for number in range(2, MESSAGES, STRIDE):
        victim = play.leader
        play.truth.promote(victim.name, f"p{number}")
        play.truth.intend(victim.name, "suggest_something", serial=number)
        if entry == "run_cycle":
            assert victim.run("run_once").returncode == 0
        killed = play.until_message(victim, entry, number, "KILL")
        if number % 2:  # the others go on, or it does itself
            play.expire()
            play.step(play.standbys[0])
        play.settle()
        play.truth.assert_settled()
        if killed is None:
            assert number > 15, "it sends more than that"
            return
    raise AssertionError("it sends more messages than were tried")
