"""Pretext tasks by the name that a space gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.graph import GraphSet
from study.tasks import Task
from study.tasks.denoising import Denoising
from study.tasks.masking import Masking
from study.tasks.mixed import Mixed

if TYPE_CHECKING:
    from study.trial import Denoising as DenoisingSettings
    from study.trial import Masking as MaskingSettings
    from study.trial import Mixed as MixedSettings

PRETEXT_TASKS = {"masking": Masking, "denoising": Denoising}


def build_pretext(
    settings: MaskingSettings | DenoisingSettings | MixedSettings, graphs: GraphSet
) -> Task:
    """A task that needs no labels, over all frames of `graphs`."""
    if settings.name == "mixed":
        parts = [build_pretext(part.task, graphs) for part in settings.tasks]
        return Mixed(settings, graphs, parts)
    task: Task = PRETEXT_TASKS[settings.name](settings, graphs)
    return task
