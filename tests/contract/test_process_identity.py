"""Who is meant by a pid."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest

from orchestration.host import clock, process_identity


def test_this_process_is_alive_and_a_different_start_or_boot_is_another() -> None:
    own = process_identity.current()
    assert process_identity.is_alive(own)
    assert not process_identity.is_alive(own._replace(start_time=own.start_time + 1))
    assert not process_identity.is_alive(own._replace(boot_id="00000000-0000-0000-0000-000000000000"))


def test_a_zombie_and_a_collected_process_are_dead() -> None:
    child = subprocess.Popen(["sleep", "600"])
    identity = process_identity.identify(child.pid)
    assert identity is not None
    assert process_identity.is_alive(identity)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process_identity.is_alive(identity)
    child.wait()
    assert not process_identity.is_alive(identity)
    assert process_identity.identify(child.pid) is None


@pytest.mark.parametrize("name", ["a b", ") Z 1 (", "(((", "x) y"])
def test_a_hostile_process_name_does_not_confuse_it(name: str) -> None:
    code = f"import signal; open('/proc/self/comm', 'w').write({name!r}); print(flush=True); signal.pause()"
    with subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        ticks = process_identity.start_time(child.pid)
        own = process_identity.start_time(os.getpid())
        child.kill()
    assert ticks is not None
    assert own is not None
    assert ticks >= own


def test_a_note_older_than_the_process_means_another_one() -> None:
    now = clock.now()
    assert process_identity.was_running_at(os.getpid(), now)
    assert not process_identity.was_running_at(os.getpid(), now - timedelta(days=400))
    assert not process_identity.was_running_at(2**22 + 1, now)
