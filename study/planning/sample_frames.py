"""Frames for a few steps before a study: of its data set, or water that stands in for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from study.core.errors import UserError
from study.datasets.config import DatasetConfig
from study.datasets.frames import Frames
from study.datasets.prepare import folder_of, import_command
from study.datasets.sources.openmm_water import box_edge, build_box


def sample_frames(dataset: DatasetConfig, count: int, root: Path) -> Frames:
    """Take so many frames of a data set, or what stands in for them.

    Args:
        dataset: which.
        count: number of frames; those of a smaller set come again.
        root: folder of all results.

    Raises:
        UserError: if nothing does.
    """
    folder = folder_of(dataset, root)
    if folder.exists():
        frames = Frames.load(folder, known=True)
        return frames.select(np.arange(count) % len(frames))
    sizes = dataset.sizes
    if sizes is None or not dataset.simulated:
        raise UserError(
            f"--probe: {dataset.label} has not been read yet; do that first with "
            f"`{import_command(dataset, root)}`, or leave the option out"
        )
    return _packed_water(sizes.waters, count)


def _packed_water(molecules: int, count: int) -> Frames:
    """Frames of the right size and density, with forces of the usual size."""
    _, positions = build_box(molecules)
    rng = np.random.default_rng(0)
    jittered = 10 * positions + rng.normal(scale=0.02, size=(count, 3 * molecules, 3))
    return Frames(
        numbers=np.tile(np.array([8, 1, 1], np.uint8), molecules * count),
        positions=jittered.reshape(-1, 3),
        forces=rng.normal(scale=0.6, size=(3 * molecules * count, 3)),
        offsets=3 * molecules * np.arange(count + 1),
        cells=np.tile(10 * box_edge(molecules) * np.eye(3), (count, 1, 1)),
        energies=rng.normal(scale=0.5, size=count),
        groups=np.arange(count),
    )
