from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from study.core.errors import MachineError, UserError
from study.core.records import JobResult, Tag
from study.pipeline.job import Job
from study.tracking import tracker as tracking_tracker
from study.tracking.mlflow_db import path_of, require_reachable
from study.tracking.mlflow_runs import StudyRuns
from study.tracking.tracker import Tracker
from tests.tracking.recording import STUDY, finished, opened, record, report_all, runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def test_a_finished_study_does_not_ask_mlflow(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = finished(uri, "finished", tmp_path, work)
    known = StudyRuns(uri, "finished", tmp_path, STUDY)
    monkeypatch.delattr("mlflow.MlflowClient")
    tracker = opened(uri, "finished", tmp_path)
    report_all(tracker, work, result)
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
    report_all(again, work, result)
    assert again.close("FINISHED")
    found = runs(uri, name)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["trial"].data.tags[Tag.STATUS] == "completed"
    assert found["trial"].data.tags["mlflow.parentRunId"] == found["study"].info.run_id
    points = MlflowClient(uri).get_metric_history(found["trial"].info.run_id, "val/force_rmse")
    assert [point.step for point in points] == [1, 2]


def test_new_work_of_a_finished_study_goes_below_the_same_run(
    uri: str, tmp_path: Path, work: Job
) -> None:
    result = finished(uri, "extended", tmp_path, work)
    before = runs(uri, "extended")
    assert work.pretraining is not None
    tracker = opened(uri, "extended", tmp_path)
    report_all(tracker, work, result)
    tracker.started(work.pretraining, None)
    tracker.ended(work.pretraining, JobResult("diverged", "loss is nan"))
    assert tracker.close("FINISHED")
    found = runs(uri, "extended")
    assert found["trial"].to_dictionary() == before["trial"].to_dictionary()
    assert found["study"].info.run_id == before["study"].info.run_id
    assert found["pretrain"].data.tags["mlflow.parentRunId"] == before["study"].info.run_id
    assert tracker.state() == StudyRuns(uri, "extended", tmp_path, STUDY).state()


def test_an_unreachable_server_is_one_line_without_the_password(tmp_path: Path) -> None:
    uri = "http://user:secret@127.0.0.1:9"
    tracker = Tracker(uri, "unreachable", tmp_path, STUDY)
    tracker.open()
    for ask in (tracker.wait, lambda: require_reachable(uri)):
        with pytest.raises(UserError) as refused:
            ask()
        (problem,) = refused.value.problems
        assert problem.startswith(
            "--tracking-uri http://127.0.0.1:9: no response (Connection refused); start"
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
        runs(uri, "flaky")["trial"].info.run_id, "val/force_rmse"
    )
    assert len(points) == 1


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
        runs(uri, "stopped")["trial"].info.run_id, "val/force_rmse"
    )
    assert sorted(point.step for point in points) == list(range(1, 200))


def test_at_the_end_mlflow_is_waited_for_as_long_as_it_gets_on(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, done = opened(uri, "slow", tmp_path), list[int]()
    for number in range(4):
        tracker._tasks.put(lambda number=number: (time.sleep(0.4), done.append(number)))  # type: ignore[misc]
    # With the five seconds that a last step may take, much less than all steps together.
    monkeypatch.setattr(tracking_tracker, "PATIENCE", 0.5 - 5)
    assert tracker.close("FINISHED")
    assert done == [0, 1, 2, 3]


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


@pytest.fixture(scope="session")
def disk_switch() -> threading.Event:
    """Set, it lets no SQLite database grow, as a full disk does.

    It stays for the session: connections of a pool keep their limit until they are told another.
    """
    full = threading.Event()

    def limit(connection: Any, cursor: Any, *_: object) -> None:
        del connection
        cursor.execute(f"PRAGMA max_page_count = {1 if full.is_set() else 2**30}")

    event.listen(Engine, "before_cursor_execute", limit)
    return full


@pytest.fixture
def full_database(disk_switch: threading.Event) -> Iterator[threading.Event]:
    """The switch, off again after the test."""
    yield disk_switch
    disk_switch.clear()


def many_epochs(tracker: Tracker, work: Job) -> None:
    tracker.started(work, 0)
    for epoch in range(1, 500):
        tracker.recorded(work, record(epoch))


def test_records_follow_when_a_full_disk_has_space_again(
    uri: str,
    tmp_path: Path,
    work: Job,
    full_database: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking_tracker, "DISK_PATIENCE", 0.2)
    tracker = opened(uri, "full", tmp_path)
    full_database.set()
    many_epochs(tracker, work)
    deadline = time.monotonic() + 20
    while not caplog.messages and time.monotonic() < deadline:
        time.sleep(0.05)
    full_database.clear()
    monkeypatch.setattr(tracking_tracker, "DISK_PATIENCE", 10.0)
    assert tracker.close("KILLED")
    (line,) = caplog.messages
    assert "MLflow does not take records: " in line
    assert "database or disk is full" in line
    run = runs(uri, "full")["trial"].info.run_id
    points = MlflowClient(uri).get_metric_history(run, "val/force_rmse")
    assert sorted(point.step for point in points) == list(range(1, 500))


def test_a_disk_that_stays_full_is_not_waited_for_and_is_named(
    uri: str,
    tmp_path: Path,
    work: Job,
    full_database: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking_tracker, "DISK_PATIENCE", 0.2)
    tracker = opened(uri, "stays-full", tmp_path)
    full_database.set()
    many_epochs(tracker, work)
    began = time.monotonic()
    assert not tracker.close("FINISHED")
    assert time.monotonic() - began < 20
    assert tracker.fault.startswith(f"{path_of(uri)}: MLflow's records: ")
    assert tracker.fault.endswith("database or disk is full")


def test_a_full_disk_at_the_start_is_no_server_that_is_missing(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(tracking_tracker, "StudyRuns", refuse)
    tracker = Tracker(uri, "full-at-start", tmp_path, STUDY)
    tracker.open()
    with pytest.raises(MachineError, match="database or disk is full; fix this and rerun"):
        tracker.wait()
