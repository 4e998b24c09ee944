"""New tasks of given settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from study.graphs.graph_set import GraphSet
from study.models.potential import Potential
from study.tasks.task import Task

if TYPE_CHECKING:
    from study.tasks.config import TaskConfig


def build_task(settings: TaskConfig, model: Potential, graphs: GraphSet, train: Tensor) -> Task:
    """Build a task over all frames of `graphs`, and prepare it and the model for the training.

    Args:
        settings: of the task.
        model: its scale and reference energies are set, if the task has labels.
        graphs: all frames.
        train: (frames,) those that are trained on.
    """
    task = settings.build(graphs)
    task.prepare(model, train)
    return task
