"""What a tick works with: the adapters that `wiring.py` built, and the names of the files in the state folder."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from orchestration.cycles.backoff import Backoff
from orchestration.host.lock import FileLock
from orchestration.phase.window import Window
from orchestration.store.port import Database
from orchestration.tick.observation import Policy

if TYPE_CHECKING:
    from orchestration.scope.leading import Leading
    from orchestration.scope.sharing import Sharing
    from orchestration.settings import Settings
else:
    Leading = Settings = Sharing = object  # a field's type as text is compiled at each start (decision 0002)


class Kernel(NamedTuple):
    """The world's handles for one process."""

    settings: Settings
    db: Database
    start: Callable[[str], None]  # gets the entry `run_cycle` or `run_once` started, outside this process
    publish: Callable[[], None]  # brings the files for people and other programs up to the store
    now: Callable[[], datetime]  # aware UTC
    boot_id: str
    leading: Leading | None = None  # where several hosts share a store: this one's part in who decides
    shared: Sharing | None = None  # … and in what lies on each of them

    @property
    def lock(self) -> FileLock:
        """The lock that makes ticks, and KLoROS's own tools, exclude each other."""
        return FileLock(self.path("locks", "orchestrator.lock"))

    @property
    def runner_lock(self) -> FileLock:
        """The lock that a cycle runner holds for as long as it lives."""
        return FileLock(self.path("locks", "runner.lock"))

    @property
    def window(self) -> Window:
        """The PHASE window of the settings."""
        phase = self.settings.phase
        return Window(phase.window_opens, phase.window_closes, phase.time_zone)

    @property
    def policy(self) -> Policy:
        """What the settings say about deciding."""
        return Policy(Backoff(self.settings.phase.backoff), Backoff(self.settings.dream.backoff))

    @property
    def promotions_dir(self) -> str:
        """The folder of the promotions that we decide on: where hosts share a store, the mirror of all of theirs."""
        return self.settings.promotions_dir if self.shared is None else self.shared.mirror.path("promotions")

    @property
    def acks_dir(self) -> str:
        """The folder of their acks."""
        return self.settings.acks_dir if self.shared is None else self.shared.mirror.path("acks")

    @property
    def intents_dir(self) -> str:
        """The folder of the intents that we decide on."""
        return self.path("intents") if self.shared is None else self.shared.mirror.path("intents")

    def cycle_dir(self, folder: str) -> str:
        """Return where what a cycle left is read; `folder` is its name (`cycle_00042`), whichever host ran it."""
        own = os.path.join(self.settings.cycles_dir, folder)
        return own if self.shared is None else self.shared.mirror.path("cycles", folder)

    def path(self, *names: str) -> str:
        """Return a path in the state folder."""
        return os.path.join(self.settings.state_dir, *names)
