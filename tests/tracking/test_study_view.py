"""The printed address of a study in MLflow, read back as MLflow's pages and client read it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient

from study.console import study_summary
from study.core.records import Tag
from study.pipeline.job import Job
from study.tracking.study_view import KEY, address, save_view
from tests.tracking.recording import finished

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
METRIC = "val_force_rmse"


def query_of(page: str) -> dict[str, str]:
    """The query behind the `#` of an address."""
    query = urlsplit(urlsplit(f"http://host/{page}").fragment).query
    return {name: value for name, (value,) in parse_qs(query).items()}


def test_the_address_selects_a_studys_trials(uri: str, tmp_path: Path, work: Job) -> None:
    finished(uri, "viewed", tmp_path, work)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("viewed")
    assert experiment is not None
    query = query_of(address(experiment.experiment_id, METRIC, saved=False))
    assert query["workflowType"] == "machine_learning"
    order = f"{query['orderByKey']} {'ASC' if query['orderByAsc'] == 'true' else 'DESC'}"
    assert order == "metrics.`test_force_rmse` ASC"
    rows = client.search_runs([experiment.experiment_id], query["searchFilter"], order_by=[order])
    assert [run.data.tags[Tag.KIND] for run in rows] == ["trial"]
    saved = query_of(address(experiment.experiment_id, METRIC, saved=True))
    assert saved["viewStateShareKey"] == KEY

    # MLflow's pages ignore a saved view beside a filter or an order in the address.
    assert not saved.keys() & {"searchFilter", "orderByKey", "orderByAsc"}
    stored = experiment.tags[f"mlflow.sharedViewState.{KEY}"]
    state = json.loads(json.loads(stored)["state"])
    assert state["searchFilter"] == query["searchFilter"]
    assert (state["orderByKey"], state["orderByAsc"]) == (query["orderByKey"], True)
    assert state["selectedColumns"] == [
        "tags.`study.arm`",
        "metrics.`test_force_rmse`",
        "metrics.`test_energy_rmse`",
    ]
    save_view(client, experiment.experiment_id, METRIC)
    again = client.get_experiment(experiment.experiment_id)
    assert again.tags == experiment.tags


def test_command_and_address_name_the_same_free_port() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        command, page = study_summary._mlflow_commands("sqlite:////a b/mlflow.db", "#/x", first)
    port = urlsplit(page).port
    assert f"--port {port} " in command
    assert port != first
    assert page.endswith("/#/x")
    assert study_summary._mlflow_commands("http://me:word@host", "#/x") == ["http://host/#/x"]
