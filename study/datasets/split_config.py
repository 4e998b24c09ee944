"""How data sets are split, as the user says it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from study.core.config import Config
from study.datasets.sizes import SplitBy


def _portion(value: object) -> str:
    """Tag of the kind of number that says how much of something is meant."""
    return "<number>" if type(value) is int else "<fraction>"


Portion = Annotated[
    Annotated[float, Field(gt=0, lt=1), Tag("<fraction>")]
    | Annotated[int, Field(ge=1, le=10**12), Tag("<number>")],
    Discriminator(_portion),
]
"""A fraction, or a number of things."""


def taken(portion: float, things: int) -> int:
    """How many of so many things a portion is; at least one."""
    return portion if isinstance(portion, int) else max(1, round(portion * things))


class Split(Config):
    """Which frames train, validate and test."""

    by: SplitBy = "trajectory"
    """Keep whole trajectories together (no leak between correlated frames), draw single frames (of
    conformers, the same molecules then train and test), keep all frames of a sum formula together,
    or take the parts that the set was published with; a set to pretrain on that has none is then
    split by frame. A trajectory is what a file says belongs
    together: n2p2's `src=` in the comment, extxyz's `group`, a file of a folder, a molecule with
    all its conformers; equal frames always stay together."""
    test: Portion = 0.1
    """Held out for the final test: a fraction of all trajectories, frames or sum formulas, or a
    number of them."""
    validation: Portion = 0.1
    """Picks the best epoch: a fraction of the rest, or a number."""
    folds: int | None = Field(default=None, ge=2, le=1000)
    """K-fold cross-validation, in place of `test`: of all trajectories, frames or sum formulas, by
    their order in the data set, seed k tests on the numbers k mod K, k mod K + K, and so on. Seeds
    0 to K - 1 test on disjoint parts, which hold everything once."""

    @model_validator(mode="after")
    def _folds_are_dealt_here(self) -> Self:
        if self.folds and self.by == "published":
            raise ValueError(
                "`folds` must be left out where `by` is published, whose parts are fixed, but got "
                f"{self.folds}"
            )
        return self

    def fold_of(self, units: int, seed: int) -> range | None:
        """Numbers of the trajectories or frames in the fold of a seed; None without folds."""
        return range(seed % self.folds, units, self.folds) if self.folds else None

    def counts(self, units: int) -> tuple[int, int, int]:
        """Trajectories or frames for training, validation and test; one at least of the latter.

        Folds differ by one at most; these are the numbers of the largest.
        """
        test = -(-units // self.folds) if self.folds else taken(self.test, units)
        validation = taken(self.validation, units - test)
        return units - test - validation, validation, test
