"""MLflow as far as studies use it, in memory; it can fail before or after it has done a task."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any


class Server:
    """What MLflow keeps, whoever is connected.

    Args:
        at: the call that fails, from 0; none if it is below.
        done: it is done all the same, and only the answer is lost.
        error: what the caller gets instead of an answer; `Killed` if it is killed meanwhile.
    """

    def __init__(
        self, at: int = -1, *, done: bool = False, error: type[BaseException] = ConnectionError
    ) -> None:
        self.at, self.done, self.error, self.calls = at, done, error, 0
        self.experiments: dict[str, str] = {}
        self.artifacts: dict[str, Any] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.points: list[tuple[str, str, int, float]] = []
        self._seen: set[tuple[str, str, int, float, int]] = set()
        self._free = itertools.count()

    def client(self, tracking_uri: str = "") -> Client:
        """Stands for `mlflow.MlflowClient`."""
        del tracking_uri
        return Client(self)


class Client:
    """The calls of `study.tracking.mlflow_runs`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_"):
            return found
        server = self._server

        def call(*arguments: Any, **named: Any) -> Any:
            number, server.calls = server.calls, server.calls + 1
            if number == server.at and not server.done:
                raise server.error("gone")
            answer = found(*arguments, **named)
            if number == server.at:
                raise server.error("gone")
            return answer

        return call

    def get_experiment_by_name(self, name: str) -> Any:
        experiments = self._server.experiments
        if name not in experiments:
            return None
        return SimpleNamespace(
            experiment_id=experiments[name],
            lifecycle_stage="active",
            name=name,
            artifact_location=self._server.artifacts[experiments[name]],
        )

    def get_experiment(self, experiment: str) -> Any:
        return SimpleNamespace(tags=dict(self._server.tags.get(experiment, {})))

    def set_experiment_tag(self, experiment: str, name: str, value: str) -> None:
        self._server.tags.setdefault(experiment, {})[name] = value

    def log_inputs(self, run_id: str, datasets: Sequence[Any]) -> None:
        del datasets
        assert run_id in self._server.runs

    def create_experiment(self, name: str, artifact_location: Any = None, **_options: Any) -> str:
        if name in self._server.experiments:
            raise ValueError(f"experiment {name} exists already")
        created = self._server.experiments.setdefault(name, str(next(self._server._free)))
        self._server.artifacts[created] = artifact_location
        return created

    def search_runs(
        self,
        _experiments: list[str],
        query: str = "",
        max_results: int = 1000,
        page_token: str | None = None,
    ) -> Any:
        del max_results, page_token
        runs = list(self._server.runs.values())
        for condition in query.split(" AND ") if query else ():
            name, _, value = condition.removeprefix("tags.").partition(" = ")
            runs = [run for run in runs if run.data.tags.get(name.strip("`")) == value.strip("'")]
        return _Page(runs)

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = f"run-{next(self._server._free)}"
        data = SimpleNamespace(tags=dict(tags), params={}, metrics={})
        info = SimpleNamespace(run_id=run_id, run_name=run_name, status="RUNNING")
        info.artifact_uri = self._server.artifacts[experiment]
        info.start_time, info.end_time = len(self._server.runs), None
        self._server.runs[run_id] = SimpleNamespace(info=info, data=data)
        return self._server.runs[run_id]

    def update_run(self, run_id: str, status: str) -> None:
        self._server.runs[run_id].info.status = status

    def set_terminated(self, run_id: str, status: str) -> None:
        self._server.runs[run_id].info.status = status

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self._server.runs[run_id].data.tags[name] = value

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Sequence[Any] = (),
        tags: Sequence[Any] = (),
    ) -> None:
        data = self._server.runs[run_id].data
        data.tags |= {tag.key: tag.value for tag in tags}
        data.params |= {param.key: param.value for param in params}
        for point in metrics:
            exact = (run_id, point.key, point.step, point.value, point.timestamp)
            # MLflow keeps the very same point once, but a later one of the same step beside it.
            if exact not in self._server._seen:
                self._server._seen.add(exact)
                self._server.points.append(exact[:4])
                data.metrics[point.key] = point.value

    def log_dict(self, _run_id: str, _value: Any, _name: str) -> None:
        pass

    def log_artifact(self, _run_id: str, _path: str) -> None:
        pass

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        points = [point for point in self._server.points if point[:2] == (run_id, name)]
        return [
            SimpleNamespace(key=key, step=step, value=value, timestamp=0)
            for _, key, step, value in points
        ]


class _Page(list[Any]):
    token = None
