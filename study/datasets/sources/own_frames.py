"""Frames that code of the user's own makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.core.hashing import digest, without_places
from study.core.user_code import typed
from study.core.user_traceback import described
from study.datasets import store
from study.datasets.config import DatasetConfig, OwnDataset
from study.datasets.frames import Frames


def folder_of(dataset: OwnDataset, root: Path) -> Path:
    """Where they are, or will be."""
    return root / "data" / f"{dataset.name}-{digest(_settings(dataset))[:12]}"


def prepare(
    dataset: OwnDataset, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Make them, unless they are there.

    Raises:
        UserError: if that code fails, or no model can learn from them.
    """
    del workers, progress
    made = typed(dataset, DatasetConfig, root)

    def build() -> Frames:
        try:
            frames: Frames = made.build()
        except UserError:
            raise
        # Whatever the user's code raises is the answer.
        except Exception as problem:
            raise UserError(f"{dataset.name}: {described(problem)}") from None
        return frames

    return store.store(folder_of(dataset, root), build, _settings(dataset))


def seconds_to_make(dataset: OwnDataset, root: Path, workers: int) -> float:
    """Nobody knows."""
    del dataset, root, workers
    return 0.0


def _settings(dataset: OwnDataset) -> dict[str, Any]:
    """All that decides the frames."""
    settings: dict[str, Any] = without_places(dataset.model_dump(mode="json"))
    return settings
