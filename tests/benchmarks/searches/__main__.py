"""Our searches beside Optuna's own, on recorded curves: `python -m tests.benchmarks.searches`.

Prints, for each sampler and pruner, the median compute (seconds of a core) until a finished trial
is within 2 % of the best, through our scheduler, which makes a new sampler for each proposal, and
through Optuna alone with one sampler; the ratio of the means with an interval that holds 95 % of
bootstrap resamples; and how many of the searches never got there. A search that never does counts
with the compute of the whole grid.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna import pruners, samplers

from study.space.yaml_loader import as_block
from tests.benchmarks.searches import native
from tests.benchmarks.searches.quality import (
    CLOSE,
    Curves,
    load,
    replay,
    space,
)


def _qmc(seed: int) -> optuna.samplers.BaseSampler:
    return samplers.QMCSampler(
        scramble=True, seed=seed, independent_sampler=samplers.RandomSampler(seed=seed)
    )


SAMPLERS: dict[str, tuple[Any, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "tpe": ("tpe", lambda seed: samplers.TPESampler(seed=seed)),
    "random": ("random", lambda seed: samplers.RandomSampler(seed=seed)),
    "nsgaii": ("nsgaii", lambda seed: samplers.NSGAIISampler(seed=seed)),
    "qmc": ("qmc", _qmc),
    "gp": ("gp", lambda seed: samplers.GPSampler(seed=seed)),
}
"""Name → as a space says it, and as Optuna makes it."""

PRUNERS: dict[str, tuple[Any, Callable[[], optuna.pruners.BasePruner]]] = {
    "none": (False, pruners.NopPruner),
    "ASHA": (True, partial(pruners.SuccessiveHalvingPruner, min_resource=3, reduction_factor=3)),
    "hyperband": (
        as_block({"name": "hyperband"}),
        partial(pruners.HyperbandPruner, max_resource=27),
    ),
    "median": (as_block({"name": "median"}), pruners.MedianPruner),
}
"""Name → what the space says of stopping, and Optuna's pruner of the same kind."""

RESAMPLES = 10_000


def compare(curves: Curves, sampler: str, pruner: str, repetitions: int) -> str:
    """A row of the table."""
    best = min(min(found["errors"]) for found in curves["trials"].values())
    whole = sum(curves["pretrainings"].values()) + sum(
        len(found["errors"]) * found["seconds"] for found in curves["trials"].values()
    )
    (named, made), (stopping, stopper) = SAMPLERS[sampler], PRUNERS[pruner]
    target, spaces = CLOSE * best, partial(space, sampler=named, stopping=stopping)
    ours = [replay(curves, target, named, stopping, seed) for seed in range(repetitions)]
    theirs = [
        native.replay(curves, target, spaces(seed), made(seed), stopper())
        for seed in range(repetitions)
    ]
    (ratio, low, high), missed = _ratio(ours, theirs, whole), list(map(_missed, (ours, theirs)))
    return (
        f"| {sampler} | {pruner} | {statistics.median(ours):.1f} | {statistics.median(theirs):.1f} "
        f"| {ratio:.2f} [{low:.2f}, {high:.2f}] | {missed[0]} / {missed[1]} |"
    )


def _missed(seconds: list[float]) -> int:
    return sum(np.isinf(seconds).tolist())


def _ratio(ours: list[float], theirs: list[float], whole: float) -> tuple[float, float, float]:
    """Our mean compute over theirs, and the ends of its bootstrap interval."""
    random = np.random.default_rng(0)
    means = []
    for each in (ours, theirs):
        values = np.minimum(each, whole)
        draws = random.integers(len(values), size=(RESAMPLES, len(values)))
        means.append((values.mean(), values[draws].mean(axis=1)))
    (our_mean, our_draws), (their_mean, their_draws) = means
    low, high = np.quantile(our_draws / their_draws, [0.025, 0.975])
    return float(our_mean / their_mean), float(low), float(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.searches", description=__doc__
    )
    parser.add_argument("--repetitions", type=int, default=100)
    usual = ["tpe", "random", "nsgaii"]  # A Gaussian process takes minutes of CPU a search.
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=usual)
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    chosen = parser.parse_args()
    curves = load()
    sys.stdout.write("| sampler | pruner | ours, s | Optuna, s | ours / Optuna | missed |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for sampler in chosen.samplers:
        for pruner in chosen.pruners:
            sys.stdout.write(compare(curves, sampler, pruner, chosen.repetitions) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
