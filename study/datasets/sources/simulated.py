"""Water that is simulated here, as data sets are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from study.datasets.sources import tip3p

if TYPE_CHECKING:
    from study.datasets.config import TIP3PWater


def folder_of(dataset: TIP3PWater, root: Path) -> Path:
    """Where its frames are, or will be."""
    return root / "data" / tip3p.folder_name(dataset)


def prepare(
    dataset: TIP3PWater, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Simulate it unless it is there.

    Raises:
        UserError: if OpenMM is missing, another process makes the same set, or a worker dies.
    """
    return tip3p.make(dataset, root / "data", workers, progress)


def seconds_to_make(dataset: TIP3PWater, root: Path, workers: int) -> float:
    """Expected time on this machine."""
    del root
    return tip3p.seconds_to_make(dataset, workers)
