"""Floating-point operations of training and validation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from study.core.errors import UserError
from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential
from study.tasks.task import Task
from study.training.gradients import Engine


@dataclass(frozen=True)
class Flops:
    """FLOPs per atom or edge (their numbers are added).

    Args:
        step: of a training step.
        validation: of validation.
    """

    step: float
    validation: float

    @classmethod
    def count(cls, model: Potential, task: Task, frames: Tensor) -> Flops:
        """Count the matmul FLOPs of the eager graph, 2·m·n·k each; compiled code saves few.

        They are counted on a copy of the model and with a separate random generator.

        Args:
            model: the model to train; it is not changed.
            task: the loss and its data.
            frames: (M,) a representative batch.
        """
        steps, size = range(task.period), _size(task.graphs, frames)
        copied_model, generator = copy.deepcopy(model), seeded("flops", device=task.graphs.device)
        terms = [task.terms(frames, generator, step) for step in steps]
        copied_model.train()
        training = _flops(
            lambda: [Engine(copied_model).backward(step_terms) for step_terms in terms]
        ) / len(steps)
        copied_model.eval()

        def validate() -> None:
            # Metrics of the user's own need not bear so few frames.
            with suppress(UserError):
                task.evaluate(copied_model, [frames], generator)

        validation = _flops(validate)
        return cls(training / size, validation / size)

    def of_epoch(self, graphs: GraphSet, train: Tensor, validation: Tensor) -> float:
        """FLOPs of one epoch: training steps on some frames, validation on others."""
        return self.step * _size(graphs, train) + self.validation * _size(graphs, validation)


def _size(graphs: GraphSet, frames: Tensor) -> int:
    """Number of atoms plus edges of the frames."""
    return graphs.atoms.count(frames) + graphs.edges.count(frames)


def _flops(act: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()
