"""Predictions of test frames beside the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.core.atomic_io import append_json, read_json_lines
from study.datasets.frames import Frames
from study.datasets.splits import split
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


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture
def copied(small_study: StudyDir, tmp_path: Path) -> StudyDir:
    """A study that may be changed."""
    shutil.copytree(small_study.root, tmp_path / "runs")
    return StudyDir(tmp_path / "runs", small_study.name)


def test_a_study_predicts_the_test_frames_of_all_completed_trials(
    copied: StudyDir, water: Frames, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(copied.path)]) == 0
    captured = capsys.readouterr()
    places = copied.root / "work" / "trial-*" / "predictions.npz"
    assert (captured.out, captured.err) == (f"predictions of 4 trials: {places}\n", "")
    for work, outcome in trials_of(copied):
        arrays = np.load(work.folder(copied.root) / "predictions.npz")
        test = split(water, work.trial.split, work.trial.seed).test
        np.testing.assert_array_equal(arrays["frames"], test)
        off = arrays["forces"] - arrays["predicted_forces"]
        assert rms(off) == pytest.approx(outcome.result.metrics["test_force_rmse"], rel=1e-6)


def change_journal(study: StudyDir, old: str, new: str) -> None:
    """As another version of the code would have written it."""
    events = [json.dumps(event) for event in read_json_lines(study.journal)]
    assert any(old in event for event in events)
    study.journal.unlink()
    for event in events:
        append_json(study.journal, json.loads(event.replace(old, new)))


def test_models_of_other_code_are_used_if_they_still_do_what_was_tested(
    copied: StudyDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("study.inference.test_predictions.code_version", lambda: "other")
    for folder in (copied.root / "work").glob("pretrain-*"):
        shutil.rmtree(folder)
    assert main([str(copied.path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("predictions of 4 trials: ")
    assert captured.err.startswith("warning: code or torch have changed since this study ran")
    assert captured.err.count("\n") == 1


def test_models_that_other_code_makes_worse_are_refused(
    copied: StudyDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("study.inference.test_predictions.TOLERANCE", -1.0)
    assert main([str(copied.path)]) == 2
    error = capsys.readouterr().err
    assert "when it was tested; code or torch have changed since: check out the commit" in error
    assert error.count("\n") == 1
    assert not list(copied.root.glob("work/*/predictions.npz"))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"hidden": 8', '"hiden": 8', "was written by another version of the code"),
        ('"hidden": 8', '"hidden": 9', "its weights do not fit the model"),
        ('"status": "completed"', '"status": "failed"', "no trial has completed yet"),
    ],
)
def test_a_study_that_cannot_predict_says_why_and_how_to_go_on(
    copied: StudyDir, capsys: pytest.CaptureFixture[str], old: str, new: str, rule: str
) -> None:
    change_journal(copied, old, new)
    assert main([str(copied.path)]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1


def test_a_folder_without_a_study_is_no_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no study here; name a study's folder" in capsys.readouterr().err
