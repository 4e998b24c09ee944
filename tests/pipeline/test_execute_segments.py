"""A finetuning in parts: a chain of jobs equals one, and each goes on from the end of another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.core.errors import UserError
from study.core.records import EpochRecord
from study.datasets.frames import Frames
from study.pipeline import setup
from study.pipeline.execute import run_job
from study.pipeline.job import Job, Segment
from study.pipeline.outcome import Outcome, load_outcome
from study.space.trial import Trial
from study.training.loop import PausedError

BOUNDS = [(0, 2), (2, 4), (4, 5), (5, 5)]
MEASURED = ("seconds", "joule")


def chain(*works: Job) -> list[Job]:
    """One job after the other, each the parent of the next."""
    jobs: list[Job] = []
    for work, bounds in zip(works, BOUNDS, strict=True):
        jobs.append(replace(work, segment=Segment(*bounds, jobs[-1].key if jobs else None)))
    return jobs


def outcome_of(job: Job, root: Path) -> Outcome:
    outcome = load_outcome(job.folder(root))
    assert outcome is not None
    return outcome


def kill_after_an_epoch(job: Job, root: Path, frames: Path) -> None:
    running = run_job(job, root, frames)
    next(running)
    assert isinstance(running, Generator)
    running.close()


def cleaned(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(MEASURED)}


def epochs(records: list[EpochRecord]) -> list[int]:
    return [record.epoch for record in records]


@pytest.fixture
def work(water: Frames, tiny: Callable[..., Trial]) -> Callable[..., Job]:
    def make(**changes: Any) -> Job:
        trial = tiny(pretrain=None, finetune__epochs=5, **changes)
        return Job("trial", trial, water.content_hash())

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"finetune__ema": 0.9, "finetune__select": "last", "finetune__clip_norm": 1.0},
        {"finetune__optimizer": "adam", "finetune__layer_decay": 0.8, "finetune__warmup": 1.5},
    ],
)
def test_a_chain_of_parts_equals_an_uninterrupted_trial_also_when_one_is_killed(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain = work(**changes)
    whole = list(run_job(plain, tmp_path, water_folder))
    jobs = chain(*[plain] * 4)
    assert len({plain.key, *(job.key for job in jobs)}) == 5
    for job, own in zip(jobs[:3], ([1, 2], [3, 4], [5]), strict=True):
        if job is jobs[1]:
            kill_after_an_epoch(job, tmp_path, water_folder)
        assert epochs(list(run_job(job, tmp_path, water_folder))) == own
        result = outcome_of(job, tmp_path).result
        assert not any(name.startswith("test_") for name in result.metrics)
        assert not list(job.folder(tmp_path).glob("weights-*"))
        assert len(list(job.folder(tmp_path).glob("epoch-*"))) == 1
    assert epochs(list(run_job(jobs[3], tmp_path, water_folder))) == [1, 2, 3, 4, 5]
    expected, ended = outcome_of(plain, tmp_path), outcome_of(jobs[3], tmp_path)
    assert [cleaned(record.metrics) for record in ended.history] == [
        cleaned(record.metrics) for record in whole
    ]
    assert cleaned(ended.result.metrics) == cleaned(expected.result.metrics)
    assert expected.weights is not None
    assert ended.weights is not None
    assert ended.weights.name == expected.weights.name  # It holds their hash.
    # What the parts cost together is what the end of the chain has cost.
    parts = [outcome_of(job, tmp_path).result.metrics["seconds"] for job in jobs[:3]]
    assert sum(parts) == pytest.approx(ended.result.metrics["seconds"])


def test_a_part_goes_on_from_its_parent_with_its_own_settings(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path
) -> None:
    """Two children of one parent have its past, and only the rate of their own apart."""
    first, slow = work(), work(finetune__lr=0.001)
    mother, child, *_ = chain(*[first] * 4)
    other = replace(slow, segment=Segment(2, 4, mother.key))
    for job in (mother, child, other):
        list(run_job(job, tmp_path, water_folder))
    mine, theirs = (outcome_of(job, tmp_path).history for job in (child, other))
    assert mine[:2] == theirs[:2]
    whole = list(run_job(slow, tmp_path / "alone", water_folder))
    rates = [[record.metrics["lr"] for record in each] for each in (theirs, whole)]
    assert rates[0][2:4] == rates[1][2:4]
    assert rates[0][:2] != rates[1][:2]
    assert mine[2].metrics["train_loss"] != theirs[2].metrics["train_loss"]


def test_a_stop_within_a_part_and_before_its_first_step_loses_nothing(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path
) -> None:
    jobs = chain(*[work()] * 4)
    list(run_job(jobs[0], tmp_path, water_folder))
    copy = Path(shutil.copytree(tmp_path, tmp_path.parent / "copy"))
    expected = list(run_job(jobs[1], copy, water_folder))
    for steps in (1, 6):
        asked = iter([*[False] * (steps - 1), True])
        stopped = run_job(jobs[1], tmp_path, water_folder, should_stop=asked.__next__)
        with pytest.raises(PausedError):
            list(stopped)
    found = list(run_job(jobs[1], tmp_path, water_folder))
    assert [cleaned(each.metrics) for each in found] == [cleaned(e.metrics) for e in expected]


def test_test_frames_are_looked_at_once_at_the_end_of_the_chain(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[int] = []
    test = setup.Setup.test

    def counted(self: setup.Setup, history: list[EpochRecord]) -> dict[str, float]:
        tested.append(len(history))
        return test(self, history)

    monkeypatch.setattr(setup.Setup, "test", counted)
    for job in chain(*[work()] * 4):
        list(run_job(job, tmp_path, water_folder))
    assert tested == [5]


def test_a_parent_without_checkpoint_is_done_again_in_the_next_run(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path
) -> None:
    jobs = chain(*[work()] * 4)
    list(run_job(jobs[0], tmp_path, water_folder))
    (checkpoint,) = jobs[0].folder(tmp_path).glob("epoch-*")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="its last checkpoint is missing or damaged"):
        list(run_job(jobs[1], tmp_path, water_folder))
    assert load_outcome(jobs[0].folder(tmp_path)) is None
    for job in jobs[:2]:
        list(run_job(job, tmp_path, water_folder))
    assert outcome_of(jobs[1], tmp_path).result.status == "completed"


@pytest.mark.parametrize("steps", [0, 2], ids=["whole epoch", "within"])
def test_nothing_goes_on_from_a_parent_that_is_being_made_again(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path, steps: int
) -> None:
    """Its newest checkpoint is then one of an earlier epoch, or within the last one."""
    mother, child, *_ = chain(*[work()] * 4)
    kill_after_an_epoch(mother, tmp_path, water_folder)
    if steps:
        asked = iter([*[False] * (steps - 1), True])
        with pytest.raises(PausedError):
            list(run_job(mother, tmp_path, water_folder, should_stop=asked.__next__))
    with pytest.raises(UserError, match="its last checkpoint is missing or damaged"):
        list(run_job(child, tmp_path, water_folder))
    assert load_outcome(child.folder(tmp_path)) is None
    for job in (mother, child):
        list(run_job(job, tmp_path, water_folder))
    plain = list(run_job(work(), tmp_path / "alone", water_folder))
    assert [cleaned(each.metrics) for each in outcome_of(child, tmp_path).history] == [
        cleaned(each.metrics) for each in plain[:4]
    ]


def test_what_goes_on_from_a_diverged_part_has_diverged_too(
    work: Callable[..., Job], water_folder: Path, tmp_path: Path
) -> None:
    jobs = chain(*[work(finetune__lr=9.0, finetune__optimizer="adam")] * 4)
    for job in jobs:
        list(run_job(job, tmp_path, water_folder))
    results = [outcome_of(job, tmp_path).result for job in jobs]
    assert [result.status for result in results] == ["diverged"] * 4
    assert len({result.reason for result in results}) == 1
    assert not list((tmp_path / "work").glob("*/epoch-*"))


def test_a_segment_of_a_file_that_others_wrote_is_checked(work: Callable[..., Job]) -> None:
    job = chain(*[work()] * 4)[1]
    assert Job.from_json(job.to_json()) == job
    assert "segment" not in work().to_json()
    for wrong in ({"begin": -1}, {"until": 1}, {"parent": "../x"}, {"until": "4"}):
        with pytest.raises(ValueError, match="segment"):
            Job.from_json(
                job.to_json() | {"segment": {"begin": 2, "until": 4, "parent": "a"} | wrong}
            )
