from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from study.core.records import JobResult, Tag, flatten
from study.pipeline.job import Job, Segment
from study.scheduling.protocols import Member, Planned
from study.space.trial import Trial
from study.tracking.job_run import MAX_METRICS
from tests.tracking.recording import finish, numbered_runs, opened, record, runs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


DENOISING = {
    "task": {"name": "denoising", "noise_scale": 0.1},
    "epochs": 3,
    "batch_size": 2,
}


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
    assert {Tag.CODE, Tag.GIT} <= trial.data.tags.keys()
    assert {Tag.CODE, Tag.GIT, Tag.PACKAGES, Tag.HARDWARE} <= study.data.tags.keys()
    assert trial.data.params["masking_ratio"] == "0.5"
    assert trial.data.params["pretrain.task.masking_ratio"] == "0.5"
    assert trial.data.params["model.hidden"] == "128"
    assert "None" not in trial.data.params.values()
    null = {name for name, value in flatten(work.settings) if value is None}
    assert null
    assert set(json.loads(trial.data.tags[Tag.UNSET])) == null
    assert trial.data.tags[Tag.ARM] == "egnn masking 0.5"
    assert trial.data.tags["mlflow.user"]
    commit = trial.data.tags.get("mlflow.source.git.commit", "0" * 40)
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (used,) = trial.inputs.dataset_inputs
    assert (used.dataset.digest, used.dataset.name) == ("data-hash", work.trial.dataset.label)
    assert json.loads(used.dataset.source)["name"] == "tip3p_water"
    assert {tag.key: tag.value for tag in used.tags} == {
        "mlflow.data.context": "training, validation, test"
    }
    client = MlflowClient(uri)
    points = client.get_metric_history(trial.info.run_id, "val/force_rmse")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (2, 0.2)]
    assert trial.data.metrics["test_force_rmse"] == 0.1
    files = {file.path for file in client.list_artifacts(trial.info.run_id)}
    (weights,) = work.folder(tmp_path).glob("weights-*")
    assert files == {"trial.json", "provenance.json", weights.name}
    told = json.loads(mlflow.artifacts.load_text(f"{trial.info.artifact_uri}/provenance.json"))
    assert (told["key"], told["pretraining"]) == (work.key, work.pretraining.key)
    for name, tag in (("packages", Tag.PACKAGES), ("hardware", Tag.HARDWARE)):
        assert told[name] == json.loads(study.data.tags[tag])


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
    for metric, steps in (("val/force_rmse", [1, 2]), ("test_force_rmse", [2])):
        points = client.get_metric_history(trial.info.run_id, metric)
        assert [point.step for point in points] == steps


def test_a_job_that_an_earlier_version_began_goes_on_after_its_last_epoch(
    uri: str, tmp_path: Path, work: Job
) -> None:
    first = opened(uri, "earlier", tmp_path)
    first.started(work, 0)
    first.close("KILLED")
    client, run_id = MlflowClient(uri), runs(uri, "earlier")["trial"].info.run_id
    for name in ("val_force_rmse", "seconds"):
        client.log_metric(run_id, f"finetune/{name}", 0.5, step=1)
    again = opened(uri, "earlier", tmp_path)
    again.started(work, 0)
    for epoch in (1, 2):
        again.recorded(work, record(epoch))
    again.close("KILLED")
    points = client.get_metric_history(run_id, "val/force_rmse")
    assert [point.step for point in points] == [2]


def test_trials_from_scratch_have_a_masking_ratio_to_plot_by(
    uri: str, tmp_path: Path, work: Job
) -> None:
    for name, changed, expected in (
        ("ratio-scratch", {"pretrain": None}, "0"),
        ("ratio-denoising", {"pretrain": DENOISING}, None),
    ):
        trial = Trial.model_validate(work.trial.model_dump(mode="json") | changed)
        tracker = opened(uri, name, tmp_path)
        tracker.started(Job("trial", trial, "data-hash"), 0)
        assert tracker.close("FINISHED")
        assert runs(uri, name)["trial"].data.params.get("masking_ratio") == expected


