from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from study.core.atomic_io import write_hashed
from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult, Tag
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.scheduling.protocols import Planned
from study.space.trial import Trial
from study.tracking import mlflow_db, mlflow_runs
from study.tracking import tracker as tracking_tracker
from study.tracking.mlflow_db import Finished, finished_records, first_touch
from study.tracking.mlflow_runs import StudyRuns
from study.tracking.tracker import Tracker, require_reachable
from tests.faults.database import half_written

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STUDY = {Tag.KEY: "study-key", Tag.SPACE: "{}"}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def work() -> Job:
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


def runs(uri: str, name: str) -> dict[str, Run]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
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


def test_a_trial_becomes_one_finished_run_below_its_study(
    uri: str, tmp_path: Path, work: Job
) -> None:
    tracker = opened(uri, "one", tmp_path)
    result = finish(work, tmp_path)
    tracker.planned(Planned(4, work))
    tracker.started(work, 4)
    for epoch in (1, 2):
        tracker.recorded(work, record(epoch, epoch / 10))
    tracker.ended(work, result)
    assert tracker.close("FINISHED")

    found = runs(uri, "one")
    study, trial = found["study"], found["trial"]
    assert (study.info.status, trial.info.status) == ("FINISHED", "FINISHED")
    assert trial.info.run_name == "egnn masking 0.5, seed 0"
    assert trial.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert work.pretraining is not None
    expected = {
        Tag.KEY: work.key,
        Tag.NUMBER: "4",
        Tag.STATUS: "completed",
        Tag.PRETRAINING: work.pretraining.key,
        Tag.DATA: "data-hash",
        Tag.SPLIT: "split",
    }
    assert expected.items() <= trial.data.tags.items()
    assert {Tag.CODE, Tag.GIT, Tag.PACKAGES, Tag.HARDWARE} <= trial.data.tags.keys()
    assert trial.data.params["pretrain.task.masking_ratio"] == "0.5"
    assert trial.data.params["model.hidden"] == "128"
    client = MlflowClient(uri)
    points = client.get_metric_history(trial.info.run_id, "finetune/val_force_rmse")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]
    assert trial.data.metrics["test_force_rmse"] == 0.1
    files = {file.path for file in client.list_artifacts(trial.info.run_id)}
    (weights,) = work.folder(tmp_path).glob("weights-*")
    assert files == {"trial.json", weights.name}


def test_a_second_run_of_the_study_adds_only_what_is_missing(
    uri: str, tmp_path: Path, work: Job
) -> None:
    first = opened(uri, "two", tmp_path)
    first.started(work, 0)
    first.recorded(work, record(1))
    first.close("KILLED")
    assert runs(uri, "two")["trial"].info.status == "KILLED"

    result = finish(work, tmp_path)
    for _ in range(2):
        again = opened(uri, "two", tmp_path)
        again.started(work, 0)
        for epoch in (1, 2):
            again.recorded(work, record(epoch))
        again.ended(work, result)
        again.close("FINISHED")
    trial = runs(uri, "two")["trial"]
    assert trial.info.status == "FINISHED"
    client = MlflowClient(uri)
    for metric, steps in (("finetune/val_force_rmse", [1, 2]), ("test_force_rmse", [2])):
        points = client.get_metric_history(trial.info.run_id, metric)
        assert [point.step for point in points] == steps


