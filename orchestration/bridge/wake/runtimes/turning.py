"""What runtimes without a terminal of their own answer alike: they run turns, and nothing can be put in. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from orchestration.bridge.wake.port import Liveness, Probe, WakeFailed
from orchestration.bridge.wake.state import Code

if TYPE_CHECKING:
    from orchestration.bridge.state import Session


class Turning(ABC):
    """The half of a runtime that has no terminal."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return what people call it."""

    async def probe(self, session: Session) -> Probe:
        """Say that nothing of it lives between two turns."""
        return Probe(liveness=Liveness.ABSENT, detail=f"{self.name} runs in turns: no terminal of {session.session_id}")

    async def deliver(self, session: Session, prompt: str) -> None:
        """Refuse."""
        raise self._unmanaged(session)

    async def press(self, session: Session, trigger_id: str) -> None:
        """Refuse."""
        raise self._unmanaged(session)

    def _unmanaged(self, session: Session) -> WakeFailed:
        return WakeFailed(Code.RUNTIME_UNMANAGED, f"{session.session_id} has no terminal here to put anything into")
