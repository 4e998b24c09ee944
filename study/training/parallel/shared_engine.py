"""Gradients that the workers of a trial compute together, by torch.distributed.

One worker, of rank 0, has the optimizer, the schedule and the checkpoints. Before a step it sends
its weights to the others, and after it gets the sum of all gradients: the same volume as the
all-reduce of `DistributedDataParallel`, but the others have no state, so that a training can resume
with any number of them. That class's hooks would also see neither compiled programs nor that a loss
is a mean over the atoms of all workers, whose shares differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, distributed

from study.models.potential import Potential
from study.tasks.task import Term
from study.training.gradients import Engine, compiles
from study.training.parallel.portions import portion
from study.training.parallel.refusals import require_enough_frames, require_independent_frames

if TYPE_CHECKING:
    from study.training.config import Stage


class Team(Protocol):
    """The other workers of a trial, as rank 0 sees them."""

    workers: int
    """Number of workers, rank 0 included."""

    def start_step(self, epoch: int, step: int) -> None:
        """Let all begin a step; `SharedEngine.backward` must follow."""

    def cost(self) -> tuple[float, float | None]:
        """CPU seconds and energy (J) of the others since the last call; None if unknown."""


class BrokenGroupError(Exception):
    """A worker does not answer any more."""


@contextmanager
def _may_break() -> Iterator[None]:
    try:
        yield
    except RuntimeError as problem:
        raise BrokenGroupError(str(problem)) from problem


class SharedEngine:
    """Computes the gradients of a model together with the other workers of a trial.

    Args:
        engine: computes the part of this worker.
        rank: number of this worker.
        workers: number of workers; the default process group is theirs.
    """

    def __init__(self, engine: Engine, rank: int, workers: int) -> None:
        self.engine, self.rank, self.workers = engine, rank, workers
        self.learning = [w for w in engine.model.parameters() if w.requires_grad]
        self._used: dict[tuple[str, ...], list[bool]] = {}
        """Which weights have a gradient, by the names of the terms."""

    def backward(self, terms: Sequence[Term]) -> Tensor:
        """Compute the gradients of the weighted sum of all terms; rank 0 has them in `grad` then.

        Args:
            terms: of the whole batch, the same on every rank.

        Returns:
            () the weighted sum on rank 0, of the own part elsewhere, detached.
        """
        self._send_weights()
        parts = [part for term in terms if (part := portion(term, self.rank, self.workers))]
        loss = self.engine.backward(parts) if parts else self.learning[0].new_zeros(())
        return self._sum(loss, tuple(term.name for term in terms))

    @torch.no_grad()
    def _send_weights(self) -> None:
        flat = torch.cat([weights.detach().flatten() for weights in self.learning])
        with _may_break():
            distributed.broadcast(flat, src=0)
        if self.rank:
            for weights, values in zip(self.learning, self._cut(flat), strict=True):
                weights.copy_(values.view_as(weights))
                weights.grad = None

    @torch.no_grad()
    def _sum(self, loss: Tensor, kind: tuple[str, ...]) -> Tensor:
        """Add the gradients and losses of all workers on rank 0."""
        gradients = [w.grad if w.grad is not None else torch.zeros_like(w) for w in self.learning]
        used = loss.new_tensor([weights.grad is not None for weights in self.learning])
        flat = torch.cat([*(each.flatten() for each in gradients), used, loss.reshape(1)])
        with _may_break():
            distributed.reduce(flat, dst=0)
        if self.rank:
            return loss
        *sums, used, total = self._cut(flat, len(self.learning), 1)
        # Asked once for each kind of step, because a GPU has to be waited for.
        if kind not in self._used:
            self._used[kind] = (used > 0).tolist()
        for weights, values, has in zip(self.learning, sums, self._used[kind], strict=True):
            weights.grad = values.view_as(weights).to(weights.dtype) if has else None
        return total.reshape(()).to(loss.dtype)

    def _cut(self, flat: Tensor, *more: int) -> tuple[Tensor, ...]:
        return torch.split(flat, [*(weights.numel() for weights in self.learning), *more])


def build_engine(
    model: Potential,
    stage: Stage,
    frames: int,
    store: Path | None,
    rank: int = 0,
    workers: int = 1,
) -> Engine | SharedEngine:
    """Build what computes gradients.

    Args:
        model: on the device to train on.
        stage: whether it is compiled, and its precision.
        frames: number of training frames.
        store: of compiled programs.
        rank: number of this worker.
        workers: that share each step.

    Raises:
        UserError: if workers cannot share the steps of this model, or if it cannot be compiled.
    """
    compiled = compiles(stage, model, frames, workers)
    engine = Engine(model, compiled=compiled, store=store, precision=stage.precision)
    require_independent_frames(model, workers)
    require_enough_frames(stage, workers)
    return engine if workers == 1 else SharedEngine(engine, rank, workers)
