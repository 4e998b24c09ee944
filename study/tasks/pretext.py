"""Pretext tasks by the name that a space gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from study.graph import GraphSet
from study.tasks import Task
from study.tasks.denoising import Denoising
from study.tasks.masking import Masking
from study.tasks.mixed import Mixed

if TYPE_CHECKING:
    from study.own import Task as OwnTask
    from study.trial import Denoising as DenoisingSettings
    from study.trial import Masking as MaskingSettings
    from study.trial import Mixed as MixedSettings
    from study.trial import OwnTask as Unrealized

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
