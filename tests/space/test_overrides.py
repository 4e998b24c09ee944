"""`--set` reaches the key that it names, or says why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.core.errors import UserError
from study.space.overrides import parse_change
from study.space.search_space import Space, load_space


def space(*changes: str) -> Space:
    return load_space("masking_ratio", "quick", [parse_change(change) for change in changes])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("trial.finetune.epochs=5", {5}),
        ("trial.finetune={task: {name: energy_forces}, epochs: 7, batch_size: 2}", {7}),
        ("trial.finetune.epochs={choice: [2, 3]}", {2, 3}),
    ],
)
def test_a_change_reaches_every_trial(change: str, expected: set[int]) -> None:
    assert {trial.finetune.epochs for trial in space(change).grid()} == expected


@pytest.mark.parametrize(
    ("change", "above"),
    [
        ("trial.pretrain.task.masking_ratio.choice=5", "trial.pretrain.task.masking_ratio"),
        ("trial.pretrain.task.masking_ratio.x.y=5", "trial.pretrain.task.masking_ratio"),
        ("question.x=5", "question"),
        ("seeds.0=1", "seeds"),
        ("trial.model.name.x=5", "trial.model.name"),
        ("trial.finetune.epochs.x.y.z=5", "trial.finetune.epochs"),
    ],
)
def test_a_key_below_a_value_is_refused_naming_the_value(change: str, above: str) -> None:
    with pytest.raises(UserError) as refused:
        space(change)
    (problem,) = refused.value.problems
    assert problem.startswith(f"--set {change.partition('=')[0]}: `{above}` is ")
    assert problem.endswith(f"set `{above}` itself")


def test_options_of_a_choice_that_are_blocks_are_changed_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "question: q\nseeds: [0]\ntrial:\n"
        "  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 6}\n"
        "  model: {choice: [{name: egnn, hidden: 8}, {name: gns, hidden: 8}]}\n"
        "  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 3}\n"
        "profiles: {quick: null}\n"
    )
    changes: list[tuple[list[str], Any]] = [parse_change("trial.model.hidden=16")]
    changed = load_space(str(tmp_path / "space.yaml"), "quick", changes)
    assert [trial.model.hidden for trial in changed.grid()] == [16, 16]
