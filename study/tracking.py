"""The study's records in MLflow, written by one background thread of the driver.

Training never waits for MLflow: news queue up here, and what the server did not take is tried
again. Whatever is still missing at the end is completed by running the study again, because runs
are found by the key of their work and steps that MLflow already has are left out.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from study import provenance
from study.conductor import Planned
from study.errors import UserError
from study.identity import code_version
from study.records import SCHEMA_VERSION, EpochRecord, Tag, WorkResult
from study.work import Work, load_outcome

for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}.items():
    os.environ.setdefault(_name, _value)

PATIENCE = 60.0
"""Seconds that the end of a study waits for a slow tracking server."""

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
    """A child run: what it had when it was opened, and what is still to be written."""

    run_id: str
    last_step: int = 0
    logged: frozenset[str] = frozenset()
    described: bool = False
    complete: bool = False
    ended: bool = False


class Tracker:
    """Writes one parent run for the study and one child run per piece of work.

    Args:
        uri: MLflow tracking URI.
        experiment: name of the study.
        root: folder of all work; artifacts of a database without server go below it.
        tags: of the parent run.
    """

    def __init__(self, uri: str, experiment: str, root: Path, tags: dict[str, str]) -> None:
        self.uri, self.experiment, self.root = uri, experiment, root
        self.tags = tags
        self.runs: dict[str, _Run] = {}
        self.problem = ""
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)

    def open(self) -> None:
        """Begin in the background; `wait` tells how it went."""
        self._thread.start()

    def wait(self) -> None:
        """Return when MLflow is ready.

        Raises:
            UserError: if it cannot be reached.
        """
        self._opened.wait()
        if self.problem:
            raise UserError(
                f"--tracking-uri {_without_password(self.uri)}: {self.problem}; start the server, "
                "or leave the option out to use a local database"
            )

    def planned(self, planned: Planned) -> None:
        """Runs begin when work begins."""

    def started(self, work: Work, number: int | None) -> None:
        """Create or reopen the run."""
        self._tasks.put(lambda: self._start(work, number))

    def recorded(self, work: Work, record: EpochRecord) -> None:
        """Log an epoch."""
        now = _milliseconds()
        self._tasks.put(lambda: self._record(work.key, record, now))

    def ended(self, work: Work, result: WorkResult) -> None:
        """Log final metrics and the weights, and end the run."""
        now = _milliseconds()
        self._tasks.put(lambda: self._end(work, result, now))

    def close(self, status: str) -> bool:
        """Write what is queued and end the parent run.

        Args:
            status: FINISHED, or KILLED if the study was interrupted.

        Returns:
            Whether MLflow has got everything.
        """
        self._tasks.put(lambda: self._close(status))
        self._tasks.put(None)
        self._closing.set()
        self._thread.join(PATIENCE)
        return not self._thread.is_alive() and not self.problem

    def _write(self) -> None:
        try:
            with _first_touch(self.uri):
                self._open()
        except Exception as problem:
            self.problem = self._one_line(problem)
            self._opened.set()
            return
        self._opened.set()
        while (task := self._tasks.get()) is not None:
            self._try(task)

    def _try(self, task: Callable[[], None]) -> None:
        """Repeat until it works; every task may be done twice without harm."""
        pause, deadline = 0.5, math.inf
        while True:
            try:
                task()
            except Exception as problem:
                if self._closing.is_set():
                    deadline = min(deadline, time.monotonic() + PATIENCE / 2)
                if time.monotonic() > deadline:
                    self.problem = self._one_line(problem)
                    return
                time.sleep(pause)
                pause = min(2 * pause, 10)
            else:
                return

    def _open(self) -> None:
        from mlflow import MlflowClient

        for talkative in ("mlflow", "alembic"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        self.client = MlflowClient(tracking_uri=self.uri)
        found = self.client.get_experiment_by_name(self.experiment)
        artifacts = (self.root / "artifacts").resolve().as_uri() if _is_local(self.uri) else None
        self.experiment_id = (
            found.experiment_id
            if found
            else self.client.create_experiment(
                self.experiment, artifact_location=artifacts, tags=EXPERIMENT_TAGS
            )
        )
        for run in self._existing():
            key, status = run.data.tags.get(Tag.KEY), run.data.tags.get(Tag.STATUS)
            known = _Run(
                run.info.run_id,
                logged=frozenset(run.data.metrics),
                described=bool(run.data.params),
            )
            known.complete = status in ("completed", "stopped", "diverged")
            if not known.complete and run.data.tags.get(Tag.KIND) != "study":
                known.last_step = self._last_step(run)
            self.runs[key] = known
        self._start_study()

    def _existing(self) -> list[Any]:
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _last_step(self, run: Any) -> int:
        stage = "pretrain" if run.data.tags[Tag.KIND] == "pretrain" else "finetune"
        history = self.client.get_metric_history(run.info.run_id, f"{stage}/seconds")
        return max((point.step for point in history), default=0)

    def _start_study(self) -> None:
        key = self.tags[Tag.KEY]
        if key in self.runs:
            self.study_run = self.runs[key].run_id
            self.client.update_run(self.study_run, status="RUNNING")
            return
        run = self.client.create_run(
            self.experiment_id, run_name=self.experiment, tags=self.tags | _common_tags("study")
        )
        self.study_run = run.info.run_id
        self.runs[key] = _Run(self.study_run, complete=True)

    def _start(self, work: Work, number: int | None) -> None:
        run = self.runs.get(work.key) or self._create(work, number)
        if run.complete:
            return
        self.client.update_run(run.run_id, status="RUNNING")
        if not run.described:
            self._describe(run.run_id, work)
            run.described = True

    def _create(self, work: Work, number: int | None) -> _Run:
        tags = _common_tags(work.kind) | {
            Tag.KEY: work.key,
            Tag.DATA: work.data_hash,
            "mlflow.parentRunId": self.study_run,
        }
        if number is not None:
            tags[Tag.NUMBER] = str(number)
        if work.pretraining is not None:
            tags[Tag.PRETRAINING] = work.pretraining.key
        # The answer to an earlier try may have been lost on its way.
        found = self.client.search_runs([self.experiment_id], f"tags.`{Tag.KEY}` = '{work.key}'")
        created = (
            found[0]
            if found
            else self.client.create_run(self.experiment_id, run_name=work.label, tags=tags)
        )
        self.runs[work.key] = _Run(created.info.run_id)
        return self.runs[work.key]

    def _describe(self, run_id: str, work: Work) -> None:
        from mlflow.entities import Param

        parameters = [Param(name, str(value)) for name, value in _flat(work.settings)]
        for first in range(0, len(parameters), 100):
            self.client.log_batch(run_id, params=parameters[first : first + 100])
        self.client.log_dict(run_id, work.settings, "trial.json")

    def _record(self, key: str, record: EpochRecord, now: int) -> None:
        run = self.runs[key]
        if run.complete or record.epoch <= run.last_step:
            return
        prefixed = {f"{record.stage}/{name}": value for name, value in record.metrics.items()}
        self._log_metrics(run.run_id, prefixed, record.epoch, now)
        run.last_step = record.epoch

    def _log_metrics(self, run_id: str, metrics: dict[str, float], step: int, now: int) -> None:
        """Log a set of metrics; the time stamp is that of the news, so a retry adds no points."""
        from mlflow.entities import Metric

        points = [Metric(name, value, now, step) for name, value in metrics.items()]
        for first in range(0, len(points), BATCH):
            self.client.log_batch(run_id, metrics=points[first : first + BATCH])

    def _end(self, work: Work, result: WorkResult, now: int) -> None:
        run = self.runs[work.key]
        if run.complete:
            return
        new = {name: value for name, value in result.metrics.items() if name not in run.logged}
        self._log_metrics(run.run_id, new, run.last_step, now)
        outcome = load_outcome(work.folder(self.root))
        if result.status == "completed" and outcome is not None and outcome.weights is not None:
            self.client.log_artifact(run.run_id, str(outcome.weights))
        facts = {f"study.{name}": str(value) for name, value in result.facts.items()}
        for name, value in (facts | {Tag.REASON: result.reason}).items():
            self.client.set_tag(run.run_id, name, value)
        self.client.set_terminated(run.run_id, TERMINAL[result.status])
        # Last, because a run with a status is never touched again.
        self.client.set_tag(run.run_id, Tag.STATUS, result.status)
        run.ended, run.complete = True, result.status != "failed"

    def _one_line(self, problem: Exception) -> str:
        text = str(problem).split("\n", 1)[0] or type(problem).__name__
        return text.replace(self.uri, _without_password(self.uri))[:200]

    def _close(self, status: str) -> None:
        for run in self.runs.values():
            if not run.complete and not run.ended:
                self.client.set_terminated(run.run_id, "KILLED")
        self.client.set_terminated(self.study_run, status)


def _common_tags(kind: str) -> dict[str, str]:
    return {
        Tag.KIND: kind,
        "mlflow.source.name": "python -m study.run",
        Tag.SCHEMA: str(SCHEMA_VERSION),
        Tag.CODE: code_version(),
        Tag.GIT: provenance.git_commit(),
        Tag.PACKAGES: json.dumps(provenance.packages()),
        Tag.HARDWARE: json.dumps(provenance.hardware()),
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings by dotted name."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _milliseconds() -> int:
    return int(time.time() * 1000)


def _is_local(uri: str) -> bool:
    return uri.startswith("sqlite:")


def _first_touch(uri: str) -> Any:
    """Only one process may create the tables of a database file."""
    if not _is_local(uri):
        return nullcontext()
    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"))


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if separator else uri
