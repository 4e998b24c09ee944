from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial

from study.core.errors import UserError
from study.space.distributions import listed
from study.space.search.option_names import labels_of
from study.space.search_space import Space, load_space
from study.space.yaml_loader import as_block
from tests.search_space import SEARCH_SPACE

PRETRAIN = """
  pretrain:
    epochs: 2
    batch_size: 2
    lr: {loguniform: [1e-4, 1e-2]}
    choice:
      - null
      - task: {name: masking, masking_ratio: {uniform: [0.1, 1.0]}}
      - task: {name: denoising, noise_scale: {uniform: [0.1, 1.0]}}
"""


def load(tmp_path: Path, pretrain: str = PRETRAIN) -> Space:
    head, _, tail = SEARCH_SPACE.partition("  pretrain:\n")
    path = tmp_path / "search.yaml"
    path.write_text(head + pretrain.lstrip("\n") + "  finetune:" + tail.partition("  finetune:")[2])
    return load_space(str(path), "quick")


def test_options_are_called_by_their_content_and_shared_settings_are_one_parameter(
    tmp_path: Path,
) -> None:
    assert dict(listed(load(tmp_path).body)) == {
        "pretrain": "scratch, masking, denoising",
        "pretrain.masking.task.masking_ratio": "0.1 to 1.0",
        "pretrain.lr": "0.0001 to 0.01, log",
        "pretrain.denoising.task.noise_scale": "0.1 to 1.0",
        "finetune.lr": "1e-05 to 0.01, log",
    }


def test_the_same_distribution_written_in_several_options_is_one_parameter(tmp_path: Path) -> None:
    written_out = """
  pretrain:
    choice:
      - {task: {name: masking, masking_ratio: 0.5}, epochs: 2, batch_size: 2, lr: {uniform: [1, 2]}}
      - {task: {name: denoising}, epochs: 2, batch_size: 2, lr: {uniform: [1, 2]}}
"""
    names = dict(listed(load(tmp_path, written_out).body))
    assert [*names] == ["pretrain", "pretrain.lr", "finetune.lr"]
    names = dict(listed(load(tmp_path, written_out.replace("[1, 2]", "[1, 3]", 1)).body))
    assert [*names][1:3] == ["pretrain.masking.lr", "pretrain.denoising.lr"]


def test_a_sampler_is_asked_what_is_listed(tmp_path: Path) -> None:
    space = load(tmp_path)
    shared = {"pretrain.lr": 2e-3, "finetune.lr": 1e-3}
    for option, own in {
        "masking": {"pretrain.masking.task.masking_ratio": 0.3},
        "denoising": {"pretrain.denoising.task.noise_scale": 0.3},
    }.items():
        fixed = FixedTrial({"pretrain": option, **own, **shared})
        trial = space.propose(fixed)
        assert fixed.params.keys() == {"pretrain", *own, *shared}
        assert trial.pretraining is not None
        assert (trial.pretraining.task.name, trial.pretraining.lr) == (option, 2e-3)
    assert space.propose(FixedTrial({"pretrain": "scratch", "finetune.lr": 1e-3})).pretrain is None


@pytest.mark.parametrize(
    ("options", "place", "labels"),
    [
        ([1, 2.5, "x", None], "finetune.frames", [1, 2.5, "x", None]),
        ([None, {"from": "out/work/pretrain-ab/"}], "pretrain", ["scratch", "pretrain-ab"]),
        ([{"name": "egnn"}, {"name": "egnn", "layers": 2}], "model", ["egnn", "egnn 2"]),
        (
            [
                {"pretrain": None, "model": {"name": "egnn"}},
                {"pretrain": {"task": {"name": "masking"}}, "model": {"name": "egnn"}},
                {"pretrain": None, "model": {"name": "gns"}},
            ],
            "",
            ["scratch egnn", "masking egnn", "scratch gns"],
        ),
        ([{"epochs": 1}, {"epochs": 2}], "finetune", ["option", "option 2"]),
    ],
)
def test_labels_come_from_the_content(options: list[Any], place: str, labels: list[Any]) -> None:
    assert labels_of([as_block(each) for each in options], place) == labels


def test_what_may_not_be_laid_over_keys_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        load(tmp_path, PRETRAIN.replace("- null", "- 3"))
    assert refused.value.problems[0].endswith(
        "`choice` beside other keys takes blocks to lay over these, or null in their place"
    )


@pytest.mark.parametrize(
    "item", ["{weight: {uniform: [1, 2]}}", "{choice: [{weight: 1}, {weight: 2}]}", "[{normal: 1}]"]
)
def test_a_distribution_within_a_list_is_refused_in_a_line(tmp_path: Path, item: str) -> None:
    space = f"""
  pretrain:
    task: {{name: multi_task, tasks: [{item}, {{weight: {{uniform: [1, 2]}}}}]}}
    epochs: 2
    batch_size: 2
"""
    with pytest.raises(UserError) as refused:
        load(tmp_path, space)
    (problem,) = refused.value.problems
    assert ": trial.pretrain.task.tasks: a list takes no distributions within it; write" in problem
