"""Pretext tasks by the name that a space gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.graphs.graph_set import GraphSet
from study.tasks.denoising import Denoising
from study.tasks.masking import Masking
from study.tasks.multi_task import Mixed
from study.tasks.task import Task

if TYPE_CHECKING:
    from study.tasks.config import Denoising as DenoisingSettings
    from study.tasks.config import Masking as MaskingSettings
    from study.tasks.config import Mixed as MixedSettings
    from study.tasks.config import OwnTask as Unrealized
    from study.tasks.config import Task as OwnTask

    Settings = MaskingSettings | DenoisingSettings | MixedSettings | OwnTask | Unrealized

PRETEXT_TASKS = {"masking": Masking, "denoising": Denoising}


def build_pretext(settings: Settings, graphs: GraphSet) -> Task:
    """A task that needs no labels, over all frames of `graphs`."""
    named: Any = settings
    task: Task
    if named.name == "mixed":
        task = Mixed(named, graphs, [build_pretext(part.task, graphs) for part in named.tasks])
    elif named.name in PRETEXT_TASKS:
        task = PRETEXT_TASKS[named.name](named, graphs)
    else:
        task = named.build(graphs)
    return task
