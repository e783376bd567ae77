"""A bridge over commands in memory, as a process: prints its port and a token that is good for it."""

from __future__ import annotations

import asyncio
import sys

from tests.contract.bridging import bridged


async def main() -> None:
    async with bridged() as bridge:
        print(bridge.port, bridge.token, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
