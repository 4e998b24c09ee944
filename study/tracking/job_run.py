"""The run of one job in MLflow: its parameters, epochs, final metrics and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core import provenance
from study.core.records import (
    FINAL_STATUSES,
    MASKING_RATIO,
    EpochRecord,
    JobResult,
    StageName,
    Tag,
    curve_name,
    flatten,
)
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

MAX_METRICS = 1000
"""Metrics that MLflow accepts in one call."""
MAX_PARAMS = 100
"""Parameters that MLflow accepts in one call."""
MAX_DIGEST = 36
"""Characters of a data set's digest that MLflow accepts."""
SPLITS = {"pretrain": "training", "trial": "training, validation, test"}
"""What a job uses its data set for, by the kind of the job."""
TERMINAL = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
"""MLflow's status of a run, by the status of its job."""


@dataclass
class JobRun:
    """A child run: what MLflow had of it when it was opened, and the points not yet written.

    Args:
        client: of MLflow.
        run_id: MLflow's id of the run.
        name: of the run.
        last_step: the last epoch that is written or among `points`.
        logged: names of the final metrics that MLflow has.
        described: whether MLflow has the parameters.
        complete: whether the run has a final status; it is never changed afterwards.
        ended: whether the run is not RUNNING.
        points: metrics still to be written.
    """

    client: MlflowClient
    run_id: str
    name: str
    last_step: int = 0
    logged: frozenset[str] = frozenset()
    described: bool = False
    complete: bool = False
    ended: bool = False
    points: list[Metric] = field(default_factory=list)

    @classmethod
    def from_mlflow(cls, client: MlflowClient, run: Run) -> JobRun:
        """Read how much MLflow already has of a run."""
        complete = run.data.tags.get(Tag.STATUS) in FINAL_STATUSES
        return cls(
            client,
            run.info.run_id,
            run.info.run_name,
            last_step=0 if complete else _last_step(client, run),
            logged=frozenset(run.data.metrics),
            described=bool(run.data.params),
            complete=complete,
            ended=run.info.status != "RUNNING",
        )

    def reopen(self) -> None:
        """Set the run to RUNNING again."""
        self.client.update_run(self.run_id, status="RUNNING")
        self.ended = False

    def describe(self, work: Job) -> None:
        """Log the settings of a job, once."""
        from mlflow.entities import Param

        if self.described:
            return
        self.client.log_inputs(self.run_id, datasets=_datasets(work))
        settings = flatten(work.settings)
        unset = [name for name, value in settings if value is None]
        self.client.set_tag(self.run_id, Tag.UNSET, json.dumps(unset))
        shown = [*settings, *_masking_ratio(work)]
        parameters = [Param(name, str(value)) for name, value in shown if value is not None]
        for first in range(0, len(parameters), MAX_PARAMS):
            batch = parameters[first : first + MAX_PARAMS]
            self.client.log_batch(self.run_id, params=batch)
        self.client.log_dict(self.run_id, work.settings, "trial.json")
        self.client.log_dict(self.run_id, _provenance(work), "provenance.json")
        self.described = True

    def record(self, record: EpochRecord, now: int) -> bool:
        """Add an epoch that MLflow does not have yet to the points to be written.

        Args:
            record: the epoch.
            now: time of the epoch, ms.

        Returns:
            Whether the epoch is new.
        """
        if self.complete or record.epoch <= self.last_step:
            return False
        prefixed = {curve_name(record.stage, name): v for name, v in record.metrics.items()}
        # An epoch is never divided: the last one that the server has is taken as complete.
        if len(self.points) + len(prefixed) > MAX_METRICS:
            self.flush()
        self.points += _points(prefixed, record.epoch, now)
        self.last_step = record.epoch
        return True

    def flush(self) -> None:
        """Write the points."""
        if self.points:
            self.client.log_batch(self.run_id, metrics=self.points)
            self.points = []

    def end(self, work: Job, root: Path, result: JobResult, now: int) -> None:
        """Log final metrics and the weights, and end the run.

        Args:
            work: the job.
            root: folder of all jobs.
            result: of the job.
            now: time of the end, ms.
        """
        from mlflow.entities import RunTag

        new = {name: value for name, value in result.metrics.items() if name not in self.logged}
        facts = {f"study.{name}": str(value) for name, value in result.facts.items()}
        tags = [RunTag(*each) for each in (facts | {Tag.REASON: result.reason}).items()]
        # A call takes ten milliseconds of a disk, so that what fits goes into one.
        if len(self.points) + len(new) + len(tags) > MAX_METRICS:
            self.flush()
        points = self.points + _points(new, self.last_step, now)
        self.client.log_batch(self.run_id, metrics=points, tags=tags)
        self.points = []
        outcome = load_outcome(work.folder(root))
        if result.status == "completed" and outcome is not None and outcome.weights is not None:
            self.client.log_artifact(self.run_id, str(outcome.weights))
        self.client.set_terminated(self.run_id, TERMINAL[result.status])
        # Last, because a run with a status is never changed again.
        self.client.set_tag(self.run_id, Tag.STATUS, result.status)
        self.ended, self.complete = True, result.status != "failed"

    def kill(self) -> None:
        """End a run as KILLED if its job was started and has not ended."""
        if not self.complete and not self.ended:
            self.client.set_terminated(self.run_id, "KILLED")


def _datasets(work: Job) -> list[DatasetInput]:
    """Data set of a job, with what it is used for; none of weights that were trained earlier."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if work.start:
        return []
    config = work.trial.dataset_of(work.training)
    source = config.model_dump_json(exclude_none=True)
    dataset = Dataset(config.label[:500], work.data_hash[:MAX_DIGEST], "study.data", source)
    return [DatasetInput(dataset, [InputTag("mlflow.data.context", SPLITS[work.kind])])]


def _masking_ratio(work: Job) -> list[tuple[str, Any]]:
    """The ratio as a parameter that trials from scratch have, too; none of other pretraining."""
    if work.kind != "trial":
        return []
    if work.pretraining is None:
        return [(MASKING_RATIO, 0)]
    pretrained = dict(flatten(work.settings["pretrain"] or {}))
    return [(MASKING_RATIO, pretrained.get(f"task.{MASKING_RATIO}"))]


def _provenance(work: Job) -> dict[str, Any]:
    """Hashes, versions and machine of a job, for who wants to know where its numbers come from."""
    return {
        "key": work.key,
        "pretraining": work.pretraining.key if work.pretraining else None,
        "data": work.data_hash,
        "code": work.code,
        "git": provenance.git_commit(),
        "packages": provenance.packages(),
        "hardware": provenance.hardware(),
    }


def _last_step(client: MlflowClient, run: Run) -> int:
    """Last epoch that MLflow has, also by its name in earlier versions."""
    stage: StageName = "pretrain" if run.data.tags[Tag.KIND] == "pretrain" else "finetune"
    names = {curve_name(stage, "seconds"), f"{stage}/seconds"} & run.data.metrics.keys()
    histories = [client.get_metric_history(run.info.run_id, name) for name in names]
    return max((point.step for history in histories for point in history), default=0)


def _points(metrics: Mapping[str, float], step: int, now: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, value, now, step) for name, value in metrics.items()]
