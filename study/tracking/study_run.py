"""The run of a study itself in MLflow, the parent of all its other runs."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from study.core.records import Tag
from study.tracking.run_tags import study_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

logger = logging.getLogger(__name__)

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Lets MLflow's UI open on the runs; by default it opens on traces of language models."""


def open_experiment(
    client: MlflowClient, name: str, artifacts: str | None, note: str | None
) -> str:
    """Return the id of a study's experiment, which is created if it does not exist.

    Args:
        client: of MLflow.
        name: of the study.
        artifacts: where a new experiment keeps artifacts; None leaves it to the server.
        note: description of a new experiment.
    """
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    tags = EXPERIMENT_TAGS | ({Tag.NOTE: note} if note else {})
    return str(client.create_experiment(name, artifact_location=artifacts, tags=tags))


def is_same_study(run: Run, tags: dict[str, str]) -> bool:
    """Whether a run is not that of a study of the same name in another folder."""
    known = run.data.tags
    return known.get(Tag.KIND) != "study" or bool(known.get(Tag.KEY) == tags[Tag.KEY])


class StudyRun:
    """The parent run, created if it does not exist and reopened when something changes.

    Args:
        client: of MLflow.
        experiment_id: of the study.
        name: of the study.
        tags: of the run.
        existing: all runs of the experiment.

    Raises:
        ValueError: if the experiment holds a study of the same name from another folder.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment_id: str,
        name: str,
        tags: dict[str, str],
        existing: list[Run],
    ) -> None:
        self.client, self.tags = client, tags
        studies = [run for run in existing if run.data.tags.get(Tag.KIND) == "study"]
        same = [run for run in studies if run.data.tags.get(Tag.KEY) == tags[Tag.KEY]]
        if studies and not same:
            raise ValueError(
                f"it has a study named {name} from another folder; choose another --name"
            )
        self.run_id = same[0].info.run_id if same else self._create(experiment_id, name)
        self.active = not same or same[0].info.status == "RUNNING"
        """Whether this session has changed something, or a killed one has not ended the run."""
        self._monitor: SystemMetricsMonitor | None = None
        if self.active:
            self._log_space()
            self._monitor = self._monitored()

    def activate(self) -> None:
        """Reopen the run before a change; its tags follow a study that was extended."""
        if not self.active:
            for name, value in self.tags.items():
                self.client.set_tag(self.run_id, name, value)
            self._log_space()
            self.client.update_run(self.run_id, status="RUNNING")
            self.active = True
            self._monitor = self._monitored()

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        self.client.set_tag(self.run_id, name, value)

    def end(self, status: str) -> None:
        """End the run."""
        if self._monitor is not None:
            self._monitor.finish()  # type: ignore[no-untyped-call]
        self.client.set_terminated(self.run_id, status)

    def state(self) -> dict[str, Any]:
        """Return what identifies the records: it differs after each session that changed them."""
        run = self.client.get_run(self.run_id).info
        return {"run": run.run_id, "ended": run.end_time}

    def _create(self, experiment_id: str, name: str) -> str:
        tags = self.tags | study_tags()
        return str(self.client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)

    def _monitored(self) -> SystemMetricsMonitor | None:
        """Log this machine's load from now on, where MLflow's own variable asks for it."""
        from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as REQUESTED

        if not REQUESTED.get():  # type: ignore[no-untyped-call]
            return None
        try:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                self.run_id, resume_logging=True, tracking_uri=self.client.tracking_uri
            )
        except ImportError as missing:
            needs = "pip install psutil, and nvidia-ml-py for GPUs"
            logger.warning("%s: no system metrics (%s); %s", REQUESTED.name, missing, needs)
            return None
        monitor.start()  # type: ignore[no-untyped-call]
        return monitor

    def _log_space(self) -> None:
        """Log the space as it is run, for readers of the study's page."""
        self.client.log_dict(self.run_id, json.loads(self.tags[Tag.SPACE]), "space.yaml")