def test_an_audit_is_a_run_of_its_own_beside_the_stopped_trials(
    uri: str, tmp_path: Path, work: Job
) -> None:
    client = MlflowClient(uri)
    tracker = opened(uri, "audit", tmp_path)
    tracker.planned(Planned(4, work, exempt=False))
    tracker.started(work, 4)
    tracker.recorded(work, record(1))
    tracker.ended(work, JobResult("stopped", "early"))
    tracker.close("FINISHED")
    before = client.get_run(runs(uri, "audit")["trial"].info.run_id).to_dictionary()

    result = finish(work, tmp_path)
    for status in ("KILLED", "FINISHED", "FINISHED"):
        auditor = opened(uri, "audit", tmp_path, "audit")
        auditor.planned(Planned(4, work))
        auditor.started(work, 4)
        auditor.recorded(work, record(1))
        if status == "FINISHED":
            auditor.recorded(work, record(2))
            auditor.ended(work, result)
        auditor.close(status)
        assert runs(uri, "audit")["audit"].info.status == status

    found = runs(uri, "audit")
    audit, trial = found["audit"], found["trial"]
    assert trial.to_dictionary() == before
    assert (trial.data.tags[Tag.STATUS], trial.data.tags[Tag.EXEMPT]) == ("stopped", "False")
    assert (audit.data.tags[Tag.STATUS], audit.data.tags[Tag.EXEMPT]) == ("completed", "True")
    for tag in (Tag.KEY, Tag.NUMBER, Tag.PRETRAINING, "mlflow.parentRunId"):
        assert audit.data.tags[tag] == trial.data.tags[tag]
    assert audit.data.metrics["test_force_rmse"] == 0.1
    points = client.get_metric_history(audit.info.run_id, "finetune/val_force_rmse")
    assert [point.step for point in points] == [1, 2]


def finished(uri: str, name: str, root: Path, work: Job) -> JobResult:
    """Records of a study of one trial that is complete."""
    result = finish(work, root)
    tracker = opened(uri, name, root)
    tell(tracker, work, result)
    assert tracker.close("FINISHED")
    return result


def tell(tracker: Tracker, work: Job, result: JobResult) -> None:
    """All that a study tells of finished work."""
    tracker.planned(Planned(4, work))
    tracker.started(work, 4)
    tracker.recorded(work, record(1))
    tracker.recorded(work, record(2))
    tracker.ended(work, result)


def test_a_finished_study_does_not_ask_mlflow(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = finished(uri, "finished", tmp_path, work)
    known = StudyRuns(uri, "finished", tmp_path, STUDY)
    monkeypatch.delattr("mlflow.MlflowClient")
    tracker = opened(uri, "finished", tmp_path)
    tell(tracker, work, result)
    assert tracker.close("FINISHED")
    assert tracker.whole
    assert (tracker.experiment_id, tracker.state()) == (known.experiment_id, known.state())


def delete_trial(client: MlflowClient, name: str) -> None:
    client.delete_run(runs(client.tracking_uri, name)["trial"].info.run_id)


def forget_end(client: MlflowClient, name: str) -> None:
    client.delete_tag(runs(client.tracking_uri, name)["trial"].info.run_id, Tag.STATUS)


def reopen_study(client: MlflowClient, name: str) -> None:
    client.update_run(runs(client.tracking_uri, name)["study"].info.run_id, status="RUNNING")


@pytest.mark.parametrize("loss", [delete_trial, forget_end, reopen_study])
def test_what_is_missing_of_a_finished_study_is_added(
    loss: Callable[[MlflowClient, str], None], uri: str, tmp_path: Path, work: Job
) -> None:
    name = loss.__name__
    result = finished(uri, name, tmp_path, work)
    loss(MlflowClient(uri), name)
    again = opened(uri, name, tmp_path)
    tell(again, work, result)
    assert again.close("FINISHED")
    found = runs(uri, name)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["trial"].data.tags[Tag.STATUS] == "completed"
    assert found["trial"].data.tags["mlflow.parentRunId"] == found["study"].info.run_id
    points = MlflowClient(uri).get_metric_history(
        found["trial"].info.run_id, "finetune/val_force_rmse"
    )
    assert [point.step for point in points] == [1, 2]


def test_new_work_of_a_finished_study_goes_below_the_same_run(
    uri: str, tmp_path: Path, work: Job
) -> None:
    result = finished(uri, "extended", tmp_path, work)
    before = runs(uri, "extended")
    assert work.pretraining is not None
    tracker = opened(uri, "extended", tmp_path)
    tell(tracker, work, result)
    tracker.started(work.pretraining, None)
    tracker.ended(work.pretraining, JobResult("diverged", "loss is nan"))
    assert tracker.close("FINISHED")
    found = runs(uri, "extended")
    assert found["trial"].to_dictionary() == before["trial"].to_dictionary()
    assert found["study"].info.run_id == before["study"].info.run_id
    assert found["pretrain"].data.tags["mlflow.parentRunId"] == before["study"].info.run_id
    assert tracker.state() == StudyRuns(uri, "extended", tmp_path, STUDY).state()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE runs RENAME COLUMN status TO state",
        "DROP TABLE tags",
        "UPDATE experiments SET lifecycle_stage = 'deleted'",
        "UPDATE tags SET value = 'of another folder' WHERE value = 'study-key'",
    ],
)
def test_of_another_database_only_mlflow_can_tell(tmp_path: Path, change: str) -> None:
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        assert finished_records(uri, "s", "study-key") == Finished("7", "r", 17, frozenset())
        database.executescript(change)
    assert finished_records(uri, "s", "study-key") is None
    path.write_bytes(b"no database")
    assert finished_records(uri, "s", "study-key") is None


