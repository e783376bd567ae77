"""A request's trace, from its header to the row, to those who are told, and to the log."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from tests.acceptance.host import Host
from tests.acceptance.serving import Served, serving
from tests.acceptance.talking import Agent, issue
from tests.acceptance.test_bridge_health import document
from tests.waiting import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(served: Served, agent: Agent, method: str, trace: str, **asked: object) -> Any:
    with closing(served.connect()) as connection:
        headers = {"authorization": f"Bearer {agent.token}", "traceparent": trace}
        connection.request("POST", f"/v1/mcp/{method}", json.dumps(asked), headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return json.loads(answer.read())


def test_a_trace_is_kept_from_the_request_to_whoever_hears_of_it(host: Host) -> None:
    host.decided()
    with serving(host, "--bridge", KLR_BRIDGE_MAX_TURNS="2") as served:
        executioner, reviewer = (Agent(served, issue(host, name)) for name in ("executioner", "reviewer"))
        asked: dict[str, Any] = {"workspace_id": "kloros", "title": "Retry", "participants": ["reviewer"]}
        thread_id = executioner.ask("create_thread", **asked)["thread_id"]
        with reviewer.events(thread_id) as heard:
            ask(served, executioner, "post_message", TRACE, thread_id=thread_id, body="one")
            assert next(heard)["traceparent"] == TRACE
            ask(served, executioner, "post_message", OTHER, thread_id=thread_id, body="two")
            turn, block = next(heard), next(heard)
        assert (turn["traceparent"], block["traceparent"]) == (OTHER, OTHER), "the guard speaks on the trace of the turn"
        assert block["metadata"]["event_type"] == "thread_escalated"
        wanted = {"thread_id": thread_id, "target_agent_id": "reviewer", "reason": "asleep"}
        host.run("klorosctl", "unblock-thread", "--thread-id", thread_id)
        ask(served, executioner, "trigger_participant", TRACE, **wanted)
        waits = until(lambda: (document(host)["threads"] or {"waits": ()})["waits"], what="it is told")
        assert [one["traceparent"] for one in waits if one["agent_id"] == "reviewer"] == [TRACE]
        posted = [line for line in served.log("request.answered") if line.get("operation") == "post_message"]
        assert [line["traceparent"] for line in posted] == [TRACE, OTHER]
        (blocked,) = served.log("thread.blocked")
        assert blocked["traceparent"] == OTHER
    with closing(sqlite3.connect(host.state / "kloros.db")) as db:
        assert db.execute("SELECT traceparent FROM bridge_messages WHERE kind = 'chat' ORDER BY seq").fetchall() == [
            (TRACE,),
            (OTHER,),
        ]
        assert db.execute("SELECT traceparent FROM bridge_triggers").fetchall() == [(TRACE,)]
