"""What a training step costs on an accelerator: operations launched, copies and waits.

Counted on a pretended one (`tests/pretended_device.py`), for every model and every task.
`python -m tests.accelerator` prints the table, and `--write` stores it: steps may only get cheaper.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from study.core.config import shipped
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import ModelConfig
from study.tasks.build import build_task
from study.training.config import Stage
from study.training.loop import fit
from tests.benchmarks.water import water_box
from tests.determinism import SMALL
from tests.pretended_device import DEVICE, Pretended

TABLE = Path(__file__).with_suffix(".json")
MASKING = {"name": "masking", "masking_ratio": 0.5}
DENOISING = {"name": "denoising", "noise_scale": 0.1}
TASKS: dict[str, dict[str, Any]] = {
    "masking": MASKING,
    "masking bonds": MASKING | {"within": "bonds"},
    "denoising": DENOISING,
    "noise level": {"name": "noise_level", "noise_scale": 0.1, "lowest_scale": 0.01},
    "masking and denoising": {"name": "mixed", "tasks": [{"task": MASKING}, {"task": DENOISING}]},
    "energy and forces": {"name": "energy_forces"},
    "energy": {"name": "scalar", "target": "energy"},
}
MOLECULES, FRAMES, BATCH = 27, 5, 2
"""In a box of two cutoffs, as the boxes of water that people train on have at least."""
Counts = dict[str, int]


def model_settings(name: str) -> ModelConfig:
    """A small model of each kind."""
    sizes = {"name": name, "hidden": 8, "layers": 2, "cutoff": 3.4}
    return shipped(ModelConfig)[name].model_validate(sizes | SMALL.get(name, {}))


def train(
    name: str, task: str, device: torch.device, after_step: Callable[[], bool]
) -> dict[str, float]:
    """Train for an epoch of two steps and validate; metrics of the epoch.

    Args:
        name: of the model.
        task: a key of `TASKS`.
        device: where.
        after_step: called before the first step and after each.
    """
    stage = Stage.model_validate(
        {"batch_size": BATCH, "epochs": 1, "lr": 1e-5, "clip_norm": 1.0, "task": TASKS[task]}
    )
    graphs = GraphSet.build(water_box(MOLECULES, FRAMES), 3.4, device=str(device))
    model = build_model(model_settings(name), seed=0).to(device)
    frames = torch.arange(FRAMES)
    built = build_task(stage.task, model, graphs, frames[:4])
    (metrics,) = fit(model, built, stage, frames[:4], frames[4:], seed=0, should_stop=after_step)
    return metrics


def measured(name: str, task: str) -> tuple[Counts, dict[str, float]]:
    """Cost of the second step, which has nothing to prepare any more, and the epoch's metrics."""
    pretended, found = Pretended(), list[Counts]()

    def after_step() -> bool:
        found.append(
            {
                "launches": sum(pretended.launched.values()),
                "copies": sum(pretended.copies.values()),
                "waits": sum(pretended.waits.values()),
            }
        )
        pretended.reset()
        return False

    with pretended.running():
        metrics = train(name, task, DEVICE, after_step)
    return found[-1], metrics


def cases() -> Iterator[tuple[str, str]]:
    """Models and tasks: both stages of all models written here, other tasks of one."""
    for name in (name for name, kind in shipped(ModelConfig).items() if not kind.package):
        for task in TASKS if name == "schnet" else ("masking", "energy and forces"):
            yield name, task


def main() -> None:
    """Print the table, and store it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"into {TABLE.name}")
    write, found = parser.parse_args().write, dict[str, Counts]()
    sys.stdout.write("| model | task | launches | copies | waits |\n|---|---|---|---|---|\n")
    for name, task in cases():
        counted, _ = measured(name, task)
        numbers = " | ".join(map(str, counted.values()))
        sys.stdout.write(f"| {name} | {task} | {numbers} |\n")
        found[f"{name}, {task}"] = counted
    if write:
        TABLE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
