"""Runs one trial of a study in this process, without Ray and MLflow."""

from __future__ import annotations

import sys
from pathlib import Path

from study.core.errors import UserError, printable
from study.core.paths import real_path
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.space.plugin_configs import MayRun, accept_code
from study.training.runtime import configure_process


def rerun_trial(place: Path, number: int, device: str, may_run: MayRun = lambda *_: False) -> int:
    """Run a trial, or show its result if it is finished.

    Args:
        place: folder of the study.
        number: of the trial.
        device: torch device.
        may_run: asked of code among the results that this user has not accepted before.

    Returns:
        0; 1 if it diverged.

    Raises:
        UserError: if there is no such study or trial.
    """
    folder = real_path(place)
    study = StudyDir(folder.parent.parent, folder.name)
    resources = study.recorded_space().settings.resources
    parts = _parts(study, number)
    job = parts[-1]
    if load_outcome(job.folder(study.root)) is None:
        for part in parts:
            accept_code(part.to_json(), study.root, may_run)
        frames = study.frames_of(job.data_hash)
        configure_process(resources.cpus, device, deterministic=resources.deterministic)
        _run(parts, study.root, frames, device, resources.workers)
    outcome = load_outcome(job.folder(study.root))
    assert outcome is not None
    result = outcome.result
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    sys.stdout.write(printable(f"{job.label}: {result.status}: {result.reason or metrics}\n"))
    return 0 if result.status == "completed" else 1


def _run(parts: list[Job], root: Path, frames: Path, device: str, workers: int) -> None:
    """Run the trial and, before it, its pretraining and the parts that it continues."""
    for part in filter(None, (parts[-1].pretraining, *parts)):
        sys.stdout.write(f"{part.label}\n  {part.folder(root)}\n")
        for record in run_job(part, root, frames, device, workers=workers):
            values = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
            sys.stdout.write(f"  epoch {record.epoch}/{part.epochs}: {values}\n")
            sys.stdout.flush()


def _parts(study: StudyDir, number: int) -> list[Job]:
    """The trial, after those of a population that it continues, the first one first."""
    entries = Journal(study.journal, "").entries()
    if number not in entries:
        raise UserError(
            f"{study.path}: has no trial {number}, only 0 to {max(entries, default=-1)}; "
            f"`python -m study.status {study.path} --all` lists them"
        )
    works = {entry.planned.work.key: entry.planned.work for entry in entries.values()}
    parts = [entries[number].planned.work]
    while (segment := parts[0].segment) is not None and segment.parent in works:
        parts.insert(0, works.pop(segment.parent))
    return parts
