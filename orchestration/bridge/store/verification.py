"""Walks the chains of the audit, page by page; pure, so that each store gives the pages in its own way."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

from orchestration.bridge.chain import START, Head, digest
from orchestration.bridge.state import ChainFault, ChainsVerified
from orchestration.bridge.store import rows
from orchestration.bridge.store.rows import Found

_PAGE: Final = 1000


def verified(heads: Iterable[Found]) -> Generator[tuple[str, int, int], list[Found], ChainsVerified]:
    """Yield which rows are wanted next (after chain and link, at most so many), and return what was found in all."""
    expected = {row["chain"]: Head(row["links"], row["head"]) for row in heads}
    faults: list[ChainFault] = []
    entries, chain, head = 0, "", Head()
    chains = {name for name, end in expected.items() if end.links}
    while page := (yield chain, head.links, _PAGE):
        for row in page:
            if row["chain"] != chain:
                faults += _end(chain, head, expected)
                chain, head = row["chain"], Head()
                chains.add(chain)
            if row["link"] != head.links + 1:
                faults.append(ChainFault(chain=chain, link=row["link"], what=f"rows after {head.links} are missing"))
            elif row["sha256"] != digest(rows.hashed_columns(row), head.sha256):
                faults.append(ChainFault(chain=chain, link=row["link"], what="the row is not what was written"))
            head = Head(row["link"], row["sha256"])
            entries += 1
    faults += _end(chain, head, expected)
    for name, end in sorted(expected.items()):
        if end.links and end.sha256 != START:
            faults.append(ChainFault(chain=name, link=0, what=f"all {end.links} rows are missing"))
    return ChainsVerified(chains=len(chains), entries=entries, faults=tuple(faults))


def _end(chain: str, head: Head, expected: dict[str, Head]) -> list[ChainFault]:
    if not chain:
        return []
    end = expected.pop(chain, None)
    if end == head:
        return []
    what = f"must end with row {end.links}" if end is not None else "belongs to nothing that is there"
    return [ChainFault(chain=chain, link=head.links, what=f"ends with row {head.links}, {what}")]
