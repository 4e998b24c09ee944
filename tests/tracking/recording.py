"""Records of a study of one trial, as tests of tracking write and read them."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult, Tag
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.scheduling.protocols import Planned
from study.space.trial import Trial
from study.tracking.tracker import Tracker

STUDY = {Tag.KEY: "study-key", Tag.SPACE: "{}"}


def a_trial() -> Job:
    stage = {"epochs": 3, "batch_size": 2}
    trial = {
        "dataset": {"name": "tip3p_water"},
        "model": {"name": "egnn"},
        "pretrain": {"task": {"name": "masking", "masking_ratio": 0.5}} | stage,
        "finetune": {"task": {"name": "energy_forces"}} | stage,
    }
    return Job("trial", Trial.model_validate(trial), "data-hash")


def record(epoch: int, value: float = 0.5) -> EpochRecord:
    return EpochRecord("finetune", epoch, {"val_force_rmse": value, "seconds": float(epoch)})


def opened(uri: str, name: str, root: Path, trials: str = "trial") -> Tracker:
    tracker = Tracker(uri, name, root, STUDY, trials)
    tracker.open()
    tracker.wait()
    return tracker


def all_runs(uri: str, name: str) -> list[Run]:
    """All runs of a study."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def numbered_runs(uri: str, name: str) -> dict[str, Run]:
    """The runs of a study that have a number, by that."""
    found = [run for run in all_runs(uri, name) if Tag.NUMBER in run.data.tags]
    by_number = {run.data.tags[Tag.NUMBER]: run for run in found}
    assert len(by_number) == len(found)
    return by_number


def runs(uri: str, name: str) -> dict[str, Run]:
    found = all_runs(uri, name)
    by_kind = {run.data.tags[Tag.KIND]: run for run in found}
    assert len(by_kind) == len(found)
    return by_kind


def finish(work: Job, root: Path) -> JobResult:
    folder = work.folder(root)
    folder.mkdir(parents=True)
    weights = write_hashed(folder, "weights", ".safetensors", b"weights")
    result = JobResult("completed", "", {"test_force_rmse": 0.1}, {"split_hash": "split"})
    save_outcome(folder, Outcome(result, [record(1), record(2)], weights))
    return result


def finished(uri: str, name: str, root: Path, work: Job) -> JobResult:
    """Records of a study of one trial that is complete."""
    result = finish(work, root)
    tracker = opened(uri, name, root)
    report_all(tracker, work, result)
    assert tracker.close("FINISHED")
    return result


def report_all(tracker: Tracker, work: Job, result: JobResult) -> None:
    """Report all that a study reports of a finished job."""
    tracker.planned(Planned(4, work))
    tracker.started(work, 4)
    tracker.recorded(work, record(1))
    tracker.recorded(work, record(2))
    tracker.ended(work, result)
