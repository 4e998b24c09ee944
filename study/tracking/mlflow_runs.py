"""A study's runs in MLflow: every call may be repeated without adding a run or a point."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.core.records import FINAL_STATUSES, EpochRecord, JobResult, Tag, flatten
from study.pipeline.job import Job, Kind
from study.pipeline.outcome import load_outcome
from study.scheduling.protocols import Planned
from study.tracking.mlflow_db import is_local
from study.tracking.run_tags import common_tags, tags_of_work

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Standard output may be JSON lines.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)

BATCH = 1000
"""Metrics that MLflow takes at once."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's UI open on the runs; by default it opens on traces of language models."""

TERMINAL = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
}


@dataclass
class _Run:
    """A child run: what it had when it was opened, and the points still to be written."""

    run_id: str
    last_step: int = 0
    logged: frozenset[str] = frozenset()
    described: bool = False
    complete: bool = False
    ended: bool = False
    points: list[Any] = field(default_factory=list)


class StudyRuns:
    """The parent run of a study, and below it one run per piece of work, found by its key.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        root: folder of all work; artifacts of a database without server go below it.
        tags: of the parent run.
        trials: what trials are recorded as: `trial`, or `audit` for those that were stopped early
            and are finished afterwards, beside what is recorded of them already.
    """

    def __init__(
        self, uri: str, experiment: str, root: Path, tags: dict[str, str], trials: str = "trial"
    ) -> None:
        from mlflow import MlflowClient

        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.CRITICAL)
        self.client, self.root, self.tags = MlflowClient(tracking_uri=uri), root, tags
        artifacts = (root / "artifacts").resolve().as_uri() if is_local(uri) else None
        self.experiment_id = self._experiment(experiment, artifacts)
        self.kinds: dict[Kind, str] = {"pretrain": "pretrain", "trial": trials}
        self.exempt: dict[str, bool] = {}
        self._unwritten: dict[str, _Run] = {}
        self._asked_for: set[str] = set()
        existing = self._existing()
        self.runs = {
            run.data.tags[Tag.KEY]: self._known(run)
            for run in existing
            if run.data.tags.get(Tag.KIND) in self.kinds.values()
        }
        studies = [run for run in existing if run.data.tags.get(Tag.KIND) == "study"]
        parents = [run for run in studies if run.data.tags.get(Tag.KEY) == tags[Tag.KEY]]
        if studies and not parents:
            raise ValueError(
                f"it has a study named {experiment} from another folder; choose another --name"
            )
        self.study_run = parents[0].info.run_id if parents else self._create_study(experiment)
        self.active = not parents or parents[0].info.status == "RUNNING"
        """This run of the study has changed something, or a killed one has not ended its run."""
        if self.active:
            self._log_space()

    def plan(self, planned: Planned) -> None:
        """What a trial's run will say of its place in the plan."""
        self.exempt[planned.work.key] = planned.exempt

    def start(self, work: Job, number: int | None) -> None:
        """Create the run of a piece of work, or reopen it if it is not complete."""
        run = self.runs.get(work.key)
        if run is not None and run.complete:
            return
        self._activate()
        if run is None:
            run = self._create(work, number)
        else:
            self.client.update_run(run.run_id, status="RUNNING")
            run.ended = False
        if not run.described:
            self._describe(run.run_id, work)
            run.described = True

    def record(self, key: str, record: EpochRecord, now: int) -> None:
        """Log an epoch that the run does not have yet, now or together with others by `flush`.

        Args:
            key: of the work.
            record: the epoch.
            now: time of the news, ms; a repeated call logs the very same points.
        """
        run = self.runs[key]
        if run.complete or record.epoch <= run.last_step:
            return
        prefixed = {f"{record.stage}/{name}": value for name, value in record.metrics.items()}
        # An epoch is never divided: the last one that the server has is taken as whole.
        if len(run.points) + len(prefixed) > BATCH:
            self._flush(run)
        run.points += _points(prefixed, record.epoch, now)
        run.last_step = record.epoch
        self._unwritten[key] = run

    def flush(self) -> None:
        """Write all epochs that were recorded."""
        for key, run in list(self._unwritten.items()):
            self._flush(run)
            del self._unwritten[key]

    def end(self, work: Job, result: JobResult, now: int) -> None:
        """Log final metrics and the weights, and end the run; `now` as in `record`."""
        from mlflow.entities import RunTag

        run = self.runs[work.key]
        if run.complete:
            return
        self._flush(run)
        new = {name: value for name, value in result.metrics.items() if name not in run.logged}
        facts = {f"study.{name}": str(value) for name, value in result.facts.items()}
        tags = [RunTag(*each) for each in (facts | {Tag.REASON: result.reason}).items()]
        self.client.log_batch(run.run_id, metrics=_points(new, run.last_step, now), tags=tags)
        outcome = load_outcome(work.folder(self.root))
        if result.status == "completed" and outcome is not None and outcome.weights is not None:
            self.client.log_artifact(run.run_id, str(outcome.weights))
        self.client.set_terminated(run.run_id, TERMINAL[result.status])
        # Last, because a run with a status is never touched again.
        self.client.set_tag(run.run_id, Tag.STATUS, result.status)
        run.ended, run.complete = True, result.status != "failed"

    def close(self, status: str) -> None:
        """End the parent run, and as KILLED all that were begun and did not end."""
        if not self.active:
            return
        self.flush()
        for run in self.runs.values():
            if not run.complete and not run.ended:
                self.client.set_terminated(run.run_id, "KILLED")
        self.client.set_terminated(self.study_run, status)

    def state(self) -> dict[str, Any]:
        """Of the study's records: another one after each run of the study that changed them."""
        run = self.client.get_run(self.study_run).info
        return {"run": run.run_id, "ended": run.end_time}

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        note = self.tags.get(Tag.NOTE)
        tags = EXPERIMENT_TAGS | ({Tag.NOTE: note} if note else {})
        created = self.client.create_experiment(name, artifact_location=artifacts, tags=tags)
        return str(created)

    def _existing(self) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _known(self, run: Any) -> _Run:
        complete = run.data.tags.get(Tag.STATUS) in FINAL_STATUSES
        return _Run(
            run.info.run_id,
            last_step=0 if complete else self._last_step(run),
            logged=frozenset(run.data.metrics),
            described=bool(run.data.params),
            complete=complete,
            ended=run.info.status != "RUNNING",
        )

    def _last_step(self, run: Any) -> int:
        stage = "pretrain" if run.data.tags[Tag.KIND] == "pretrain" else "finetune"
        history = self.client.get_metric_history(run.info.run_id, f"{stage}/seconds")
        return max((point.step for point in history), default=0)

    def _create_study(self, name: str) -> str:
        tags = self.tags | common_tags("study")
        run = self.client.create_run(self.experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _log_space(self) -> None:
        """The space as it is run, for who opens the study's page."""
        self.client.log_dict(self.study_run, json.loads(self.tags[Tag.SPACE]), "space.yaml")

    def _activate(self) -> None:
        """Reopen the parent run; its tags follow a study that was extended."""
        if not self.active:
            for name, value in self.tags.items():
                self.client.set_tag(self.study_run, name, value)
            self._log_space()
            self.client.update_run(self.study_run, status="RUNNING")
            self.active = True

    def _create(self, work: Job, number: int | None) -> _Run:
        kind = self.kinds[work.kind]
        exempt = self.exempt.get(work.key)
        tags = tags_of_work(work, kind, self.study_run, number, exempt=exempt)
        found: list[Any] = []
        if work.key in self._asked_for:
            # The answer to an earlier try may have been lost on its way.
            same = f"tags.`{Tag.KEY}` = '{work.key}' AND tags.`{Tag.KIND}` = '{kind}'"
            found = self.client.search_runs([self.experiment_id], same)
        self._asked_for.add(work.key)
        created = (
            found[0]
            if found
            else self.client.create_run(self.experiment_id, run_name=work.label, tags=tags)
        )
        self.runs[work.key] = _Run(created.info.run_id)
        return self.runs[work.key]

    def _describe(self, run_id: str, work: Job) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)) for name, value in flatten(work.settings)]
        for first in range(0, len(parameters), 100):
            self.client.log_batch(run_id, params=parameters[first : first + 100])
        self.client.log_dict(run_id, work.settings, "trial.json")

    def _flush(self, run: _Run) -> None:
        if run.points:
            self.client.log_batch(run.run_id, metrics=run.points)
            run.points = []


def _points(metrics: dict[str, float], step: int, now: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(name, value, now, step) for name, value in metrics.items()]
