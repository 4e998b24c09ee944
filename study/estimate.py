"""How long a study will take, roughly, before anything has run."""

from __future__ import annotations

from study.sizes import Sizes
from study.trial import Stage, Trial

STEP_OVERHEAD = 0.004
"""Seconds per step and layer, whatever the size."""

PER_EDGE = 0.6e-6
"""Seconds per edge and layer of a training step on one core of 2025."""

PER_EDGE_AND_FEATURE = 4e-8
"""The same, for each feature."""

AGAINST_EGNN = {
    "gns": 0.45,
    "forcenet": 0.5,
    "schnet": 0.65,
    "visnet": 4.5,
    "equivariant_transformer": 2.7,
}
"""What a step of a model costs, with the width and layers of an EGNN: mean over 32 × 3 and
128 × 5, 4 and 16 frames of 81 atoms. Between these it differs by up to a half."""

MOST_NEIGHBOURS = 1e4
"""Of an atom, whatever the cutoff, so that a wrong one does not make an estimate infinite."""

VALIDATION_SHARE = 0.35
"""Cost of a frame in validation relative to training."""


def stage_seconds(trial: Trial, stage: Stage, sizes: Sizes) -> float:
    """Compute of one stage on one core.

    Measured on water; another machine is faster or slower, so the display corrects it by what the
    first epochs really take.
    """
    model = trial.model
    train, validation, _ = sizes.shares(trial.split)
    train = min(train, stage.frames or train)
    frames = train + VALIDATION_SHARE * validation
    neighbours = min(sizes.neighbours(model.cutoff), MOST_NEIGHBOURS)
    per_frame = sizes.atoms * neighbours * (PER_EDGE + PER_EDGE_AND_FEATURE * model.hidden)
    steps = frames / stage.batch_size
    of_egnn = stage.epochs * model.layers * (steps * STEP_OVERHEAD + frames * per_frame)
    return AGAINST_EGNN.get(model.name, 1.0) * of_egnn


def duration(seconds: float) -> str:
    """Seconds in words: 40 s, 7 min, 3.5 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
