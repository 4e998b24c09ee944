"""The core where torch, torch-geometric and numpy are all there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from study.core.records import COST_METRICS
from study.datasets.frames import Frames
from study.datasets.splits import split
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.space.trial import Trial
from tests.plain_settings import with_implementations

BOTH_STAGES = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

class Without:
    def __init__(self, finder, absent):
        self.finder, self.absent = finder, absent
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.absent:
            return None
        return self.finder.find_spec(name, path, target)

absent = set(json.loads(sys.argv[2]))
sys.meta_path[:] = [Without(finder, absent) for finder in sys.meta_path]

import torch
from study.core.components import build
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.tasks.build import build_task
from study.training.loop import fit

class Settings(SimpleNamespace):
    build = build

trial = json.loads(sys.argv[3], object_hook=lambda values: Settings(**values))
frames = Frames.load(Path(sys.argv[1]))
graphs = GraphSet.build(frames, trial.model.cutoff)
train, validation = map(torch.tensor, json.loads(sys.argv[4]))
def train_on(stage, model):
    task = build_task(stage.task, model, graphs, train[: stage.frames])
    return list(fit(model, task, stage, train, validation, trial.seed))

pretrained, model = (build_model(trial.model, trial.seed) for _ in range(2))
history = train_on(trial.pretrain, pretrained)
model.load_pretrained(pretrained.state_dict(), include_heads=False)
model.zero_init_readout()
history += train_on(trial.finetune, model)
assert not absent & {name.partition(".")[0] for name in sys.modules}
print(json.dumps(history))
"""


def _needs(package: str) -> set[str]:
    lines = map(Requirement, requires(package) or [])
    return {line.name for line in lines if "extra" not in str(line.marker)}


def all_but_torch() -> list[str]:
    """Top-level modules of all that we need beside torch, torch-geometric and numpy."""
    names = _needs("pretraining-study") - {"torch", "torch-geometric", "numpy"}
    names -= _needs("torch") | _needs("torch-geometric") | _needs("requests")  # which PyG needs
    return sorted({"pyyaml": "yaml"}.get(name, name.replace("-", "_")) for name in names)


def test_both_stages_run_with_torch_alone_and_give_the_same_numbers(
    tiny: Callable[..., Trial], water: Frames, water_folder: Path, tmp_path: Path
) -> None:
    masking, denoising = {"name": "masking", "masking_ratio": 0.5}, {"name": "denoising"}
    trial = tiny(
        pretrain__task={"name": "mixed", "tasks": [{"task": masking}, {"task": denoising}]}
    )
    parts = split(water, trial.split, trial.seed)
    absent = all_but_torch()
    assert {"pydantic", "vesin", "ray", "mlflow", "optuna", "safetensors"} <= set(absent)
    frame_indices = [parts.train.tolist(), parts.validation.tolist()]
    given = [absent, with_implementations(trial), frame_indices]
    done = subprocess.run(
        [sys.executable, "-c", BOTH_STAGES, str(water_folder), *map(json.dumps, given)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    work = Job("trial", trial, water.content_hash())
    assert work.pretraining is not None
    expected = [
        *run_job(work.pretraining, tmp_path, water_folder),
        *run_job(work, tmp_path, water_folder),
    ]
    for metrics, record in zip(json.loads(done.stdout), expected, strict=True):
        for name in set(record.metrics) - set(COST_METRICS):
            # Neighbours come in another order, so sums are rounded otherwise.
            assert metrics[name] == pytest.approx(record.metrics[name], rel=1e-4), name
