"""Threads that are over and old go into archives, and out of the store; nothing else does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.bridge import archive
from orchestration.bridge.caller import Role
from orchestration.bridge.commands import Commands
from orchestration.bridge.expiry import Expiry
from orchestration.bridge.port import Store
from tests.acceptance.bridging import Bridge, caller, play

EXECUTIONER, REVIEWER, LEAD = caller("executioner"), caller("reviewer"), caller("lead", Role.COORDINATOR)
OPERATOR = caller("operator:ada", Role.OPERATOR)
DAY = timedelta(days=1)
KEEPS = {"kloros": 30 * DAY}


async def closed(bridge: Bridge, *bodies: str) -> str:
    thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
    for body in bodies:
        await bridge.ask(EXECUTIONER, "post_message", thread_id=thread_id, body=body, idempotency_key=body)
    await bridge.event(REVIEWER, thread_id, "finding_reported", "F-1")
    await bridge.ask(LEAD, "update_thread_status", thread_id=thread_id, status="closed", reason="done")
    return str(thread_id)


async def left(store: Store) -> list[str]:
    return [one.thread_id for one in await store.threads(workspace_id=None)]


def test_only_what_is_over_and_old_goes_and_an_import_gives_it_back(place: str, tmp_path: Path) -> None:
    async def scene(bridge: Bridge) -> None:
        old = await closed(bridge, "needle one", "needle two")
        still_open = await bridge.thread(EXECUTIONER, REVIEWER)
        bridge.clock.passes((20 * DAY).total_seconds())
        young = await closed(bridge, "needle three")
        bridge.clock.passes((11 * DAY).total_seconds())
        before = await bridge.ask(LEAD, "read_messages", thread_id=old)
        assert await Expiry(bridge.commands, {}, str(tmp_path), now=bridge.clock).run(OPERATOR) == []
        expiry = Expiry(bridge.commands, KEEPS, str(tmp_path), now=bridge.clock)
        assert [one.thread_id for one in await expiry.run(OPERATOR, dry=True)] == [old]
        assert old in await left(bridge.store)
        (gone,) = await expiry.run(OPERATOR)
        assert (gone.thread_id, gone.workspace_id) == (old, "kloros")
        assert set(await left(bridge.store)) == {still_open, young}
        assert await bridge.code(EXECUTIONER, "get_thread", thread_id=old) == "NOT_FOUND"
        assert await bridge.code(EXECUTIONER, "post_message", thread_id=old, body="x") == "NOT_FOUND"
        found = (await bridge.ask(LEAD, "search_messages", query="needle")).messages
        assert [one.body for one in found] == ["needle three"]
        assert await bridge.store.findings(old) == ()
        told = (await bridge.store.audit(workspace_id="kloros", limit=500))[-3:]
        assert "expire_thread" in {one.operation for one in told}
        assert not (await bridge.store.verify()).faults
        assert await expiry.run(OPERATOR) == []

        with open(gone.path, encoding="utf-8") as file:
            ((thread, messages, sha256),) = archive.read(file)
        assert Path(gone.path).stat().st_mode & 0o777 == 0o600
        assert await bridge.commands.import_thread(OPERATOR, thread, messages, sha256)
        assert await bridge.ask(LEAD, "read_messages", thread_id=old) == before
        assert len((await bridge.ask(LEAD, "search_messages", query="needle")).messages) == 3
        assert not (await bridge.store.verify()).faults
        assert await expiry.run(OPERATOR) == []  # given back for as long as a new one

    play(place, scene)


def test_what_changes_while_it_is_archived_stays(place: str, tmp_path: Path) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await closed(bridge, "one")
        bridge.clock.passes((31 * DAY).total_seconds())

        class Touched(Commands):
            async def remove_thread(self, *given: Any, **more: Any) -> bool:
                await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, body="late")  # a refusal, audited
                return await super().remove_thread(*given, **more)

        touched = Touched(bridge.store, bridge.rules, now=bridge.clock)
        assert await Expiry(touched, KEEPS, str(tmp_path), now=bridge.clock).run(OPERATOR) == []
        assert await left(bridge.store) == [thread_id]
        (gone,) = await Expiry(bridge.commands, KEEPS, str(tmp_path), now=bridge.clock).run(OPERATOR)
        assert "late" not in Path(gone.path).read_text()
        assert "INVALID_THREAD_TRANSITION" in Path(gone.path).read_text() or "CONFLICT" in Path(gone.path).read_text()

    play(place, scene)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_either_side_of_the_removal_the_next_pass_ends_it(place: str, tmp_path: Path, when: str) -> None:
    async def scene(bridge: Bridge) -> None:
        ids = {await closed(bridge, "one"), await closed(bridge, "two")}
        bridge.clock.passes((31 * DAY).total_seconds())

        class Dies(Commands):
            async def remove_thread(self, *given: Any, **more: Any) -> bool:
                if when == "after":
                    await super().remove_thread(*given, **more)
                raise Killed

        dies = Dies(bridge.store, bridge.rules, now=bridge.clock)
        with pytest.raises(Killed):
            await Expiry(dies, KEEPS, str(tmp_path), now=bridge.clock).run(OPERATOR)
        await Expiry(bridge.commands, {"*": DAY}, str(tmp_path), now=bridge.clock).run(OPERATOR)
        assert await left(bridge.store) == []
        archives = sorted((tmp_path / "kloros").iterdir())
        assert {one.name.partition(".")[0] for one in archives} == ids
        assert len(archives) == 2
        for one in archives:
            assert len(list(archive.read(one.read_text().splitlines()))) == 1

    play(place, scene)
