"""What names a job, and keeps its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.datasets.frames import Frames
from study.pipeline.job import Job
from study.space.trial import Trial


@pytest.fixture(scope="module")
def work(water: Frames, tiny: Callable[..., Trial]) -> Job:
    """A pretrained trial."""
    return Job("trial", tiny(), water.content_hash())


@pytest.fixture(scope="module")
def pretraining(work: Job) -> Job:
    assert work.pretraining is not None
    return work.pretraining


CHANGES: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "split": {"split": {"by": "frame"}},
    "width": {"model__hidden": 9},
    "cutoff": {"model__cutoff": 3.5},
    "ratio": {"pretrain__task__masking_ratio": 0.25},
    "pretraining epochs": {"pretrain__epochs": 1},
    "pretraining rate": {"pretrain__lr": 0.004},
    "finetuning epochs": {"finetune__epochs": 4},
    "weights": {"finetune__task": {"name": "energy_forces", "energy_weight": 0.5}},
    "transfer": {"transfer": "all"},
    "scratch": {"pretrain": None},
}


FINETUNING_ONLY = {"finetuning epochs", "weights", "transfer"}


def test_every_setting_names_another_trial(tiny: Callable[..., Trial]) -> None:
    trials = [tiny(), *(tiny(**change) for change in CHANGES.values())]
    assert len({Job("trial", trial, "d").key for trial in trials}) == len(trials)


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"scratch"}))
def test_a_pretraining_is_named_by_what_it_reads_alone(
    name: str, tiny: Callable[..., Trial]
) -> None:
    first, second = (
        Job("trial", trial, "d").pretraining for trial in (tiny(), tiny(**CHANGES[name]))
    )
    assert first is not None
    assert second is not None
    assert (first.key == second.key) == (name in FINETUNING_ONLY)


def test_the_content_of_the_data_counts_and_not_where_it_came_from(
    tiny: Callable[..., Trial],
) -> None:
    first, second = (
        Job("trial", tiny(dataset={"name": "n2p2_file", "path": path}), "d") for path in "ab"
    )
    assert first.key == second.key


def test_other_data_and_other_code_name_other_work(work: Job) -> None:
    others = [work, replace(work, data_hash="other"), replace(work, code="other")]
    assert len({other.key for other in others}) == 3
    assert len({other.pretraining.key for other in others if other.pretraining}) == 3


def test_a_trial_from_scratch_is_the_same_whatever_would_be_transferred(
    tiny: Callable[..., Trial],
) -> None:
    keys = {Job("trial", tiny(pretrain=None, transfer=t), "d").key for t in ("body", "all")}
    assert len(keys) == 1


def test_a_pretraining_and_its_trial_have_different_folders(
    work: Job, pretraining: Job, tmp_path: Path
) -> None:
    assert work.folder(tmp_path) != pretraining.folder(tmp_path)
    assert pretraining.pretraining is None


def test_work_keeps_its_name_on_the_way_to_another_process(work: Job, pretraining: Job) -> None:
    for piece in (work, pretraining):
        again = Job.from_json(json.loads(json.dumps(piece.to_json())))
        assert again == piece
        assert again.key == piece.key


def test_work_keeps_the_name_it_was_once_recorded_by(work: Job) -> None:
    recorded = work.to_json() | {"key": "of an older version"}
    assert Job.from_json(recorded).key == "of an older version"
    assert Job.from_json(recorded).to_json() == recorded
