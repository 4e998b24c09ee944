"""The words of verdicts, and the rules that choose them; everything that judges uses these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from analysis.statistics.change import FEWEST, Change

NEGLIGIBLE = 5.0
"""Equivalence margin, %: an interval within it means that there is no relevant difference."""


class Verdict(StrEnum):
    """What a study says of a change, or of a claim."""

    LOWER = "lower"
    """The interval of the change lies below 0."""
    HIGHER = "higher"
    """The interval lies above 0."""
    NO_DIFFERENCE = "no difference"
    """The interval lies within ± `NEGLIGIBLE` % (two one-sided tests)."""
    INCONCLUSIVE = "inconclusive"
    """The interval settles nothing."""
    NO_VERDICT = "no verdict"
    """So many trials diverged that the typical pair has no change."""
    TOO_FEW = "too few seeds"
    REPRODUCED = "reproduced"
    """Of a claim: the change goes its way, and is in its band."""
    DIRECTION = "direction only"
    """Of a claim: the change goes its way, outside the band or without one."""
    CONTRADICTED = "contradicted"
    """Of a claim: the change goes the other way, or its interval misses the band."""
    NOT_RUN = "not run"
    """Of a claim: no study tests it."""
    OTHER_DATA = "different data"
    """Of a claim: what tests it used other data, so that nothing is judged."""


@dataclass(frozen=True)
class Claim:
    """A claim about a change, in % of the reference.

    Args:
        direction: −1 if the claim is a lower error of the arm, 1 a higher, 0 no difference.
        low: lower end of the band in which the claim counts as reproduced; without a band, as
            where only the direction is claimed, nan.
        high: its upper end.
    """

    direction: int
    low: float = math.nan
    high: float = math.nan

    def holds(self, percent: float) -> bool:
        """Check whether a change lies in the band."""
        return self.low <= percent <= self.high

    def excludes(self, low: float, high: float) -> bool:
        """Check whether a whole interval lies outside the band."""
        return high < self.low or low > self.high

    @property
    def smallest(self) -> float:
        """The smallest change of the band; `NEGLIGIBLE` if that is none or unknown, %."""
        ends = [abs(end) for end in (self.low, self.high) if math.isfinite(end)]
        crosses = self.low * self.high <= 0
        return NEGLIGIBLE if not ends or crosses else max(min(ends), NEGLIGIBLE)


def verdict(change: Change) -> Verdict:
    """Judge a change by its interval, which is the one that is shown."""
    if change.ended < FEWEST:
        return Verdict.TOO_FEW
    if math.isnan(change.percent) or math.isnan(change.low):
        return Verdict.NO_VERDICT
    if change.high < 0:
        return Verdict.LOWER
    if change.low > 0:
        return Verdict.HIGHER
    return Verdict.NO_DIFFERENCE if change.within(NEGLIGIBLE) else Verdict.INCONCLUSIVE


def judge(claim: Claim, change: Change) -> Verdict:
    """Judge a claim by a change, by the same interval that decides whether there is one.

    - reproduced: the change is there as claimed, and in the band; a claim of no difference is
      reproduced by an interval inside the band
    - direction only: it is there as claimed, but outside the band
    - no difference: there is none of more than `NEGLIGIBLE` %
    - contradicted: it is there in the other direction, or its whole interval is outside the band
    - inconclusive, no verdict, too few seeds: as for the change
    """
    effect = verdict(change)
    if effect in (Verdict.TOO_FEW, Verdict.NO_VERDICT):
        return effect
    excluded = claim.excludes(change.low, change.high)
    if claim.direction == 0:
        if claim.holds(change.low) and claim.holds(change.high):
            return Verdict.REPRODUCED
        return Verdict.CONTRADICTED if excluded else Verdict.INCONCLUSIVE
    if effect == (Verdict.LOWER if claim.direction < 0 else Verdict.HIGHER):
        return Verdict.REPRODUCED if claim.holds(change.percent) else Verdict.DIRECTION
    if effect == Verdict.NO_DIFFERENCE:
        return effect
    there = effect in (Verdict.LOWER, Verdict.HIGHER)
    return Verdict.CONTRADICTED if there or excluded else Verdict.INCONCLUSIVE
