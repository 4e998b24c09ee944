"""Proposals for every arm: drawn by hand here, and equal for all."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from study.core.errors import UserError
from study.space.search_space import Space, load_space
from study.space.settings import Tune
from study.space.tuning import draw, identity_of_arm

SPACE = """\
question: Which arm, tuned alike?
seeds: [0, 1]
tune:
  each_arm: {finetune.lr: {loguniform: [1e-4, 1e-2]}}
  proposals: 5
trial:
  dataset: {name: tip3p_water}
  model: {name: egnn}
  finetune: {task: {name: energy_forces}, epochs: 9, batch_size: 2}
  pretrain: {task: {name: masking, masking_ratio: 0.5}, epochs: 2, batch_size: 2}
  choice:
    - {}
    - pretrain: {task: {placebo: true}}
    - {pretrain: null, finetune: {epochs: 11}}
"""


def load(tmp_path: Path, *replacements: tuple[str, str], text: str = SPACE) -> Space:
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "tuned.yaml"
    path.write_text(text)
    return load_space(str(path), None)


def tune(**settings: Any) -> Tune:
    return Tune.model_validate(settings)


def test_a_range_is_cut_evenly_in_its_logarithm_ends_included() -> None:
    drawn = draw(tune(each_arm={"finetune.lr": {"loguniform": [1e-4, 1e-2]}}, proposals=5))
    assert drawn == [{"finetune.lr": lr} for lr in (1e-4, 3.162e-4, 1e-3, 3.162e-3, 1e-2)]


def test_each_value_of_each_range_is_proposed_once_by_the_seed_of_tuning() -> None:
    each_arm = {
        "finetune.lr": {"loguniform": [1e-4, 1e-2]},
        "finetune.clip_norm": {"uniform": [1, 2]},
        "finetune.batch_size": {"integer": [2, 8]},
    }
    drawn = draw(tune(each_arm=each_arm, proposals=3, seed=7))
    assert [values["finetune.lr"] for values in drawn] == [1e-4, 1e-3, 1e-2]
    assert sorted(values["finetune.clip_norm"] for values in drawn) == [1.0, 1.5, 2.0]
    assert sorted(values["finetune.batch_size"] for values in drawn) == [2, 5, 8]
    assert draw(tune(each_arm=each_arm, proposals=3, seed=7)) == drawn
    many = [draw(tune(each_arm=each_arm, proposals=3, seed=seed)) for seed in range(9)]
    assert len({str(each) for each in many}) > 3


def test_choices_alone_are_a_grid_of_all() -> None:
    each_arm = {"finetune.lr": {"choice": [1e-3, 1e-2]}, "finetune.clip_norm": {"choice": [1, 2]}}
    pairs = [tuple(values.values()) for values in draw(tune(each_arm=each_arm))]
    assert pairs == [(1e-3, 1), (1e-3, 2), (1e-2, 1), (1e-2, 2)]


def test_every_arm_gets_the_same_proposals_on_the_seed_of_tuning(tmp_path: Path) -> None:
    space = load(tmp_path)
    tried = defaultdict(list)
    for trial, values in space.tuning():
        assert trial.seed == 100
        assert values == {"finetune.lr": trial.finetune.lr}
        tried[identity_of_arm(trial, ["finetune.lr"])].append(trial.finetune.lr)
    # Scratch twice, masking, placebo; both seeds of an arm are one arm.
    assert len(tried) == 4
    assert {tuple(lrs) for lrs in tried.values()} == {(1e-4, 3.162e-4, 1e-3, 3.162e-3, 1e-2)}
    assert {identity_of_arm(trial, ["finetune.lr"]) for trial in space.grid()} == set(tried)


def test_an_arm_from_scratch_is_tuned_in_what_it_has_with_as_many_values(tmp_path: Path) -> None:
    both = "{pretrain.lr: {loguniform: [1e-3, 1e-1]}, finetune.lr: {loguniform: [1e-4, 1e-2]}}"
    space = load(tmp_path, ("{finetune.lr: {loguniform: [1e-4, 1e-2]}}", both))
    scratch = [(t, v) for t, v in space.tuning() if t.pretrain is None and t.finetune.epochs == 9]
    pretrained = [(t, v) for t, v in space.tuning() if t.pretraining]
    assert {frozenset(values) for _, values in scratch} == {frozenset(["finetune.lr"])}
    assert sorted(t.finetune.lr for t, _ in scratch) == [1e-4, 3.162e-4, 1e-3, 3.162e-3, 1e-2]
    assert all(t.pretraining and t.pretraining.lr == v["pretrain.lr"] for t, v in pretrained)
    assert len(pretrained) == 10


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("proposals: 5", "proposals: 1", 5, "must be >= 2"),
        ("  proposals: 5\n", "", 4, "must say how many values"),
        ("proposals: 5", "proposals: 5\n  seed: 1", 6, "none of the reported seeds, but got 1"),
        ("finetune.lr:", "trial.finetune.lr:", 4, "write finetune.lr"),
        ("finetune.lr:", "finetune.rate:", 3, "trial.finetune.rate: unknown key"),
        ("finetune.lr:", "finetune.task.auxiliary.weight:", 3, "trial.finetune.task.auxiliary"),
        ("finetune.lr:", "dataset.molecules:", 4, "must be a setting of training"),
        ("finetune.lr:", "pretrain.lr:", 3, "leaves nothing to tune of an arm from scratch"),
        ("[1e-4, 1e-2]", "[1e-2, 1e-4]", 4, "0 < low < high"),
        ("[1e-4, 1e-2]", "[1e-9, 1e-2]", 3, "min_lr"),
        ("{loguniform: [1e-4, 1e-2]}", "{choice: [1e-3]}", 5, "must be left out"),
        ("{loguniform: [1e-4, 1e-2]}", "{low: [1e-3]}", 4, "must be a distribution"),
        ("finetune.lr: {loguniform: [1e-4, 1e-2]}", "finetune.epochs: {integer: [2, 9]}", 3, ""),
        ("tune:\n", "search: {trials: 3}\ntune:\n", 4, "left out of a search"),
        ("tune:\n", "early_stopping: {}\ntune:\n", 4, "early_stopping"),
    ],
)
def test_bad_tuning_is_told_in_a_line(
    tmp_path: Path, old: str, new: str, line: int, told: str
) -> None:
    with pytest.raises(UserError, match=rf"tuned.yaml:{line}: ") as error:
        load(tmp_path, (old, new))
    assert told in str(error.value)
    assert "\n" not in error.value.problems[0]
