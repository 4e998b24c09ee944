"""The view of a study in MLflow's pages: its trials, the lowest test error first.

An address has filter and order, but no columns. Those are in a saved view, which MLflow's pages
read from a tag of the experiment.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from study.core.records import Tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "trials"
"""Name of the view in an address."""
TAG = f"mlflow.sharedViewState.{KEY}"
"""Where MLflow's pages look for the view; no public call of its client writes one."""
WIDE = {"workflowType": "machine_learning"}
"""Lets the page of a fresh browser open on runs and not on traces of language models."""
FILTER = f"tags.`{Tag.KIND}` = 'trial'"


def facets(metric: str) -> dict[str, str]:
    """Filter and order of the view, by their names in an address.

    Args:
        metric: validation error by which the study compares.
    """
    error = f"metrics.`{_tested(metric)}`"
    return {"searchFilter": FILTER, "orderByKey": error, "orderByAsc": "true"}


def save_view(client: MlflowClient, experiment: str, metric: str) -> None:
    """Save the view with its columns, unless the experiment has it.

    Args:
        client: of MLflow.
        experiment: its id.
        metric: as in `facets`.
    """
    if TAG in client.get_experiment(experiment).tags:
        return
    now = int(time.time() * 1000)
    chosen = facets(metric) | {"orderByAsc": True, "selectedColumns": _columns(metric)}
    saved = {"name": "Trials by test error", "createdAt": now, "updatedAt": now}
    client.set_experiment_tag(experiment, TAG, json.dumps(saved | {"state": json.dumps(chosen)}))


def address(experiment: str, metric: str, *, saved: bool) -> str:
    """Address of the view below that of the server.

    Args:
        experiment: its id.
        metric: as in `facets`.
        saved: whether the view is surely saved; else the address has only filter and order.
    """
    query = WIDE | ({"viewStateShareKey": KEY} if saved else facets(metric))
    return f"#/experiments/{experiment}/runs?{urlencode(query)}"


def _columns(metric: str) -> list[str]:
    errors = [_tested(metric)]
    if "force" in metric:
        errors.append(errors[0].replace("force", "energy"))
    return [f"tags.`{Tag.ARM}`", *(f"metrics.`{error}`" for error in errors)]


def _tested(metric: str) -> str:
    return f"test_{metric.removeprefix('val_')}"
