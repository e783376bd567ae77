"""That the real Codex does what the scripted model says, with the tools of a served bridge; `test_real_flow` rests on it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from orchestration.bridge.mcp import clients
from tests.acceptance import codex, review
from tests.acceptance.codex import Codex
from tests.acceptance.host import Host
from tests.acceptance.review import EXECUTIONER, REVIEWER
from tests.acceptance.scripted_model import Call, Result, Script, ScriptedModel, Turn, scripted, tool
from tests.acceptance.serving import serving
from tests.acceptance.talking import Agent, issue


class Scene(NamedTuple):
    """A served bridge with two agents in a thread."""

    model: ScriptedModel
    agents: dict[str, Codex]
    thread_id: str
    operator: Agent

    def events(self) -> list[tuple[str, str]]:
        """Give the events of the thread: who has said what."""
        read = self.operator.ask("read_messages", thread_id=self.thread_id)["messages"]
        return [(one["sender"], one["metadata"]["event_type"]) for one in read if one["kind"] == "event"]


@contextmanager
def scene(host: Host, **scripts: Script) -> Iterator[Scene]:
    acting = {EXECUTIONER: review.executioner, REVIEWER: review.reviewer, **scripts}
    with serving(host, "--bridge") as served, scripted(acting) as model:
        clones = review.repository(host.home)
        agents = {
            name: codex.configured(
                name, home=host.home, folder=clones[name], model=model.url, served=served, token=issue(host, name)
            )
            for name in acting
        }
        operator = Agent(served, issue(host, "ada", "--role", "coordinator"))
        thread = operator.ask("create_thread", workspace_id="kloros", title="Retry patch", participants=list(acting))
        yield Scene(model, agents, thread["thread_id"], operator)


def test_two_agents_review_a_patch_when_somebody_starts_each_turn(host: Host) -> None:
    with scene(host) as here:
        one, other = here.agents[EXECUTIONER], here.agents[REVIEWER]
        woken = f'Read {{"thread_id": "{here.thread_id}", "since_seq": 0}}.'
        here.operator.ask("post_message", thread_id=here.thread_id, body=review.WORK, to=EXECUTIONER)
        started = one.execute(woken)
        assert (started.code, started.called) == (0, ["read_messages", "ack_read", "post_message"]), started
        found = other.execute(woken)
        assert found.called == ["read_messages", "ack_read", "post_message"]
        mended = one.execute(woken, resume=started.session_id)
        assert mended.session_id == started.session_id
        verified = other.execute(woken, resume=found.session_id)
        assert verified.called[-2:] == ["post_message", "update_thread_status"]
        assert here.events() == review.COURSE
        assert here.operator.ask("get_thread", thread_id=here.thread_id)["status"] == "resolved"
        assert review.pushed(host.home)[:2] == ["Wait a power of two", "Retry waits twice as long each time"]


def test_a_resumed_session_knows_what_was_said_in_it(host: Host) -> None:
    with scene(host) as here:
        one = here.agents[EXECUTIONER]
        first = one.execute("You are the executioner: wait to be woken.")
        assert first.called == ["heartbeat_session"]
        one.execute("Wait on.", resume=first.session_id)
        before, after = here.model.turns(EXECUTIONER)
        assert after.earlier == (before.prompt,)
        assert after.session_id == before.session_id == first.session_id


def test_what_the_bridge_refuses_comes_to_the_model_as_words(host: Host) -> None:
    heard: list[str] = []

    def asks(_turn: Turn) -> Generator[Call, Result, str]:
        heard.append((yield tool("get_thread", thread_id="thr_" + "0" * 32)).text)
        return "It is not there."

    with scene(host, executioner=asks) as here:
        one = here.agents[EXECUTIONER]
        assert one.execute("Look.").code == 0
        assert "NOT_FOUND" in heard[-1]
        assert one._replace(environ={**one.environ, clients.TOKEN: "nonsense"}).execute("Look.").called == []
        assert "unsupported call" in heard[-1]


def test_codex_may_resolve_a_thread_where_nobody_is_to_be_asked(host: Host) -> None:
    """By what `klorosctl mcp config codex` prints; without it Codex keeps to itself what has a destructive hint."""
    heard: list[str] = []

    def asks(turn: Turn) -> Generator[Call, Result, str]:
        heard.append((yield tool("remove_participant", thread_id=turn.prompt, agent_id=REVIEWER)).text)
        yield tool("update_thread_status", thread_id=turn.prompt, status="resolved")
        return "It is resolved."

    with scene(host, executioner=asks) as here:
        config = here.agents[EXECUTIONER].home / "config.toml"
        config.write_text(config.read_text().replace('sandbox_mode = "danger-full-access"\n', ""))
        assert here.agents[EXECUTIONER].execute(here.thread_id).called == ["update_thread_status"]
        assert "requires approval" in heard[-1]
        assert here.operator.ask("get_thread", thread_id=here.thread_id)["status"] == "resolved"
