"""The default D-REAM job, `python -m orchestration.promotions.trial`: try each promotion and write `verdicts.json`.

With a `[dream] trial` command, each promotion is measured against the baseline: the command is run with the baseline's
parameters and with the promotion's (the baseline's with its changes on top) in turn, `trial_runs` times each, so that a
machine that slows down meanwhile slows both. The medians are compared (`judgement`). Without the command a promotion is
judged by the fitness it claims against the baseline's. With no baseline yet a valid promotion is accepted.

The trial command
  gets     KLR_PARAMETERS   path of a JSON object {name: number}
           KLR_TRIAL_RUN    1 to `trial_runs`: the same for both sides of a comparison, so a good seed
           and the cycle's whole environment (KLR_CYCLE, KLR_CYCLE_DIR, …)
  prints   as its last line on stdout a number, or {"fitness": number}; higher is better
  exits    0; stderr goes to the cycle's log

A run that fails or prints something else is either the promotion's fault or the host's. The baseline tells them apart: if
it can still be measured, the promotion is not accepted, with the reason; if not, the whole cycle fails and writes no
verdicts, so that every promotion goes again later, and is parked rather than rejected when the host stays broken. With no
baseline, another promotion that could be measured serves as the proof. One bad promotion so never holds up the others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

from orchestration import configuration
from orchestration.errors import KlorosError
from orchestration.exits import Exit
from orchestration.host import files, process
from orchestration.promotions.baseline import Baseline, baseline_path, read_baseline
from orchestration.promotions.document import Malformed
from orchestration.promotions.handover import Handed, parse_handover
from orchestration.promotions.judgement import Judgement, Standing, fitness_of, judge, judge_runs
from orchestration.promotions.promotion import Number
from orchestration.settings import Dream

Parameters: TypeAlias = Mapping[str, Number]
Measure: TypeAlias = Callable[[str, Parameters, int], float]
"""Run the trial once: what for (a word for file names and the log), its parameters, the number of the run."""


class HandoverInvalid(KlorosError):
    """What the cycle handed over can't be understood."""


class TrialBroken(KlorosError):
    """The trial can't measure even what it could measure before, so nothing can be said of any promotion."""

    exit = Exit.DREAM_FAILED
    retryable = True


class RunFailed(Exception):
    """One run of the trial gave no fitness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A promotion's trial gave no fitness; whether that is its fault is decided once the others were tried."""

    reason: str


def main() -> int:
    """Try the promotions that `KLR_PROMOTIONS` names; return the exit code."""
    try:
        settings = configuration.load(os.environ)
        folder = os.path.join(_variable("KLR_CYCLE_DIR"), "artifacts")
        promotions = _handed(_variable("KLR_PROMOTIONS"))
        baseline = read_baseline(os.environ.get("KLR_BASELINE") or baseline_path(settings.state_dir))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        judgements = try_all(promotions, baseline, settings.dream, measure=_measure(settings.dream, folder))
        files.replace(os.path.join(folder, "verdicts.json"), verdicts_content(judgements), mode=0o640)
    except KlorosError as error:
        print(f"failed: {error}", flush=True)
        return error.exit
    return Exit.DONE


def try_all(
    promotions: tuple[Handed, ...], baseline: Baseline | None, dream: Dream, *, measure: Measure
) -> dict[str, Judgement]:
    """Judge every promotion, in order; stem → judgement.

    Raises:
        TrialBroken: the trial does not work on this host now.
    """
    _say(_introduction(promotions, baseline, dream))
    results: dict[str, Judgement | Failed] = {}
    for handed in promotions:
        _say(f"{handed.stem}: {_assignments(handed.changes)}")
        results[handed.stem] = _try_one(handed, baseline, dream, measure)
        _say(f"{handed.stem}: {results[handed.stem].reason}")
    failures = [stem for stem, result in results.items() if isinstance(result, Failed)]
    if failures and baseline is None and len(failures) == len(results):
        raise TrialBroken(
            f"no trial gave a fitness; {failures[0]}: {results[failures[0]].reason}",
            hint="run the [dream] trial command by hand with KLR_PARAMETERS naming a file of parameters",
        )
    return {stem: _final(result) for stem, result in results.items()}


def verdicts_content(judgements: Mapping[str, Judgement]) -> bytes:
    """Write judgements as `verdicts.json`."""
    verdicts = [
        {
            "promotion": stem,
            "accepted": judgement.accepted,
            "reason": judgement.reason,
            "fitness": judgement.fitness,
        }
        for stem, judgement in judgements.items()
    ]
    return json.dumps({"schema": "v1", "verdicts": verdicts}, indent=2).encode() + b"\n"
