"""Plans a batch of changes over facts that one transaction has loaded under lock, and says what rows it must write.

Pure: an adapter loads what `Wanted` names, gives each waiting change to `Batch.add` in turn, writes `Batch.rows()` and
commits. Each change sees those before it; one whose plan fails leaves nothing behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, NamedTuple

from orchestration.bridge.chain import Head, digest, workspace_chain
from orchestration.bridge.state import (
    Answer,
    Ask,
    AuditNote,
    Change,
    Facts,
    Finding,
    Member,
    Plan,
    Rate,
    Remembered,
    Session,
    ThreadRow,
)
from orchestration.bridge.store import rows
from orchestration.bridge.store.rows import Row


class Defect(Exception):
    """A plan asked for what no store may write; the text names it and no content."""


class Outcome(NamedTuple, Generic[Answer]):
    """What one change comes to, once the batch is on disk."""

    answer: Answer | None
    refused: Exception | None


class Wanted:
    """What the asks of a batch need looked up."""

    def __init__(self, asks: Iterable[Ask]) -> None:
        self.threads: list[str] = []
        self.agents: set[tuple[str, str]] = set()
        """Workspace, agent; for an operator the workspace is only known once the thread is."""
        self.keys: set[tuple[str, str, str]] = set()
        self.findings: set[tuple[str, str]] = set()
        self.replies: set[str] = set()
        self.sessions: set[tuple[str, str, str]] = set()
        threads = set()
        for ask in asks:
            workspace_id, thread_id = ask.workspace_id or "", ask.thread_id
            if ask.agent_id:
                self.agents.add((workspace_id, ask.agent_id))
            if ask.session_id is not None:
                self.sessions.add((workspace_id, ask.agent_id, ask.session_id))
            if thread_id is None:
                continue
            threads.add(thread_id)
            if ask.idempotency_key is not None:
                self.keys.add((thread_id, ask.agent_id, ask.idempotency_key))
            if ask.finding_id is not None:
                self.findings.add((thread_id, ask.finding_id))
            if ask.replies_to is not None:
                self.replies.add(ask.replies_to)
        self.threads = sorted(threads)  # every process takes locks in this order


@dataclass(slots=True)
class Loaded:
    """What was found of what was wanted."""

    threads: dict[str, ThreadRow] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    """Of the audit, by chain."""
    versions: dict[str, int] = field(default_factory=dict)
    """Of each thread and its members: changes with every change of them."""
    members: dict[str, dict[str, Member]] = field(default_factory=dict)
    rates: dict[tuple[str, str], Rate] = field(default_factory=dict)
    keys: dict[tuple[str, str, str], Remembered] = field(default_factory=dict)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    """Thread by message id."""
    sessions: dict[tuple[str, str, str], Session] = field(default_factory=dict)

    def fill(
        self,
        *,
        threads: Iterable[Any] = (),
        members: Iterable[Any] = (),
        rates: Iterable[Any] = (),
        keys: Iterable[Any] = (),
        findings: Iterable[Any] = (),
        sessions: Iterable[Any] = (),
    ) -> None:
        """Take in what was found, as rows of the queries that load."""
        for row in threads:
            self.threads[row["thread_id"]] = rows.thread(row)
            self.heads[row["thread_id"]] = Head(row["links"], row["head"])
            self.versions[row["thread_id"]] = row["version"]
        for row in members:
            self.members.setdefault(row["thread_id"], {})[row["agent_id"]] = rows.member(row)
        for row in rates:
            self.rates[row["workspace_id"], row["agent_id"]] = rows.rate(row)
        for row in keys:
            self.keys[row["thread_id"], row["sender"], row["idempotency_key"]] = rows.remembered(row)
        for row in findings:
            self.findings[row["thread_id"], row["finding_id"]] = rows.finding(row)
        for row in sessions:
            self.sessions[row["workspace_id"], row["agent_id"], row["session_id"]] = rows.session(row)

    def chains_to_lock(self, asks: Iterable[Ask]) -> list[str]:
        """Return the workspaces whose own chain may be written to, by asks that no thread answers and by removals."""
        return sorted({ask.workspace_id or "" for ask in asks if ask.removes or self.visible(ask) is None})

    def visible(self, ask: Ask) -> ThreadRow | None:
        """Return the thread, unless it is another workspace's."""
        thread = self.threads.get(ask.thread_id) if ask.thread_id is not None else None
        return thread if thread is not None and ask.workspace_id in (None, thread.workspace_id) else None


