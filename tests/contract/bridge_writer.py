"""A process that posts numbered messages and says of each when it is safe: `bridge_writer.py PLACE THREAD NAME FROM`.

Each has its number as its key; what isn't acknowledged is posted again under the same key, as a client does.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from tests.contract.bridging import posted_surely
from tests.contract.conftest import opened_at


async def main(place: str, thread_id: str, name: str, start: str) -> None:
    store = await opened_at(place)
    for number in count(int(start)):
        answer = await posted_surely(lambda: store, thread_id, name, number)
        print(number, answer.seq, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
