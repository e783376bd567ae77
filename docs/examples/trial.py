#!/usr/bin/env python3
"""An example of a `[dream] trial` command: how well do these hyper-parameters train a small model?

The data are 50 stopping distances of cars (stopping_distances.csv, see README.md). The model, distance = a + b·speed +
c·speed², is trained by mini-batch gradient descent for a fixed number of passes on four fifths of the rows and tested
on the fifth that it has not seen, five times. The fitness is the share of the variance of the unseen distances that it
explains (R², at most 1). The same parameters and the same KLR_TRIAL_RUN always give the same fitness.

Standard library only. Try it by hand:

    echo '{"learning_rate": 0.01, "batch_size": 16}' > /tmp/p.json
    KLR_PARAMETERS=/tmp/p.json python3 trial.py
"""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

FOLDS = 5
PASSES = 40
Row = tuple[tuple[float, ...], float]  # features, target


def main() -> None:
    """Print the fitness of the parameters in the file that KLR_PARAMETERS names."""
    parameters = json.loads(Path(os.environ["KLR_PARAMETERS"]).read_text())
    chance = random.Random(int(os.environ.get("KLR_TRIAL_RUN", "1")))  # noqa: S311 - a seed, not a secret
    rows = load(Path(__file__).with_name("stopping_distances.csv"))
    chance.shuffle(rows)
    error = spread = 0.0
    for fold in range(FOLDS):
        unseen = rows[fold::FOLDS]
        seen = [row for number, row in enumerate(rows) if number % FOLDS != fold]
        weights = train(
            seen,
            learning_rate=parameters["learning_rate"],
            batch_size=int(parameters["batch_size"]),
            chance=chance,
        )
        mean = sum(target for _, target in seen) / len(seen)
        error += sum((target - predict(weights, features)) ** 2 for features, target in unseen)
        spread += sum((target - mean) ** 2 for _, target in unseen)
    print(json.dumps({"fitness": round(1 - error / spread, 6)}))


def load(path: Path) -> list[Row]:
    """Read the rows; speed and its square are scaled to about -1 to 1, the distance to hundreds of feet."""
    with path.open(newline="") as file:
        pairs = [(float(row["speed_mph"]), float(row["distance_ft"])) for row in csv.DictReader(file)]
    return [((1.0, (speed - 15) / 10, (speed**2 - 260) / 250), distance / 100) for speed, distance in pairs]


def train(rows: list[Row], *, learning_rate: float, batch_size: int, chance: random.Random) -> list[float]:
    """Descend the gradient of the squared error, one batch at a time."""
    weights = [0.0, 0.0, 0.0]
    rows = list(rows)
    for _ in range(PASSES):
        chance.shuffle(rows)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            gradient = [0.0, 0.0, 0.0]
            for features, target in batch:
                miss = predict(weights, features) - target
                for i, feature in enumerate(features):
                    gradient[i] += 2 * miss * feature / len(batch)
            weights = [weight - learning_rate * slope for weight, slope in zip(weights, gradient, strict=True)]
    return weights


def predict(weights: list[float], features: tuple[float, ...]) -> float:
    """Return the model's distance."""
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))


if __name__ == "__main__":
    main()
