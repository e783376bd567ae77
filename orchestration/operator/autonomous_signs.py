"""By which signs a unit or a command is of the D-REAM that starts by itself; as text, whoever found it.

Pure. The signs are the names under which KLoROS ran it (HomoYouDidnt/kloros: systemd/kloros-dream.service, D-REAM_BUNDLE/
systemd/*, its reports of `dream.service`, `dream-background.service`, `dream-domains.service`, `dream-runner`,
`kloros-dream-consumer.service`, `dream_overnight.sh`, `python3 -m src.dream.runner`), and the older orchestrator itself,
which starts PHASE and D-REAM too. A word that only contains `dream` is no sign, nor is what only shows or delivers:
the dashboard, and the timer that brings promotions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_UNIT = re.compile(
    r"(?:kloros-|klr-)?(?:d-ream|d_ream|dream)"
    r"(?:[-_](?:autonomous|background|consumer|cycle|daemon|domains?|evolution|loop|overnight|runner|scheduler))+"
    r"|(?:kloros|klr)[-_](?:d-ream|d_ream|dream)|kloros-policy-engine"
)
_COMMANDS = (
    r"(?<![\w-])src[./]dream[./][\w./-]+",  # python3 -m src.dream.runner, /home/kloros/src/dream/dream_domain_service.py
    r"-m d_ream\b[\w.]*",
    r"kloros\S*/d[-_]?ream/\S+\.(?:py|sh)",  # /home/kloros/dream/run_rag_quality.py
    r"\bd_?ream_(?:autonomous|background|consumer|cycle|daemon|domains?|evolution|loop|overnight|runner|scheduler)\w*",
    r"\brun_(?:autonomous_loop|dream)\b",
    r"\borchestration[./](?:core[./])?autonomous_loop\b",
    r"\bkloros\.orchestration\.(?:coordinator|dream_\w+|kloros_policy_engine)\b",
)
_COMMAND = re.compile("|".join(_COMMANDS), re.IGNORECASE)
_HARMLESS = re.compile(r"dashboard|sync[-_]promotions|\borchestration\.(?:run_(?:once|cycle|loop)|promotions\.)")


def of_command(command: str) -> str:
    """Return what in a command tells that it is of the D-REAM that starts by itself; empty when nothing does."""
    found = _COMMAND.search(command)
    return found[0] if found is not None and not _HARMLESS.search(command) else ""


def of_unit(name: str, commands: Iterable[str]) -> str:
    """Return the same for a unit, by its name (`dream-background.service`) or by what it runs."""
    stem = name.rpartition(".")[0].partition("@")[0]
    if _HARMLESS.search(name):
        return ""
    if _UNIT.fullmatch(stem):
        return f"its name, {stem}"
    return next((f"it runs {sign}" for command in commands if (sign := of_command(command))), "")
