"""What the hashes of the audit are of: JSON that any other program writes alike."""

from __future__ import annotations

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from orchestration.bridge.chain import digest

_NAMES = (
    "chain", "link", "at", "workspace_id", "actor", "role", "request_id", "operation", "thread_id", "outcome", "rule",
    "state_before", "state_after",
)  # fmt: skip
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.fixed_dictionaries({name: st.none() | _TEXTS for name in _NAMES}), st.integers(1, 2**63 - 1), _TEXTS)
def test_a_row_s_hash_is_of_the_hash_before_it_and_its_columns_in_order(
    row: dict[str, str | int | None], link: int, previous: str
) -> None:
    row["link"] = link
    text = json.dumps([previous, *(row[name] for name in _NAMES)], ensure_ascii=False, separators=(",", ":"))
    assert digest(row, previous) == hashlib.sha256(text.encode()).hexdigest()
