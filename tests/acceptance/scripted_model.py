"""A model on loopback that speaks OpenAI's Responses API as server-sent events, and does what a script says.

A script is a generator: it yields calls of tools, is sent their results, and returns what the agent says at the end of its
turn. It is run from its beginning at every request, over the results that the request carries: what a conversation holds is
all that this model knows, as with a real one, so a turn may be resumed by another process or be killed and come again.

What Codex reads of a stream: `response.created`, `response.output_item.done`, `response.completed`
(checked against @openai/codex 0.169 with `wire_api = "responses"`).
https://developers.openai.com/api/reference/resources/responses/streaming-events
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeAlias

_HELD_FOR = 120.0  # seconds; a test that forgets to let go ends anyway


class Call(NamedTuple):
    """A tool that the agent is to use."""

    name: str
    arguments: Mapping[str, Any]
    namespace: str = ""


class Result(NamedTuple):
    """What a tool has answered."""

    text: str

    @property
    def data(self) -> Any:
        return json.loads(self.text)


class Turn(NamedTuple):
    """What a model is told at the beginning of a turn."""

    agent: str
    session_id: str
    prompt_id: str
    prompt: str
    earlier: tuple[str, ...]
    """The prompts of this session before this one."""
    context: str = ""
    """What Codex tells of itself: the folder's AGENTS.md, where it runs."""


Script: TypeAlias = Callable[[Turn], Generator[Call, Result, str]]


def tool(name: str, **arguments: Any) -> Call:
    """Call a tool of the bridge, as Codex names those of the MCP server `kloros`."""
    return Call(name, arguments, "mcp__kloros")


def shell(command: str) -> Call:
    """Have Codex run a command."""
    return Call("exec_command", {"cmd": command, "login": False})


class Asked(NamedTuple):
    """One request: which turn, and which tools have answered in it so far."""

    turn: Turn
    done: tuple[str, ...]


class ScriptedModel:
    """The model, and what it was asked."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self.scripts = dict(scripts)
        self.asked: list[Asked] = []
        self.faults: list[str] = []
        """Where a script went wrong; `scripted` fails by them."""
        self._changed = threading.Condition()
        self._held: dict[str, tuple[str, int]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                document = json.loads(self.rfile.read(int(self.headers["content-length"])))
                agent = self.path.split("/")[1]
                with suppress(OSError):
                    self._stream(outer.answer(agent, self.headers.get("session-id", ""), document))

            def _stream(self, item: dict[str, Any]) -> None:
                answered = {"id": "resp_1", "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
                events = (
                    {"type": "response.created", "response": {"id": "resp_1"}},
                    {"type": "response.output_item.done", "output_index": 0, "item": item},
                    {"type": "response.completed", "response": answered},
                )
                body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode()
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked may have been killed
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def turns(self, agent: str) -> list[Turn]:
        """Return the turns of an agent, each once, in order."""
        return list(dict.fromkeys(one.turn for one in self.asked if one.turn.agent == agent))

    @contextmanager
    def held(self, agent: str, *, after: str, times: int = 1) -> Iterator[None]:
        """Think, within the block, once a tool has answered: the agent stands in the midst of its turn."""
        self._held[agent] = (after, times)
        try:
            yield
        finally:
            with self._changed:
                del self._held[agent]
                self._changed.notify_all()

    def answer(self, agent: str, session_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Give the item with which the conversation goes on."""
        if not document["tools"]:  # Codex asks for a title of a session
            return _said("Retry patch")
        turn, done = read(agent, session_id, document["input"])
        with self._changed:
            self.asked.append(Asked(turn, tuple(call for call, _ in done)))
            self._changed.notify_all()
        self._hold(agent, tuple(call for call, _ in done))
        try:
            return play(self.scripts[agent](turn), done, unique=len(document["input"]))
        except Exception as fault:  # told to the test, which can't see into this thread
            self.faults.append(f"{agent}: {fault!r} after {done}")
            return _said(f"the script failed: {fault!r}")

    def _hold(self, agent: str, done: tuple[str, ...]) -> None:
        after, times = self._held.get(agent, ("", 0))
        if done and done[-1] == after and times:
            self._held[agent] = (after, times - 1)
            with self._changed:
                self._changed.wait_for(lambda: agent not in self._held, _HELD_FOR)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def read(agent: str, session_id: str, items: list[dict[str, Any]]) -> tuple[Turn, list[tuple[str, Result]]]:
    """Read a conversation: the turn, and which tools have answered what in it."""
    prompts: list[tuple[str, str]] = []
    context: list[str] = []
    called: dict[str, str] = {}
    done: list[tuple[str, Result]] = []
    for item in items:
        match item:
            case {"type": "message", "role": "user", "content": content}:
                text = "\n".join(part.get("text", "") for part in content)
                if "<environment_context>" in text:
                    context.append(text)
                else:
                    prompts.append((str(item.get("id", len(prompts))), text))
                    done = []
            case {"type": "function_call", "call_id": call_id, "name": name}:
                called[call_id] = name
            case {"type": "function_call_output", "call_id": call_id, "output": output}:
                text = output if isinstance(output, str) else "\n".join(part.get("text", "") for part in output)
                done.append((called[call_id], Result(text.partition("Output:\n")[2] or text)))
            case _:
                pass
    prompt_id, prompt = prompts[-1]
    earlier = tuple(text for _, text in prompts[:-1])
    return Turn(agent, session_id, prompt_id, prompt, earlier, "\n".join(context)), done


def play(script: Generator[Call, Result, str], done: list[tuple[str, Result]], *, unique: int) -> dict[str, Any]:
    """Run a script over the results so far; returns the item that comes next."""
    try:
        call = next(script)
        for name, result in done:
            assert name == call.name, f"the script calls {call.name}, and the conversation has {name}"
            call = script.send(result)
    except StopIteration as ended:
        return _said(str(ended.value))
    item = {"type": "function_call", "call_id": f"call_{unique}", "name": call.name, "arguments": json.dumps(call.arguments)}
    return {**item, "namespace": call.namespace} if call.namespace else item


def _said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


@contextmanager
def scripted(scripts: Mapping[str, Script]) -> Iterator[ScriptedModel]:
    """Serve a model for some agents, at `<url>/<agent>/v1`; a script that went wrong fails the test."""
    model = ScriptedModel(scripts)
    try:
        yield model
    finally:
        model.close()
    assert not model.faults, model.faults


__all__ = ["Call", "Result", "Script", "ScriptedModel", "Turn", "scripted", "shell", "tool"]
