"""Data sets by the name that a space gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from study.datasets import tip3p

if TYPE_CHECKING:
    from study.trial import Dataset


def folder_of(dataset: Dataset, root: Path) -> Path:
    """Where the frames of a data set are, or will be."""
    return root / "data" / tip3p.folder_name(dataset)


def prepare(
    dataset: Dataset, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Make sure that the frames are there.

    Args:
        dataset: which.
        root: folder of all work; data sets are in its `data`.
        workers: processes to use.
        progress: told how many frames of how many are done.

    Returns:
        The folder, for `Frames.load`.
    """
    return tip3p.make(dataset, root / "data", workers, progress)


def seconds_to_make(dataset: Dataset, workers: int) -> float:
    """Expected time to make the data set on this machine."""
    return tip3p.seconds_to_make(dataset, workers)
