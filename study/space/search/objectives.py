"""What a search minimizes beside the study's metric, and what it may not exceed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from study.space.yaml_loader import Block

if TYPE_CHECKING:
    from study.space.settings import Settings

COSTS = ("seconds", "step_seconds", "flops", "parameters", "peak_memory")
"""What a trial costs; see `METRICS` of the records. Seconds and operations are of finetuning."""


def problems_of_metrics(
    settings: Settings, errors: Collection[str], content: Block, path: Path
) -> list[str]:
    """What is wrong with the metric, the objectives and the limits of a search; a line each.

    Args:
        settings: of the space.
        errors: validation errors that a trial measures.
        content: the space, for its lines.
        path: its file.
    """
    problems = []
    if settings.metric not in errors:
        place = f"{path}:{content.lines['metric']}" if "metric" in content else str(path)
        problems = [
            f"{place}: metric: must be one of {', '.join(errors)}, which `finetune.task` measures, "
            f"but got {settings.metric}"
        ]
    search, block = settings.search, content.get("search")
    if search is None or not isinstance(block, Block):
        return problems
    known = [*errors, *COSTS]
    return problems + [
        f"{path}:{block.lines.get(key, 1)}: search.{key}: must name some of {', '.join(known)}, "
        f"but got {name}"
        for key, names in (("objectives", search.objectives), ("at_most", search.at_most))
        for name in names or ()
        if name not in known
    ]
