"""Trained models: locate, describe, and copy them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from study.core.atomic_io import read_hashed, write_bytes, write_json
from study.core.errors import MALFORMED, UserError, one_line, readable
from study.core.hashing import code_version
from study.core.paths import real_path
from study.core.records import RESULT
from study.datasets.parsing.header import read_header
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.objectives import keeps_limits
from study.space import plugin_configs

PORTABLE = "model.json"
"""File that describes the model in a folder made by `save_portable`."""


@dataclass(frozen=True)
class TrainedTrial:
    """A finished trial with its final weights.

    Args:
        job: the trial.
        weights: file of the weights.
        root: folder of all jobs, or of this trial alone; see `save_portable`.
    """

    job: Job
    weights: Path
    root: Path

    @property
    def label(self) -> str:
        """Short description for people."""
        return f"{self.job.label}, {self.weights.parent.name}"

    @property
    def outdated(self) -> bool:
        """Whether it was trained with other code or another torch than those of this process."""
        return self.job.code != code_version()

    @cached_property
    def elements(self) -> set[int]:
        """Atomic numbers in its training data; empty if these have been deleted."""
        portable = _read_portable(self.root)
        if portable:
            return set(portable["elements"])
        if self.data is None:
            return set()
        numbers = np.load(self.data / "numbers.npy", allow_pickle=False)
        return set(np.unique(numbers).tolist())

    @cached_property
    def molecular(self) -> bool:
        """Whether its training data have isolated molecules; False if these have been deleted."""
        portable = _read_portable(self.root)
        if portable:
            return bool(portable.get("molecular"))
        sizes = read_header(self.data)["origin"].get("sizes", {}) if self.data else {}
        return bool(sizes.get("isolated"))

    @cached_property
    def data(self) -> Path | None:
        """Folder of its training data; None if these have been deleted."""
        headers = (self.root / "data").glob("*/frames.json")
        folders = [header.parent for header in headers]
        by_hash = {read_header(folder)["content_hash"]: folder for folder in folders}
        return by_hash.get(self.job.data_hash)


def resolve_trained_model(place: Path) -> TrainedTrial:
    """Locate the trained model at a path.

    Args:
        place: a study's folder, for its best trial by validation; a trial's folder in `work`; or
            a file of weights there.

    Raises:
        UserError: if there is no trained model.
    """
    place = real_path(place)
    if portable := _read_portable(place):
        return _portable(portable, place)
    if (place / "journal.jsonl").exists():
        return _best_of(place)
    folder = place.parent if place.suffix == ".safetensors" else place
    if folder.name.startswith("pretrain-"):
        raise UserError(
            f"{folder}: is a pretraining, which predicts no energies; name a trial-… folder"
        )
    root = folder.parent.parent
    for journal in sorted((root / "studies").glob("*/journal.jsonl")):
        for job in _jobs(journal):
            if job.folder(root) == folder:
                return _with_weights(job, root)
    raise UserError(
        f"{place}: no trained model of a study; name a study's folder, such as runs/studies/NAME, "
        "or a trial's folder, runs/work/trial-…, beside the studies that it belongs to"
    )


def _portable(described: dict[str, Any], place: Path) -> TrainedTrial:
    try:
        job, weights = Job.from_json(described["work"]), Path(str(described["weights"])).name
    except MALFORMED as problem:
        raise UserError(
            f"{place / PORTABLE}: describes no model of this version ({one_line(problem)[:200]})"
        ) from None
    return TrainedTrial(job, place / weights, place)


def save_portable(trained: TrainedTrial, folder: Path) -> None:
    """Copy everything that `resolve_trained_model` needs of one model into a folder."""
    folder = real_path(folder)
    settings = trained.job.to_json()
    content = {
        "work": settings,
        "weights": trained.weights.name,
        "elements": sorted(trained.elements),
        "molecular": trained.molecular,
    }
    write_json(folder / PORTABLE, content)
    write_bytes(folder / trained.weights.name, read_hashed(trained.weights))
    plugin_configs.keep(settings, folder, kept_in=trained.root)


def _read_portable(folder: Path) -> dict[str, Any]:
    """Read the description of a portable model; empty if the folder holds none."""
    path = folder / PORTABLE
    if not path.is_file():
        return {}
    with readable(path, "ask for the model's folder again"):
        described = dict(json.loads(path.read_text()))
        if not all(isinstance(number, int) for number in described["elements"]):
            raise ValueError("`elements` must be atomic numbers")
        return described


def _best_of(study: Path) -> TrainedTrial:
    """Select the completed trial with the lowest validation error; test errors are not used.

    A trial that was stopped early is excluded, though an audit may have finished it, and so are
    those that only chose settings.
    """
    root = study.parent.parent
    settings = StudyDir(root, study.name).recorded_space().settings
    errors: dict[float, Job] = {}
    for entry in Journal(study / "journal.jsonl", "").entries().values():
        job = entry.planned.work
        stopped = entry.result is not None and entry.result.status == "stopped"
        kept = entry.result is None or keeps_limits(entry.result, settings.search)
        left_out = stopped or entry.planned.tuning or not kept
        outcome = None if left_out else load_outcome(job.folder(root))
        if outcome is not None and outcome.result.status == "completed":
            with readable(job.folder(root) / RESULT, "delete that folder and run the study again"):
                best = outcome.history[int(outcome.result.metrics["best_epoch"]) - 1]
                errors.setdefault(float(best.metrics[settings.metric]), job)
    if not errors:
        raise UserError(f"{study}: no trial has completed yet; run the study to its end first")
    return _with_weights(errors[min(errors)], root)


def _jobs(journal: Path) -> list[Job]:
    entries = Journal(journal, "").entries().values()
    return [entry.planned.work for entry in entries]


def _with_weights(job: Job, root: Path) -> TrainedTrial:
    outcome = load_outcome(job.folder(root))
    if outcome is None or outcome.weights is None:
        raise UserError(
            f"{job.folder(root)}: this trial has no final weights: it is not finished, was "
            "stopped, or diverged; name another"
        )
    return TrainedTrial(job, outcome.weights, root)
