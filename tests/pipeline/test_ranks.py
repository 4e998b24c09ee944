"""Several processes that share each step train what one does, also when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from study.core.records import EpochRecord
from study.datasets.frames import Frames
from study.pipeline.execute import run_job, run_job_safely
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.pipeline.ranks import LostWorkerError, Ranks
from study.space.trial import Trial
from study.training.checkpoint import load_tensors


def others() -> list[psutil.Process]:
    """The other workers of this process's trial."""
    children = psutil.Process().children()
    return [child for child in children if "study.pipeline.rank_worker" in child.cmdline()]


def weights_of(job: Job, root: Path) -> dict[str, Tensor]:
    outcome = load_outcome(job.folder(root))
    assert outcome is not None
    assert outcome.weights is not None
    return load_tensors(outcome.weights)


def assert_equal_to_rounding(records: list[EpochRecord], expected: list[EpochRecord]) -> None:
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        for name in ("train_loss", "grad_norm", "val_force_rmse", "val_energy_rmse", "lr"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4), name


def test_four_workers_train_what_one_does_and_one_goes_on_when_another_was_killed(
    water: Frames, water_folder: Path, tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    auxiliary = {"task": {"name": "denoising", "noise_scale": 0.1}, "weight": 0.3}
    task = {"name": "energy_forces", "energy_weight": 0.2, "auxiliary": auxiliary}
    # The last batch of an epoch has fewer frames than there are workers.
    changes: dict[str, Any] = {"task": task, "batch_size": 4, "clip_norm": 1.0, "ema": 0.9}
    fields = {f"finetune__{name}": value for name, value in changes.items()}
    job = Job("trial", tiny(pretrain=None, **fields), water.content_hash())
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    expected = list(run_job(job, alone, water_folder))

    training = run_job_safely(job, shared, water_folder, workers=4)
    first = next(training)
    assert isinstance(first, EpochRecord)
    assert_equal_to_rounding([first], expected[:1])
    assert len(others()) == 3
    os.kill(others()[1].pid, signal.SIGKILL)
    with pytest.raises(LostWorkerError, match="was killed"):
        next(training)
    assert not others()

    assert_equal_to_rounding(list(run_job(job, shared, water_folder)), expected)
    one, other = (weights_of(job, root) for root in (alone, shared))
    for name, weights in one.items():
        torch.testing.assert_close(other[name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("last_words", "kind", "reason"),
    [
        (
            {"rank": 1, "failed": "ValueError: odd", "memory": False},
            RuntimeError,
            "worker 1: .*odd",
        ),
        ({"rank": 1, "failed": "OutOfMemoryError", "memory": True}, MemoryError, "worker 1: "),
        ({}, LostWorkerError, "was killed or crashed"),
    ],
)
def test_why_a_worker_ended_is_why_the_trial_did(
    last_words: dict[str, Any], kind: type[Exception], reason: str, tiny: Callable[..., Trial]
) -> None:
    ranks = Ranks(Job("trial", tiny(), ""), Path(), Path(), "cpu", workers=2)
    words = json.dumps(last_words | {"traceback": "its lines"}) if last_words else ""
    command = [sys.executable, "-c", f"print({words!r}, end='')"]
    pipe = subprocess.PIPE
    ranks._processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)]
    with pytest.raises(kind, match=reason) as problem:
        ranks.cost()
    assert getattr(problem.value, "__notes__", []) == (["its lines"] if last_words else [])
    ranks.close()
