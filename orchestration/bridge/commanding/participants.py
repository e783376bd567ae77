"""Commands about who is in a thread, and about waking one of them."""

from __future__ import annotations

from functools import partial
from typing import Final

from orchestration.bridge import audit, authority, wire
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.desk import Desk, caught, deferred
from orchestration.bridge.message import check_text
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Change, Facts, Member, ThreadRow, Trigger

_MAX_REASON: Final = 4000
_MAX_PROMPT: Final = 8 * 1024


class ParticipantCommands(Desk):
    """What can be asked about participants."""

    async def list_participants(self, caller: Caller, asked: wire.ListParticipants) -> wire.ParticipantsListed:
        """List who is in a thread."""
        await self.readable(caller, "list_participants", asked.thread_id)
        return wire.ParticipantsListed(participants=await self.store.participants(asked.thread_id))

    async def add_participant(self, caller: Caller, asked: wire.AddParticipant) -> wire.ParticipantChanged:
        """Take an agent into a thread; one that is in it already is a success that changes nothing."""

        def plan(facts: Facts, row: ThreadRow) -> Change[wire.ParticipantChanged]:
            is_changed = asked.agent_id not in facts.members
            if is_changed and len(facts.members) >= wire.MAX_PARTICIPANTS:
                raise Refused(
                    Code.CONFLICT,
                    f"The thread has {wire.MAX_PARTICIPANTS} participants, and takes no more.",
                    rule="participant.most",
                )
            role = caller.role if asked.agent_id == caller.agent_id else Role.PARTICIPANT
            joined = (Member(agent_id=asked.agent_id, role=role, joined_at=facts.now),) if is_changed else ()
            return _changed(caller, "add_participant", facts, row, asked.agent_id, joined=joined)

        return await self.in_thread(caller, "add_participant", asked.thread_id, plan, concerns=asked.agent_id)

    async def remove_participant(self, caller: Caller, asked: wire.RemoveParticipant) -> wire.ParticipantChanged:
        """Take an agent out of a thread, with its cursor; one that is not in it is a success that changes nothing."""

        def plan(facts: Facts, row: ThreadRow) -> Change[wire.ParticipantChanged]:
            left = (asked.agent_id,) if asked.agent_id in facts.members else ()
            return _changed(caller, "remove_participant", facts, row, asked.agent_id, left=left)

        return await self.in_thread(caller, "remove_participant", asked.thread_id, plan, concerns=asked.agent_id)

    async def trigger_participant(self, caller: Caller, asked: wire.TriggerParticipant) -> wire.TriggerQueued:
        """Queue that a participant be woken; the supervisor acts on it."""
        trigger_id = self.new_id("trg")
        check = caught(
            partial(check_text, "reason", asked.reason, limit=_MAX_REASON),
            partial(check_text, "trigger_prompt", asked.trigger_prompt, limit=_MAX_PROMPT),
        )
        reason = deferred(lambda: self.rules.filters.text(asked.reason))
        prompt = deferred(lambda: self.rules.filters.text(asked.trigger_prompt))

        def plan(facts: Facts, row: ThreadRow) -> Change[wire.TriggerQueued]:
            check()
            if asked.target_agent_id not in facts.members:
                raise authority.not_found("participant")
            if row.status is not wire.ThreadStatus.ACTIVE:
                raise Refused(
                    Code.CONFLICT,
                    f"The thread is {row.status}: nobody is woken for it.",
                    rule="trigger.active_thread",
                    details={"status": row.status.value},
                )
            trigger = Trigger(
                trigger_id=trigger_id,
                thread_id=row.thread_id,
                target=asked.target_agent_id,
                reason=reason(),
                prompt=prompt(),
                requested_by=caller.agent_id,
                created_at=facts.now,
                traceparent=caller.traceparent,
            )
            told = audit.note(
                caller,
                "trigger_participant",
                facts,
                thread_id=row.thread_id,
                after={"trigger_id": trigger_id, "target": trigger.target, "status": trigger.status},
            )
            answer = wire.TriggerQueued(trigger_id=trigger_id, created_at=facts.now)
            return Change(answer=answer, trigger=trigger, audit=(told,))

        return await self.in_thread(caller, "trigger_participant", asked.thread_id, plan, concerns=asked.target_agent_id)


def _changed(
    caller: Caller,
    method: str,
    facts: Facts,
    row: ThreadRow,
    agent_id: str,
    *,
    joined: tuple[Member, ...] = (),
    left: tuple[str, ...] = (),
) -> Change[wire.ParticipantChanged]:
    before = sorted(facts.members)
    after = sorted({*before, *(member.agent_id for member in joined)} - {*left})
    told = audit.note(
        caller,
        method,
        facts,
        thread_id=row.thread_id,
        before={"participants": before},
        after={"participants": after},
    )
    answer = wire.ParticipantChanged(thread_id=row.thread_id, agent_id=agent_id, changed=before != after)
    return Change(answer=answer, joined=joined, left=left, audit=(told,))
