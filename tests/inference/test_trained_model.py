"""Which trial stands for a study, and what is no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from study.core.records import JobResult
from study.inference.trained_model import resolve_trained_model
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome
from study.planning.study_dir import StudyDir
from study.predict import main
from study.scheduling.journal import Journal


def trials_of(study: StudyDir) -> list[tuple[Job, Outcome]]:
    trials = []
    for entry in Journal(study.journal, "val_force_rmse").entries().values():
        outcome = load_outcome(entry.planned.work.folder(study.root))
        assert outcome is not None
        trials.append((entry.planned.work, outcome))
    return trials


def test_a_study_stands_for_its_best_trial_in_validation(small_study: StudyDir) -> None:
    trials = trials_of(small_study)
    errors = [min(r.metrics["val_force_rmse"] for r in end.history) for _, end in trials]
    best, _ = trials[int(np.argmin(errors))]
    assert resolve_trained_model(small_study.path).job == best


def test_a_path_without_a_model_is_answered_in_a_line(
    small_study: StudyDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "one.extxyz"
    ase.io.write(given, Atoms("O", cell=[4, 4, 4], pbc=True))
    pretrained = next((small_study.root / "work").glob("pretrain-*"))
    for place, rule in (
        (tmp_path, "no trained model of a study"),
        (pretrained, "is a pretraining"),
        (pretrained / "weights-0.safetensors", "is a pretraining"),
    ):
        assert main([str(place), str(given)]) == 2
        error = capsys.readouterr().err
        assert rule in error
        assert error.count("\n") == 1
    assert main([str(small_study.path), str(tmp_path / "none.xyz")]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/none.xyz: no such file\n"


@pytest.fixture
def copied(small_study: StudyDir, tmp_path: Path) -> StudyDir:
    """A study that may be changed."""
    shutil.copytree(small_study.root, tmp_path / "runs")
    return StudyDir(tmp_path / "runs", small_study.name)


def test_a_trial_that_was_stopped_early_does_not_stand_for_its_study(copied: StudyDir) -> None:
    best = resolve_trained_model(copied.path).job
    # An audit has finished it, so its folder has an outcome.
    Journal(copied.journal, "val_force_rmse").ended(best, JobResult("stopped"))
    assert resolve_trained_model(copied.path).job.key != best.key
