"""Does a killed trial end as if nothing had happened? `study.run --space FILE --verify-resume`.

A short trial of the study is done twice in a temporary folder: in one go, and by processes that
kill themselves in the middle of both stages. Weights must agree in every bit; nothing else is
written.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.split_config import Split
from study.pipeline.job import Job
from study.pipeline.outcome import require_weights
from study.planning.plan import Plan
from study.planning.sample_frames import sample_frames
from study.space.settings import Resources
from study.space.trial import Trial
from study.training.checkpoint import load_tensors

FRAMES, EPOCHS, BATCH = 12, 2, 2
KILLS = 4
LONGEST = 3600.0
"""Seconds that a process may take."""


@dataclass(frozen=True)
class Verdict:
    """How both runs compare.

    Args:
        kills: how often the second one was killed.
        differences: largest difference of the weights, by stage; 0 if all bits agree.
    """

    kills: int
    differences: dict[str, float]

    @property
    def holds(self) -> bool:
        """All bits agree."""
        return not any(self.differences.values())

    def __str__(self) -> str:
        stages = " and ".join(self.differences)
        if self.holds:
            return f"resume verified: killed {self.kills} times, {stages} end bit for bit the same"
        apart = ", ".join(f"{stage} {value:.1e}" for stage, value in self.differences.items())
        return (
            f"resume is not exact here: killed {self.kills} times, weights differ by {apart}; "
            "results of a study that is interrupted will differ that much on this device, unless "
            "`resources: {deterministic: true}`"
        )


def verify(plan: Plan, device: str, seed: int = 0) -> Verdict:
    """Do the short trial both ways.

    Args:
        plan: the study.
        device: torch device.
        seed: decides the steps at which it is killed.

    Raises:
        UserError: if it does not even run without being killed.
    """
    trial = _short(plan.typical, max(BATCH, plan.space.settings.resources.workers))
    frames = sample_frames(trial.datasets[0], FRAMES, plan.root)
    with tempfile.TemporaryDirectory() as folder:
        stored, roots = (
            Path(folder) / "frames",
            [Path(folder) / name for name in ("once", "killed")],
        )
        frames.save(stored)
        work = Job("trial", trial, Frames.load(stored).content_hash())
        resources, rng, kills = plan.space.settings.resources, random.Random(seed), 0
        _run(work, roots[0], stored, device, resources)
        for _ in range(KILLS):
            kills += _run(work, roots[1], stored, device, resources, die_at=rng.randrange(2, 9))
        _run(work, roots[1], stored, device, resources)
        return Verdict(kills, {piece.stage: _apart(piece, roots) for piece in _pieces(work)})


def _short(trial: Trial, batch_size: int) -> Trial:
    """Shorten a trial: its models and tasks on few frames, for few steps."""

    def short(stage: Any) -> Any:
        cut = {"epochs": EPOCHS, "batch_size": batch_size, "frames": None}
        fields = type(stage).model_fields
        cut |= {name: None for name in ("dataset", "schedule_epochs") if name in fields}
        return stage.model_copy(update=cut)

    changes: dict[str, Any] = {"split": Split(by="frame"), "finetune": short(trial.finetune)}
    if trial.pretraining is not None:
        changes["pretrain"] = short(trial.pretraining)
    return trial.model_copy(update=changes)


def _pieces(work: Job) -> list[Job]:
    return [piece for piece in (work.pretraining, work) if piece is not None]


def _run(
    work: Job,
    root: Path,
    frames: Path,
    device: str,
    resources: Resources,
    die_at: int | None = None,
) -> bool:
    """Do what is left in a process of its own; true if that was killed at a step."""
    order = {
        "work": work.to_json(),
        "root": str(root),
        "frames": str(frames),
        "device": device,
        "threads": resources.cpus,
        "workers": resources.workers,
        "deterministic": resources.deterministic,
        "die_at": die_at,
    }
    done = subprocess.run(
        [sys.executable, "-m", "study.pipeline.resume_worker"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    killed = done.returncode == -signal.SIGKILL and die_at is not None
    if done.returncode and not killed:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"--verify-resume: a short trial does not run here ({said[-1]})")
    return killed


def _apart(piece: Job, roots: list[Path]) -> float:
    """Largest difference of the weights of two folders; 0 if all bits agree."""
    here, there = (require_weights(piece, root) for root in roots)
    if here.name == there.name:
        return 0.0
    ours, theirs = load_tensors(here), load_tensors(there)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
