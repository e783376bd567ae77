"""An agent for tests, as a program: it reads what waits for it in the thread of its prompt, answers, and says its session.

    python -m tests.acceptance.agent_of_paper STORE TURNS AGENT [SESSION]

It leaves one line in the file TURNS for each prompt that it was given, with the trigger's id: what tests count.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.acceptance.bridging import Bridge, caller, play


def main(place: str, turns: str, agent: str, session: str = "") -> None:
    """Do one turn."""
    prompt = sys.stdin.read()
    (thread_id,) = set(re.findall(r"thr_[0-9a-f]{32}", prompt))
    trigger_id = re.findall(r"trg_[0-9a-f]{32}", prompt)[0]
    who = caller(agent)

    async def turn(bridge: Bridge) -> None:
        from orchestration.host import clock

        bridge.clock.at = clock.now()
        read = await bridge.ask(who, "read_messages", thread_id=thread_id)
        await bridge.ask(who, "ack_read", thread_id=thread_id, last_read_seq=read.next_seq)
        await bridge.post(who, thread_id, "seen", to="executioner", idempotency_key=trigger_id)

    with open(turns, "a", encoding="ascii") as file:
        file.write(f"{trigger_id} {session or 'new'}\n")
    play(place, turn)
    print(json.dumps({"session_id": session or f"s-{trigger_id[-8:]}"}))


def turns_in(path: Path) -> list[str]:
    """Return the trigger of each turn that there was."""
    try:
        return [line.split()[0] for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main(*sys.argv[1:])
