"""What looks wrong with the data sets of a study, and with the parts that they are split into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from study.core.errors import UserError
from study.datasets.config import DatasetConfig
from study.datasets.diagnostics import ONE_GROUP, split_warnings, warnings
from study.datasets.frames import Frames
from study.datasets.prepare import folder_of, seconds_to_make, warnings_on
from study.datasets.readers.detect import read_frames
from study.datasets.split_config import Split
from study.datasets.splits import sizes_of, split
from study.datasets.store import file_of
from study.datasets.validation import check
from study.planning.plan import Plan

QUICKLY = 60.0
"""Seconds in which a file is read for a plan alone; larger ones are looked at when they are."""
MOST_SPLITS = 10
"""Of a data set that are looked at."""


def print_data_warnings(plan: Plan, console: Console) -> None:
    """Print a line for each oddity of each data set that is read here.

    Raises:
        UserError: if a file that was not read yet cannot be.
    """
    for dataset in plan.datasets:
        if getattr(dataset, "simulated", False):
            continue
        by_trajectory = any(split.by == "trajectory" for split, _ in _splits(plan, dataset))
        for line in dict.fromkeys(_warnings(plan, dataset)):
            if line.startswith(ONE_GROUP) and not by_trajectory:
                continue
            console.print(f"  warning  {dataset.label}: {line}")


def _warnings(plan: Plan, dataset: DatasetConfig) -> Iterator[str]:
    folder = folder_of(dataset, plan.root)
    if folder.exists():
        frames = Frames.load(folder, known=True)
        yield from warnings_on(dataset, plan.root)
    elif hasattr(dataset, "reader") and seconds_to_make(dataset, plan.root, 1) < QUICKLY:
        frames = _read(plan, dataset)
        yield from filter(None, [*frames.origin.get("labels", []), sizes_of(frames).partial_labels])
        yield from warnings(frames)
    else:
        return
    for settings, seed in _splits(plan, dataset)[:MOST_SPLITS]:
        try:
            parts = split(frames, settings, seed)
        except UserError as problem:
            yield f"{problem} (seed {seed})"
            continue
        for line in split_warnings(frames, vars(parts)):
            yield f"{line} (split of seed {seed})"


def _splits(plan: Plan, dataset: DatasetConfig) -> list[tuple[Split, int]]:
    """How trials split a data set, with their seeds."""
    trials = [trial for trial in plan.grid or plan.space.samples if dataset in trial.datasets]
    return list(dict.fromkeys((trial.split, trial.seed) for trial in trials))


def _read(plan: Plan, dataset: Any) -> Frames:
    """Read a file for a plan alone; nothing is written."""
    file = file_of(dataset, plan.root)
    frames = read_frames(dataset, file)
    check(frames, file)
    return frames
