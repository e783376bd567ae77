"""A bridge over commands in memory, as a process: prints its port and a token that is good for it. `--null`: over none."""

from __future__ import annotations

import asyncio
import sys

from orchestration.bridge import wire
from orchestration.bridge.caller import Caller
from tests.contract.bridge_served import AT, Remembering, bridged


class Null(Remembering):
    """Commands that do nothing."""

    async def _post_message(self, caller: Caller, asked: wire.PostMessage) -> wire.MessagePosted:
        self.asked.clear()
        return wire.MessagePosted(message_id="msg_" + "0" * 32, seq=1, thread_status=wire.ThreadStatus.ACTIVE, created_at=AT)


async def main() -> None:
    async with bridged(Null() if "--null" in sys.argv else None) as bridge:
        print(bridge.port, bridge.token, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
