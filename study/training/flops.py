"""What training costs besides time: floating point operations, and energy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential
from study.tasks.task import Task
from study.training.gradients import Engine


@dataclass(frozen=True)
class Flops:
    """Floating point operations per atom and edge, which are counted together.

    Args:
        step: of a training step.
        validation: of validation.
    """

    step: float
    validation: float

    @classmethod
    def count(cls, model: Potential, task: Task, frames: Tensor) -> Flops:
        """Count products of matrices, 2·m·n·k each, that autograd takes; compiled code spares few.

        It is done on a copy of the model and with random numbers of its own.

        Args:
            model: to be trained; it stays as it is.
            task: what to train on.
            frames: (frames,) a batch that stands for all.
        """
        steps, size = range(task.period), _size(task.graphs, frames)
        twin, generator = copy.deepcopy(model), seeded("flops", device=task.graphs.device)
        terms = [task.terms(frames, generator, step) for step in steps]
        twin.train()
        learnt = _flops(lambda: [Engine(twin).backward(of_step) for of_step in terms]) / len(steps)
        twin.eval()
        judged = _flops(lambda: task.evaluate(twin, [frames], generator))
        return cls(learnt / size, judged / size)

    def of_epoch(self, graphs: GraphSet, train: Tensor, validation: Tensor) -> float:
        """Training steps over some frames, then validation on others."""
        return self.step * _size(graphs, train) + self.validation * _size(graphs, validation)


def _size(graphs: GraphSet, frames: Tensor) -> int:
    """Atoms and edges of the frames."""
    return graphs.atoms.count(frames) + graphs.edges.count(frames)


def _flops(act: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()