TABLES = """
CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, status TEXT, end_time BIGINT,
                   lifecycle_stage TEXT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
INSERT INTO experiments VALUES (7, 's', 'active');
INSERT INTO runs VALUES ('r', 7, 'FINISHED', 17, 'active');
INSERT INTO tags VALUES ('study.kind', 'study', 'r'), ('study.key', 'study-key', 'r');
"""
"""Those of MLflow, as far as they are looked at, with a finished study without work."""


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (JobResult("stopped", "early"), "FINISHED"),
        (JobResult("diverged", "loss is nan"), "FAILED"),
        (JobResult("failed", "out of memory"), "FAILED"),
    ],
)
def test_how_work_ended_is_a_tag_with_its_reason(
    uri: str, tmp_path: Path, work: Job, result: JobResult, status: str
) -> None:
    tracker = opened(uri, f"end-{result.status}", tmp_path)
    tracker.started(work, 0)
    tracker.recorded(work, record(1, math.inf))
    tracker.ended(work, result)
    tracker.close("FINISHED")
    trial = runs(uri, f"end-{result.status}")["trial"]
    assert trial.info.status == status
    assert trial.data.tags[Tag.STATUS] == result.status
    assert trial.data.tags[Tag.REASON] == result.reason


def test_an_unreachable_server_is_one_line_without_the_password(tmp_path: Path) -> None:
    uri = "http://user:secret@127.0.0.1:9"
    tracker = Tracker(uri, "unreachable", tmp_path, STUDY)
    tracker.open()
    for ask in (tracker.wait, lambda: require_reachable(uri)):
        with pytest.raises(UserError) as refused:
            ask()
        (problem,) = refused.value.problems
        assert problem.startswith(
            "--tracking-uri http://127.0.0.1:9: nobody answers (Connection refused); start"
        )
        assert "secret" not in problem


