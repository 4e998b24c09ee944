"""Names of arms, models and data."""

from __future__ import annotations

from collections.abc import Callable

from analysis.comparisons.arms import arms
from analysis.comparisons.labels import NAMES
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.core.config import shipped
from study.models.config import ModelConfig

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


def test_a_model_and_data_of_any_name_are_called_by_it(tabulate: Tabulate, scratch: Build) -> None:
    own = {"model.name": "my_net", "dataset.name": "my_set", "dataset.path": "/far/away.xyz"}
    tat = {"model.name": "gns", "model.activation": "tailored"}
    trials = arms(tabulate(scratch(0, 0, 0.1, **own), scratch(1, 0, 0.1, **tat)))
    assert trials.model.tolist() == ["my net", "GNS-TAT"]
    assert trials.data.tolist() == ["away.xyz", "TIP3P water"]
    assert trials.arm[0] == "from scratch, my net, away.xyz"


def test_every_shipped_model_is_called_as_in_its_paper() -> None:
    assert shipped(ModelConfig).keys() <= NAMES.keys()


def test_the_name_of_an_arm_tells_its_task(tabulate: Tabulate, masked: Build) -> None:
    tasks = "[{'task': {'name': 'masking', 'masking_ratio': 0.9}, 'weight': 1.0}]"
    mixed = {"pretrain.task.name": "mixed", "pretrain.task.tasks": tasks}
    study = tabulate(
        masked(0, 0, 0.5, 0.1, **{"pretrain.task.placebo": True}), masked(1, 0, 0.9, 0.1)
    )
    assert arms(study).task.tolist() == ["masking 0.5 placebo", "masking 0.9"]
    run = masked(1, 0, 0.9, 0.1)
    run.params.update(mixed)
    del run.params["pretrain.task.masking_ratio"]
    assert arms(tabulate(run)).task.tolist() == ["masking 0.9"]