class Batch:
    """Changes that share a commit."""

    def __init__(self, loaded: Loaded) -> None:
        self.known = loaded
        """What was loaded, and what became of it."""
        self._written = defaultdict[str, list[Row]](list)
        """Rows by what is done with them. Those `joined` go in the place of any earlier ones."""
        self._threads: dict[str, bool] = {}
        """Those that changed; True for one made in this batch."""
        self._members: dict[tuple[str, str], Member | None] = {}
        self.posted: dict[tuple[str, str], int] = {}
        """How many posts to add, by workspace and agent: other writers count on the same rows."""
        self._findings: set[tuple[str, str]] = set()
        self._sessions: set[tuple[str, str, str]] = set()
        self._workspaces: set[str] = set()
        self.outcomes: list[Outcome[Any]] = []

    @property
    def news(self) -> dict[str, int]:
        """The last number of each thread that changed."""
        return {thread_id: self.known.threads[thread_id].last_seq for thread_id in self._threads}

    def validated(self, asks: Iterable[Ask]) -> bool:
        """Tell whether every answer rests on a thread that is written, so that writing it proves what was known of it."""
        for ask, outcome in zip(asks, self.outcomes, strict=True):
            if outcome.refused is not None or ask.thread_id not in self._threads:
                return False
        return True

    def proof(self) -> Row | None:
        """Return an audit row by which to find out whether the batch was committed."""
        audit = self._written.get("audit")
        return audit[0] if audit else None

    def add(self, ask: Ask, plan: Plan[Answer], now: datetime) -> None:
        """Plan one change on top of those before; what its plan raises is its outcome."""
        try:
            change = plan(self._facts(ask, now))
            if change.refusal is not None:
                change = Change(audit=change.audit, refusal=change.refusal)
            self._check(ask, change)
            self._apply(ask, change, now)
        except Exception as error:
            self.outcomes.append(Outcome(None, error))
        else:
            self.outcomes.append(Outcome(change.answer, change.refusal))

    def rows(self) -> dict[str, list[Row]]:
        """Return all there is to write for them, by what is done with it; removals come last. To be asked once."""
        out, now = self._written, self.known
        for thread_id, created in sorted(self._threads.items()):
            now.versions[thread_id] = now.versions.get(thread_id, 0) + 1
            row = rows.thread_row(now.threads[thread_id], now.heads[thread_id], now.versions[thread_id])
            out["created" if created else "threads"].append(row)
        for (thread_id, agent_id), member in self._members.items():
            if member is None:
                out["left"].append({"thread_id": thread_id, "agent_id": agent_id})
            else:
                out["joined"].append(rows.member_row(thread_id, member))
        # In one order everywhere, so that two writers never wait for each other.
        for key in sorted(self.posted):
            out["rates"].append(rows.rate_row(*key, Rate(minute=now.rates[key].minute, posts=self.posted[key])))
        for finding in sorted(self._findings):
            out["findings"].append(rows.finding_row(finding[0], now.findings[finding]))
        for session in sorted(self._sessions):
            out["sessions"].append(rows.session_row(now.sessions[session]))
        for workspace_id in sorted(self._workspaces):
            head = now.heads[workspace_chain(workspace_id)]
            out["chains"].append({"workspace_id": workspace_id, "links": head.links, "head": head.sha256})
        if "removed" in out:
            out["removed"] = out.pop("removed")
        return dict(out)

    def _facts(self, ask: Ask, at: datetime) -> Facts:
        now, thread = self.known, self.known.visible(ask)
        workspace_id = ask.workspace_id or (thread.workspace_id if thread else "")
        thread_id = thread.thread_id if thread else ""
        elsewhere = thread is None and ask.thread_id in now.threads
        members = now.members.get(thread_id) or {}
        rate = now.rates.get((workspace_id, ask.agent_id)) or Rate()
        remembered = now.keys.get((thread_id, ask.agent_id, ask.idempotency_key)) if ask.idempotency_key else None
        finding = now.findings.get((thread_id, ask.finding_id)) if ask.finding_id else None
        replied_to = thread is not None and ask.replies_to is not None and now.replies.get(ask.replies_to) == thread_id
        session = now.sessions.get((workspace_id, ask.agent_id, ask.session_id)) if ask.session_id else None
        links = now.heads[thread_id].links if thread_id in now.heads else 0
        return Facts(at, members, thread, elsewhere, rate, remembered, finding, replied_to, session, links)

    def _check(self, ask: Ask, change: Change[Any]) -> None:
        """Refuse what would break the store's own promises, before anything of it is merged."""
        thread = change.created or self.known.visible(ask)
        of_thread = change.status or change.joined or change.left or change.read or change.posts or change.progress
        if change.removed and (thread is None or not ask.removes or ask.workspace_id is None):
            raise Defect("a removal that was not asked for")
        if thread is None and (of_thread or change.findings or change.trigger):
            raise Defect("a change of a thread that is not there")
        if change.created and (change.created.thread_id != ask.thread_id or ask.thread_id in self.known.threads):
            raise Defect("a new thread must have the id that was asked for, and none may have it yet")
        for number, post in enumerate(change.posts, thread.last_seq + 1 if thread else 1):
            if thread is None or post.message.seq != number or post.message.thread_id != thread.thread_id:
                raise Defect("a message that does not follow on the last one of its thread")

    def _apply(self, ask: Ask, change: Change[Any], at: datetime) -> None:
        if change.removed:
            self._remove(ask, change)
            return
        # What can fail for its content (JSON, sizes of numbers) comes first: then nothing is merged yet.
        posts = [rows.post_row(post) for post in change.posts]
        now, out = self.known, self._written
        before = change.created or now.visible(ask)
        audit = self._linked(change.audit, before.thread_id if before else workspace_chain(ask.workspace_id or ""))
        if change.trigger is not None:
            out["triggers"].append(rows.trigger_row(change.trigger))
        if change.revocation is not None:
            out["revocations"].append(rows.revocation_row(change.revocation))
        if change.session is not None:
            key = (change.session.workspace_id, change.session.agent_id, change.session.session_id)
            now.sessions[key] = change.session
            self._sessions.add(key)
        if posts:
            out["posts"] += posts
        if audit:
            out["audit"] += audit
        if before is None:
            if audit:
                self._workspaces.add(ask.workspace_id or "")
            return
        self._apply_to_thread(ask, before, change, at)
        if audit or change.created or change.read or change.findings or now.threads[before.thread_id] is not before:
            self._threads[before.thread_id] = self._threads.get(before.thread_id, False) or change.created is not None

    def _remove(self, ask: Ask, change: Change[Any]) -> None:
        """Write down that a thread goes, and know it no more; what the batch has changed of it before goes as well."""
        now, out, thread_id, workspace_id = self.known, self._written, ask.thread_id or "", ask.workspace_id or ""
        out["audit"] += self._linked(change.audit, workspace_chain(workspace_id))
        self._workspaces.add(workspace_id)
        out["removed"].append({"thread_id": thread_id})
        for known in (now.threads, now.members, now.heads, now.versions, self._threads):
            known.pop(thread_id, None)
        self._members = {key: member for key, member in self._members.items() if key[0] != thread_id}
        self._findings = {key for key in self._findings if key[0] != thread_id}

    def _apply_to_thread(self, ask: Ask, before: ThreadRow, change: Change[Any], at: datetime) -> None:
        now, thread_id = self.known, before.thread_id
        members = now.members.get(thread_id) or {}
        if change.joined or change.left or change.read is not None:  # a batch that others rest on keeps its own
            now.members[thread_id] = members = dict(members)
        for member in change.joined:
            self._members[thread_id, member.agent_id] = members[member.agent_id] = member
        for agent_id in change.left:
            if members.pop(agent_id, None) is not None:
                self._members[thread_id, agent_id] = None
        if change.read is not None:
            agent_id, cursor = change.read
            members[agent_id] = self._members[thread_id, agent_id] = members[agent_id]._replace(last_read_seq=cursor)
        for finding in change.findings:
            now.findings[thread_id, finding.finding_id] = finding
            self._findings.add((thread_id, finding.finding_id))
        for post in change.posts:
            message = post.message
            if message.sender == ask.agent_id:  # what the bridge itself adds counts against nobody
                rate_of = (before.workspace_id, message.sender)
                now.rates[rate_of] = (now.rates.get(rate_of) or Rate()).counted(at)
                self.posted[rate_of] = self.posted.get(rate_of, 0) + 1
            now.replies[message.message_id] = thread_id
            if post.idempotency_key is not None:
                now.keys[thread_id, message.sender, post.idempotency_key] = rows.remembered_post(post)
        now.threads[thread_id] = _after(before, change, at)
        now.heads.setdefault(thread_id, Head())

    def _linked(self, notes: tuple[AuditNote, ...], chain: str) -> list[Row]:
        head, linked = self.known.heads.get(chain) or Head(), []
        for note in notes:
            row = rows.audit_row(note, chain, head.links + 1)
            head = Head(head.links + 1, digest(row, head.sha256))
            row["sha256"] = head.sha256
            linked.append(row)
        self.known.heads[chain] = head
        return linked


def _after(thread: ThreadRow, change: Change[Any], at: datetime) -> ThreadRow:
    if not (change.posts or change.status or change.joined or change.left or change.progress):
        return thread
    thread_id, workspace_id, title, kind, status, created_by, created_at, updated_at, reason, last_seq, turns, rate = thread
    if change.status is not None:
        status, reason = change.status
    if change.posts:
        last_seq += len(change.posts)
        rate = rate.counted(at, len(change.posts))
    updated_at = max(at, updated_at)
    turns = change.progress or turns
    return ThreadRow(
        thread_id, workspace_id, title, kind, status, created_by, created_at, updated_at, reason, last_seq, turns, rate
    )


def settle(outcome: Outcome[Answer]) -> Answer:
    """Return the answer of a change that is on disk, or raise what refused it."""
    if outcome.refused is not None:
        raise outcome.refused
    return outcome.answer  # type: ignore[return-value]  # None only where the plan's own answer type is None