def test_training_does_not_wait_for_a_server_that_fails(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = opened(uri, "flaky", tmp_path)
    tracker.started(work, 0)
    real, failures = tracker.runs.client.log_batch, iter([True, True])

    def flaky(*arguments: object, **named: object) -> None:
        if next(failures, False):
            raise ConnectionError("gone")
        real(*arguments, **named)

    monkeypatch.setattr(tracker.runs.client, "log_batch", flaky)
    tracker.recorded(work, record(1))
    tracker.ended(work, JobResult("stopped", "early"))
    assert tracker.close("FINISHED")
    points = MlflowClient(uri).get_metric_history(
        runs(uri, "flaky")["trial"].info.run_id, "finetune/val_force_rmse"
    )
    assert len(points) == 1


def test_a_database_is_there_with_all_its_tables_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        path.write_bytes(b"SQLite format 3")
        path.with_name(f"{path.name}-journal").write_bytes(b"half")
        raise KeyboardInterrupt

    database = tmp_path / "mlflow.db"
    monkeypatch.setattr("study.tracking.mlflow_db._create", killed)
    with pytest.raises(KeyboardInterrupt), first_touch(f"sqlite:///{database}"):
        pass
    assert not database.exists()
    monkeypatch.setattr("study.tracking.mlflow_db._create", lambda path: path.write_bytes(b"whole"))
    with first_touch(f"sqlite:///{database}"):
        assert database.read_bytes() == b"whole"
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


def test_training_does_not_wait_for_a_server_that_does_not_answer(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = opened(uri, "stopped", tmp_path)
    tracker.started(work, 0)
    real, asked, answers = tracker.runs.client.log_batch, threading.Event(), threading.Event()

    def stopped(*arguments: object, **named: object) -> None:
        asked.set()
        answers.wait()
        real(*arguments, **named)

    monkeypatch.setattr(tracker.runs.client, "log_batch", stopped)
    for epoch in range(1, 200):
        tracker.recorded(work, record(epoch))
    assert asked.wait(30)
    assert not answers.is_set()
    tracker.ended(work, JobResult("stopped", "early"))
    answers.set()
    assert tracker.close("FINISHED")
    points = MlflowClient(uri).get_metric_history(
        runs(uri, "stopped")["trial"].info.run_id, "finetune/val_force_rmse"
    )
    assert sorted(point.step for point in points) == list(range(1, 200))


def test_a_locked_database_is_waited_for(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, locked = tracking_tracker.StudyRuns, iter([True, True])

    def runs(*arguments: Any) -> Any:
        if next(locked, False):
            raise sqlite3.OperationalError("database is locked")
        return real(*arguments)

    monkeypatch.setattr(tracking_tracker, "StudyRuns", runs)
    tracker = Tracker(uri, "locked", tmp_path, STUDY)
    tracker.open()
    tracker.wait()
    assert tracker.close("FINISHED")
    assert next(locked, None) is None


def test_epochs_that_came_while_mlflow_was_slow_go_to_it_together(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_ = opened(uri, "batches", tmp_path).runs
    runs_.start(work, 0)
    real, sizes = runs_.client.log_batch, list[int]()

    def counted(run_id: str, **points: Any) -> None:
        sizes.append(len(points["metrics"]))
        real(run_id, **points)

    monkeypatch.setattr(runs_.client, "log_batch", counted)
    for epoch in range(1, 1501):
        runs_.record(work.key, record(epoch), 0)
    runs_.flush()
    runs_.flush()
    each = len(record(1).metrics)
    # No epoch is divided between two calls.
    assert all(size % each == 0 for size in sizes)
    assert sum(sizes) == 1500 * each
    assert len(sizes) == math.ceil(1500 / (mlflow_runs.BATCH // each))
    history = runs_.client.get_metric_history(
        runs(uri, "batches")["trial"].info.run_id, "finetune/val_force_rmse"
    )
    assert sorted(point.step for point in history) == list(range(1, 1501))


def test_a_database_whose_writer_was_killed_is_usable(tmp_path: Path) -> None:
    left = half_written(tmp_path, "points")
    require_reachable(f"sqlite:///{left}/mlflow.db")
    with closing(sqlite3.connect(left / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM points").fetchone() == (0,)


def test_a_database_that_cannot_be_made_or_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_reachable(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/runs: cannot be written to"):
        require_reachable(f"sqlite:///{tmp_path}/file/runs/mlflow.db")
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a)")
    require_reachable(f"sqlite:///{path}")
    # Root may write to any file.
    monkeypatch.setattr(mlflow_db.os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written to"):
        require_reachable(f"sqlite:///{path}")
    path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="no usable database"):
        require_reachable(f"sqlite:///{path}")
