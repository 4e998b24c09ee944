"""What several workers cannot share; asked of a plan before torch is imported, and in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.core.errors import UserError

if TYPE_CHECKING:
    from study.models.potential import Potential
    from study.training.config import Stage

COMPILED_FRAMES = 2
"""Fewest frames of a compiled batch, `study.training.compiler.MIN_SIZE`."""


def require_independent_frames(model: Potential, workers: int) -> None:
    """Refuse models whose frames must be together.

    Raises:
        UserError: if there are several workers, and frames are not independent.
    """
    if workers > 1 and not model.independent_frames:
        raise UserError(
            f"`workers` must be 1 with {type(model).__name__}, in which frames of a batch change "
            f"each other's predictions, but got {workers}"
        )


def can_compile_parts(stage: Stage, workers: int) -> bool:
    """Whether the part of a worker is large enough to be compiled.

    Raises:
        UserError: if it is not, but `compile` is true.
    """
    large = workers == 1 or stage.batch_size >= COMPILED_FRAMES * workers
    if stage.compile is True and not large:
        raise UserError(
            f"`compile: true` needs at least {COMPILED_FRAMES} frames of a batch for each worker, "
            f"but got batch_size {stage.batch_size} and {workers} workers; write `if_possible`"
        )
    return large


def require_enough_frames(stage: Stage, workers: int) -> None:
    """Refuse batches of which some worker would never have a frame.

    Raises:
        UserError: if there are fewer frames than workers.
    """
    if stage.batch_size < workers:
        raise UserError(
            f"`workers` must be <= batch_size {stage.batch_size} of each stage, but got {workers}"
        )
