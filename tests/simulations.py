"""Simulated studies of known truth: how often intervals cover it, and how often verdicts err.

`python -m tests.simulations` prints a row per case: the errors of two arms over seeds with bad
seeds and divergence, judged by the rule of `analysis.statistics` and, for comparison, by the t
interval of the pairs that are left. It takes a minute and 100 MB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.change import LEVEL, change_of, percent, t_interval
from analysis.statistics.verdict import Verdict, verdict

SPREAD = 0.05
"""Standard deviation of the log-ratio over seeds, as EGNN's."""
BAD = 1.6
"""Mean ln factor by which the error of a bad seed is larger: five times."""
LARGE = 200_000
"""Pairs from which the truth is computed."""

Logs = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """What the trials of an arm and of its reference do.

    Args:
        name: in the table.
        effect: change of the error of a good seed, %.
        bad: rates of bad seeds in the arm and in its reference.
        diverged: rates of divergence.
        skewed: whether a tenth of the arm's spread is one-sided.
    """

    name: str
    effect: float = 0.0
    bad: tuple[float, float] = (0.0, 0.0)
    diverged: tuple[float, float] = (0.0, 0.0)
    skewed: bool = False

    def draw(self, random: np.random.Generator, studies: int, arms: int, seeds: int) -> Logs:
        """Log-ratios (studies, arms, seeds) as `Change.logs`; arms share their reference."""
        mine, theirs = (
            self._errors(random, (studies, count, seeds), which)
            for which, count in enumerate((arms, 1))
        )
        mine = mine + np.log1p(self.effect / 100)
        with np.errstate(invalid="ignore"):
            return mine - theirs

    def truth(self, random: np.random.Generator) -> tuple[float, float]:
        """The typical log-ratio, which half of all averages of two pairs exceed, and the median.

        Both may be infinite.
        """
        pairs = self.draw(random, LARGE, 1, 2)[:, 0]
        first, second = np.where(np.isnan(pairs), 0, pairs).T  # Both diverged: in either order.
        with np.errstate(invalid="ignore"):
            means = (first + second) / 2
        known = np.where(np.isnan(means), 0, means)
        typical, median = (float(np.sort(values)[LARGE // 2]) for values in (known, first))
        return tuple(0.0 if abs(x) < SPREAD / 50 else x for x in (typical, median))  # type: ignore[return-value]

    def _errors(self, random: np.random.Generator, shape: tuple[int, int, int], which: int) -> Logs:
        logs = SPREAD / np.sqrt(2) * random.standard_normal(shape)
        if self.skewed and which == 0:
            logs += SPREAD * random.exponential(size=shape)
        bad = random.random(shape) < self.bad[which]
        logs += bad * np.abs(random.normal(BAD, 0.3, shape))
        return np.where(random.random(shape) < self.diverged[which], np.inf, logs)


CASES = (
    Case("normal"),
    Case("skewed", skewed=True),
    Case("10 % bad seeds in both", bad=(0.1, 0.1)),
    Case("10 % bad seeds in the arm", bad=(0.1, 0.0)),
    Case("10 % diverge in both", diverged=(0.1, 0.1)),
    Case("30 % diverge in both", diverged=(0.3, 0.3)),
    Case("60 % diverge in both", diverged=(0.6, 0.6)),
    Case("10 % of the arm diverge", diverged=(0.1, 0.0)),
    Case("30 % of the arm diverge", diverged=(0.3, 0.0)),
    Case("60 % of the arm diverge", diverged=(0.6, 0.0)),
    Case("30 % of the arm diverge, the rest gain 8 %", effect=-8, diverged=(0.3, 0.0)),
    Case("60 % of the arm diverge, the rest gain 8 %", effect=-8, diverged=(0.6, 0.0)),
    Case("60 % of scratch diverge, the rest lose 8 %", effect=8, diverged=(0.0, 0.6)),
)


@dataclass(frozen=True)
class Rates:
    """Shares of simulated studies.

    Args:
        covers: all intervals of a study cover the truth; nan if that is infinite.
        false: an arm is called lower (or higher) that is so in no more than half of all pairs.
        said: an arm is called lower or higher.
        none: an arm gets no verdict.
        t_covers: as `covers`, of the t interval of the pairs that are left.
        t_false: as `false`.
    """

    covers: float
    false: float
    said: float
    none: float
    t_covers: float
    t_false: float


def simulate(case: Case, seeds: int, arms: int = 1, studies: int = 2000, start: int = 0) -> Rates:
    """Judge many studies of one case.

    Args:
        case: what happens in them.
        seeds: of each.
        arms: of each; intervals hold together over them.
        studies: how many.
        start: seed of the random numbers.
    """
    random = np.random.default_rng([start, seeds, arms])
    typical, median = case.truth(random)
    drawn = case.draw(random, studies, arms, seeds)
    ours = np.array([_by_rule(study, typical, median) for study in drawn])
    theirs = np.array([_by_t(study, typical, median) for study in drawn])
    covers, t_covers = ours[:, 0].mean(), theirs[:, 0].mean()
    finite = np.isfinite(typical)
    return Rates(
        float(covers) if finite else np.nan,
        *(float(ours[:, place].mean()) for place in (1, 2, 3)),
        float(t_covers) if finite else np.nan,
        float(theirs[:, 1].mean()),
    )


def _by_rule(study: Logs, typical: float, median: float) -> tuple[bool, bool, bool, bool]:
    changes = [change_of([float(log) for log in arm], len(study)) for arm in study]
    verdicts = [verdict(change) for change in changes]
    at = percent(typical)
    covers = all(
        said == Verdict.NO_VERDICT or change.low <= at <= change.high
        for change, said in zip(changes, verdicts, strict=True)
    )
    false = any(_is_false(said, median) for said in verdicts)
    there = any(said in (Verdict.LOWER, Verdict.HIGHER) for said in verdicts)
    return covers, false, there, Verdict.NO_VERDICT in verdicts


def _by_t(study: Logs, typical: float, median: float) -> tuple[bool, bool]:
    """Cover and err as if what diverged had never been planned."""
    covers, false = True, False
    for arm in study:
        low, high = t_interval(arm[np.isfinite(arm)].tolist(), 1 - (1 - LEVEL) / len(study))
        covers = covers and not (typical < low or typical > high)
        said = Verdict.LOWER if high < 0 else Verdict.HIGHER if low > 0 else Verdict.INCONCLUSIVE
        false = false or _is_false(said, median)
    return covers, false


def _is_false(said: Verdict, median: float) -> bool:
    return (said == Verdict.LOWER and median >= 0) or (said == Verdict.HIGHER and median <= 0)


def rows(studies: int) -> Iterator[tuple[str, int, int, Rates]]:
    """The table: case, seeds, arms and rates."""
    for case in CASES:
        for seeds, arms in ((3, 1), (8, 1), (8, 3), (20, 3)):
            yield case.name, seeds, arms, simulate(case, seeds, arms, studies)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulations", description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="studies per row (2000)")
    options = parser.parse_args(arguments)
    heads = ("covers", "false", "said", "none", "t covers", "t false")
    sys.stdout.write(f"{'case':44}seeds arms" + "".join(f"{head:>9}" for head in heads) + "\n")
    for name, seeds, arms, rates in rows(options.studies):
        values = (rates.covers, rates.false, rates.said, rates.none, rates.t_covers, rates.t_false)
        cells = "".join("        –" if np.isnan(x) else f"{100 * x:8.1f}%" for x in values)
        sys.stdout.write(f"{name:44}{seeds:5}{arms:5}{cells}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
