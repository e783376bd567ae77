"""The Codex CLI: a turn is `codex exec --json`, of an earlier session `codex exec resume --json <session>`. Pure.

The prompt goes to standard input (`-`), so that it stands in no list of processes. Events are JSON lines among messages of
the log; `thread.started` comes first and names the session. `error` tells of a connection that is tried again as well, so
only what follows it says whether the turn failed (codex-cli 0.169.0).

A resumed turn works under the sandbox that its own command line and configuration give, not under that of the session; what
must hold for it is given by our unit and by `[agents.<name>] arguments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from orchestration.bridge.wake.port import Turn, TurnTold, WakeFailed
from orchestration.bridge.wake.runtimes import output as read
from orchestration.bridge.wake.runtimes.turning import Turning
from orchestration.bridge.wake.state import Code

if TYPE_CHECKING:
    from orchestration.settings import Agent

_ALWAYS: Final = ("--json", "--skip-git-repo-check")
_UNKNOWN: Final = ("no rollout found", "no saved session found", "thread not found")


class Codex(Turning):
    """Turns of the Codex CLI."""

    def __init__(self, profile: Agent) -> None:
        self._profile = profile

    @property
    def name(self) -> str:
        return "codex"

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        """See `Runtime`; a session is named by its UUID, for anything else might be an option, or the name of another."""
        if session_id and not read.UUID.fullmatch(session_id):
            raise WakeFailed(Code.RUNTIME_SESSION_MISMATCH, f"{read.words(session_id)} is no session of Codex, no UUID")
        profile = self._profile
        verb = ("exec", "resume") if session_id else ("exec",)
        what = (session_id, "-") if session_id else ("-",)
        return Turn(
            command=(*(profile.program or ("codex",)), *verb, *_ALWAYS, *profile.arguments, *what),
            prompt=prompt,
            session_id=session_id,
            working_dir=profile.working_dir,
            variables=tuple(profile.variables.items()),
        )

    def told(self, output: Sequence[str]) -> TurnTold:
        """See `Runtime`."""
        session, failed = "", ""
        for event in read.objects(output):
            match event:
                case {"type": "thread.started", "thread_id": str() as name} if read.is_session(name):
                    session = session or name
                case {"type": "turn.failed"}:
                    error = event.get("error")
                    failed = read.words(error.get("message") if isinstance(error, dict) else error)
                case {"type": "error"}:
                    failed = read.words(event.get("message"))
                case {"type": "turn.completed"}:
                    failed = ""
        return _with_unknown(TurnTold(session_id=session, failed=failed), output)


def _with_unknown(told: TurnTold, output: Sequence[str]) -> TurnTold:
    if told.session_id:
        return told
    said = next((line for line in output if any(words in line.lower() for words in _UNKNOWN)), None)
    return told if said is None else TurnTold(failed=read.words(said), code=Code.RUNTIME_NOT_FOUND)
