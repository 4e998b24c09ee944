"""Which frames train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from study.errors import UserError
from study.frames import Frames
from study.identity import digest
from study.seeding import seeded

if TYPE_CHECKING:
    from study.trial import Split


@dataclass(frozen=True)
class Splits:
    """Frame numbers of the three disjoint parts, each in a random but fixed order."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse parts that share a frame, and empty parts."""
        parts = (self.train, self.validation, self.test)
        together = np.concatenate(parts)
        if len(np.unique(together)) != len(together):
            raise UserError("split: the parts must not share frames")
        if any(len(part) == 0 for part in parts):
            raise UserError(
                f"split: every part needs a frame, but train, validation, test have "
                f"{[len(part) for part in parts]}; take more frames or trajectories"
            )

    def content_hash(self) -> str:
        """SHA-256 over the three lists."""
        return digest([part.tolist() for part in (self.train, self.validation, self.test)])


def split(frames: Frames, settings: Split, seed: int) -> Splits:
    """Hold out a test part of all units, then a validation part of the rest.

    The units are whole trajectories or single frames. A part gets at least one unit.
    """
    units = np.unique(frames.groups) if settings.by == "trajectory" else np.arange(len(frames))
    owner = frames.groups if settings.by == "trajectory" else units
    shuffled = units[_permutation(len(units), seed, "units")]
    _, n_validation, n_test = settings.counts(len(units))
    test, validation, train = np.split(shuffled, [n_test, n_test + n_validation])
    order = _permutation(len(frames), seed, "frames")
    return Splits(*(order[np.isin(owner[order], part)] for part in (train, validation, test)))


def _permutation(size: int, seed: int, purpose: str) -> NDArray[np.int64]:
    order = torch.randperm(size, generator=seeded("split", purpose, seed))
    return np.asarray(order.numpy(), dtype=np.int64)