def test_mlflows_variable_lets_the_study_record_the_load_of_its_machine(
    uri: str, tmp_path: Path, work: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    client = MlflowClient(uri)
    tracker = opened(uri, "load", tmp_path)
    tracker.started(work, 0)
    until = time.monotonic() + 20
    metric = "system/cpu_utilization_percentage"
    while metric not in runs(uri, "load")["study"].data.metrics and time.monotonic() < until:
        time.sleep(0.1)
    assert tracker.close("FINISHED")
    study = runs(uri, "load")["study"]
    assert (metric in study.data.metrics, study.info.status) == (True, "FINISHED")
    steps = [point.step for point in client.get_metric_history(study.info.run_id, metric)]
    assert steps == sorted(set(steps))
    time.sleep(0.2)
    assert len(client.get_metric_history(study.info.run_id, metric)) == len(steps)


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
    points = client.get_metric_history(audit.info.run_id, "val/force_rmse")
    assert [point.step for point in points] == [1, 2]


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
    assert len(sizes) == math.ceil(1500 / (MAX_METRICS // each))
    history = runs_.client.get_metric_history(
        runs(uri, "batches")["trial"].info.run_id, "val/force_rmse"
    )
    assert sorted(point.step for point in history) == list(range(1, 1501))


def test_tuning_trials_and_their_pretrainings_are_marked_and_others_are_not(
    uri: str, tmp_path: Path, work: Job
) -> None:
    first = work.pretraining
    assert first is not None
    for name, planned in (("tuned", Planned(0, work, tuning=True)), ("plain", Planned(0, work))):
        tracker = opened(uri, name, tmp_path)
        tracker.planned(planned)
        tracker.started(first, None)
        tracker.started(work, 0)
        assert tracker.close("FINISHED")
        tags = {kind: run.data.tags.get(Tag.TUNING) for kind, run in runs(uri, name).items()}
        marked = "True" if planned.tuning else None
        assert tags == {"study": None, "pretrain": marked, "trial": marked}


def test_runs_of_a_population_are_named_by_their_place_and_lead_to_their_parents(
    uri: str, tmp_path: Path, work: Job
) -> None:
    first = replace(work, segment=Segment(0, 2))
    second = replace(work, segment=Segment(2, 3, first.key))
    test = replace(work, segment=Segment(3, 3, second.key))
    lr = {"finetune.lr": 0.0123456}
    chain = [
        Planned(0, first, lr, tuning=True, member=Member(0, 1, None)),
        Planned(3, second, lr, tuning=True, member=Member(1, 0, 1)),
        Planned(4, test, member=Member(2, 0, 0)),
    ]
    # The study is run again after the first one.
    for begun in (chain[:1], chain):
        tracker = opened(uri, "population", tmp_path)
        for planned in begun:
            tracker.planned(planned)
            tracker.started(planned.work, planned.number)
        assert tracker.close("KILLED")
    found = numbered_runs(uri, "population")
    label = "masking 0.5, seed 0"
    assert [found[number].info.run_name for number in ("0", "3", "4")] == [
        f"g0 m1 {label}, lr 0.0123",
        f"g1 m0 {label}, lr 0.0123",
        f"test m0 {label}",
    ]
    notes = [found[number].data.tags[Tag.NOTE] for number in ("0", "3", "4")]
    did = ("epochs 1 to 2 of 3 on", "epochs 3 to 3 of 3 on", "test after 3 epochs on")
    assert all(words in note for words, note in zip(did, notes, strict=True))
    assert ["Starts from the run of" in note for note in notes] == [True, False, False]
    assert Tag.PARENT_RUN not in found["0"].data.tags
    for child, parent in (("3", "0"), ("4", "3")):
        tags, before = found[child].data.tags, found[parent].info
        assert tags[Tag.PARENT] == found[parent].data.tags[Tag.KEY]
        assert tags[Tag.PARENT_RUN] == before.run_id
        place = f"(#/experiments/{before.experiment_id}/runs/{before.run_id})"
        assert f"[{before.run_name}]{place}" in tags[Tag.NOTE].replace("&#46;", ".")


def test_what_a_search_varies_is_in_the_names_and_arms_of_its_runs(
    uri: str, tmp_path: Path, work: Job
) -> None:
    def of(lr: float, seed: int) -> Job:
        finetune = work.trial.finetune.model_copy(update={"lr": lr})
        return replace(
            work, trial=work.trial.model_copy(update={"finetune": finetune, "seed": seed})
        )

    tracker = opened(uri, "search", tmp_path)
    plans = [
        Planned(0, of(0.00315, 0), {"finetune.lr": 0.00315}, exempt=False),
        Planned(1, of(0.01, 0), {"finetune.lr": 0.01}, exempt=False),
        Planned(2, of(0.00315, 1)),
    ]
    for planned in plans:
        tracker.planned(planned)
        tracker.started(planned.work, planned.number)
    assert tracker.close("KILLED")
    found = numbered_runs(uri, "search")
    named = {number: (run.info.run_name, run.data.tags[Tag.ARM]) for number, run in found.items()}
    for run in found.values():
        assert run.data.tags[Tag.NOTE].startswith(f"**{run.info.run_name}**: ")
    low, high = (f"egnn masking 0.5, finetune.lr {lr}" for lr in (0.00315, 0.01))
    assert named == {
        "0": (f"{low}, seed 0", low),
        "1": (f"{high}, seed 0", high),
        "2": (f"{low}, seed 1", low),
    }
