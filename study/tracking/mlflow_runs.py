"""A study's runs in MLflow: every call may be repeated without adding a run or a point."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from study.core.records import EpochRecord, JobResult, Tag
from study.core.trust import accept_place, require_own_artifacts
from study.pipeline.job import Job, Kind
from study.planning.arms import brief_member, searched_name
from study.scheduling.protocols import Planned
from study.tracking.job_run import JobRun
from study.tracking.mlflow_db import artifacts_of, has_no_server, quiet_mlflow
from study.tracking.run_tags import tags_of_continuation, tags_of_work
from study.tracking.study_run import StudyRun, is_same_study, open_experiment
from study.tracking.study_view import save_view

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Standard output may be JSON lines.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)


class StudyRuns:
    """The run of a study and, below it, one run per job, identified by the job's key.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        root: folder of all jobs; artifacts of a database without server go below it.
        tags: of the parent run.
        trials: kind under which trials are recorded: `trial`, or `audit` for stopped trials that
            are finished afterwards, which keep their earlier run beside the new one.
    """

    def __init__(
        self, uri: str, experiment: str, root: Path, tags: dict[str, str], trials: str = "trial"
    ) -> None:
        from mlflow import MlflowClient

        quiet_mlflow()
        self.client, self.root = MlflowClient(tracking_uri=uri), root
        artifacts = artifacts_of(root) if has_no_server(uri) else None
        note = tags.get(Tag.NOTE)
        self.experiment_id = open_experiment(self.client, experiment, artifacts, note)
        self.kinds: dict[Kind, str] = {"pretrain": "pretrain", "trial": trials}
        self.exempt: dict[str, bool] = {}
        self.tuning: set[str] = set()
        self.members: dict[str, Planned] = {}
        self.searched: dict[str, None] = {}
        self._unwritten: dict[str, JobRun] = {}
        self._requested: set[str] = set()
        existing = self._existing()
        self.runs = {
            run.data.tags[Tag.KEY]: JobRun.from_mlflow(self.client, run)
            for run in existing
            if run.data.tags.get(Tag.KIND) in self.kinds.values()
        }
        if artifacts is not None and all(is_same_study(run, tags) for run in existing):
            self._keep_artifacts(uri, experiment, artifacts, existing)
        self.study = StudyRun(self.client, self.experiment_id, experiment, tags, existing)
        metric = json.loads(tags[Tag.SPACE]).get("metric", "val_force_rmse")
        save_view(self.client, self.experiment_id, metric)

    def _keep_artifacts(self, uri: str, name: str, artifacts: str, existing: list[Any]) -> None:
        """Refuse a database that leads elsewhere; remember where this user's artifacts are."""
        experiment, study = self.client.get_experiment_by_name(name), self.root / "studies" / name
        assert experiment is not None
        places = (experiment.artifact_location, *(run.info.artifact_uri for run in existing))
        require_own_artifacts(uri, study, *places)
        accept_place(artifacts)

    def plan(self, planned: Planned) -> None:
        """Remember what the tags of a trial's run say of its place in the plan."""
        self.exempt[planned.work.key] = planned.exempt
        self.searched |= planned.searched
        if planned.member is not None:
            self.members.setdefault(planned.work.key, planned)
        if planned.tuning:
            first = planned.work.pretraining
            # Weights from elsewhere serve the compared trials, too, and so do a population's.
            is_own = first is not None and not first.start and planned.work.segment is None
            own = [first.key] if first is not None and is_own else []
            self.tuning |= {planned.work.key, *own}

    def start(self, work: Job, number: int | None) -> None:
        """Create the run of a job, or reopen it if it is not complete."""
        run = self.runs.get(work.key)
        if run is not None and run.complete:
            return
        self.study.activate()
        if run is None:
            run = self._create(work, number)
        else:
            run.reopen()
        run.describe(work)

    def record(self, key: str, record: EpochRecord, now: int) -> None:
        """Log an epoch that the run does not have yet, now or together with others by `flush`.

        Args:
            key: of the job.
            record: the epoch.
            now: time of the epoch, ms; a repeated call logs the very same points.
        """
        run = self.runs[key]
        if run.record(record, now):
            self._unwritten[key] = run

    def flush(self) -> None:
        """Write all epochs that were recorded."""
        for key, run in list(self._unwritten.items()):
            run.flush()
            del self._unwritten[key]

    def end(self, work: Job, result: JobResult, now: int) -> None:
        """Log final metrics and the weights, and end the run; `now` as in `record`."""
        run = self.runs[work.key]
        if not run.complete:
            run.end(work, self.root, result, now)

    def close(self, status: str) -> None:
        """End the parent run, and as KILLED all runs that were started and have not ended."""
        if not self.study.active:
            return
        self.flush()
        for run in self.runs.values():
            run.kill()
        self.study.end(status)

    def state(self) -> dict[str, Any]:
        """See `StudyRun.state`."""
        return self.study.state()

    def _existing(self) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _create(self, work: Job, number: int | None) -> JobRun:
        kind = self.kinds[work.kind]
        exempt = self.exempt.get(work.key)
        planned = self.members.get(work.key)
        label = searched_name(work, self.searched)
        name = brief_member(planned) if planned else label
        member = planned.member if planned else None
        tags = tags_of_work(work, label, kind, self.study.run_id, number, member, exempt=exempt)
        tags |= {Tag.TUNING: "True"} if work.key in self.tuning else {}
        # The run of a job is made before those of jobs that go on from it.
        before = self.runs.get(work.segment.parent or "") if work.segment else None
        if before is not None:
            tags |= tags_of_continuation(tags, before.name, before.run_id, self.experiment_id)
        same: list[Any] = []
        if work.key in self._requested:
            # The answer to an earlier try may have been lost on its way.
            condition = f"tags.`{Tag.KEY}` = '{work.key}' AND tags.`{Tag.KIND}` = '{kind}'"
            same = self.client.search_runs([self.experiment_id], condition)
        self._requested.add(work.key)
        created = (
            same[0]
            if same
            else self.client.create_run(self.experiment_id, run_name=name, tags=tags)
        )
        self.runs[work.key] = JobRun(self.client, created.info.run_id, name)
        return self.runs[work.key]
