"""Any program by template, and Claude Code as the one that is shipped. Pure; never through a shell.

A template is a list of words. `{session}` in a word becomes the session; the word `{prompt}` becomes the prompt, whole;
where there is none, the prompt is standard input.

Claude Code: `claude -p --output-format stream-json --verbose`, with `--resume <session>` for an earlier session. Every line
is a JSON object with `session_id`; the last one has type `result` and says `is_error`
(https://code.claude.com/docs/en/headless).
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

_SESSION: Final = "{session}"
_CLAUDE: Final = ("-p", "--output-format", "stream-json", "--verbose")
_UNKNOWN: Final = "no conversation found with session id"


class Command(Turning):
    """Turns of a program that the settings give."""

    def __init__(self, profile: Agent) -> None:
        self._profile = profile

    @property
    def name(self) -> str:
        return "command"

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        """See `Runtime`."""
        template = self._resume() if session_id else self._spawn()
        if not template:
            what = "resume a session" if session_id else "begin one"
            raise WakeFailed(Code.RUNTIME_UNMANAGED, f"the profile has no command to {what}")
        if session_id and not self._is_session(session_id):
            raise WakeFailed(Code.RUNTIME_SESSION_MISMATCH, f"{read.words(session_id)} can't be the name of a session")
        return Turn(
            command=tuple(word.replace(_SESSION, session_id) for word in template),
            prompt=prompt,
            session_id=session_id,
            working_dir=self._profile.working_dir,
            variables=tuple(self._profile.variables.items()),
        )

    def told(self, output: Sequence[str]) -> TurnTold:
        """See `Runtime`: the session is the last one that a JSON line names; how it went, the exit code says."""
        names = [one[self._field] for one in read.objects(output) if read.is_session(one.get(self._field))]
        return TurnTold(session_id=names[-1] if names else "")

    @property
    def _field(self) -> str:
        return self._profile.session_field

    def _resume(self) -> tuple[str, ...]:
        return self._profile.resume

    def _spawn(self) -> tuple[str, ...]:
        return self._profile.spawn

    @staticmethod
    def _is_session(name: str) -> bool:
        return read.is_session(name)


class Claude(Command):
    """Turns of Claude Code."""

    @property
    def name(self) -> str:
        return "claude"

    def told(self, output: Sequence[str]) -> TurnTold:
        """See `Runtime`: the last line says how it went."""
        told, failed = super().told(output), ""
        for event in read.objects(output):
            if event.get("type") == "result":
                failed = read.words(event.get("result") or event.get("subtype")) if event.get("is_error") else ""
        said = next((line for line in output if _UNKNOWN in line.lower()), None)
        if (said is not None and not told.session_id) or _UNKNOWN in failed.lower():
            return TurnTold(failed=read.words(said or failed), code=Code.RUNTIME_NOT_FOUND)
        return TurnTold(session_id=told.session_id, failed=failed)

    def _resume(self) -> tuple[str, ...]:
        return (*self._spawn(), "--resume", _SESSION)

    def _spawn(self) -> tuple[str, ...]:
        return (*(self._profile.program or ("claude",)), *_CLAUDE, *self._profile.arguments)

    @staticmethod
    def _is_session(name: str) -> bool:
        return read.UUID.fullmatch(name) is not None
