"""What population-based training takes, and what it refuses in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core.errors import UserError
from study.space.search.population import PopulationBased
from study.space.search_space import Space, load_space

SPACE = """\
question: Which rates, and when?
seeds: [0]
search: {trials: 8, sampler: {name: pbt, interval: 2}}
trial:
  dataset: {name: tip3p_water}
  model: {name: egnn}
  pretrain: {task: {name: masking, masking_ratio: 0.5}, epochs: 1, batch_size: 2}
  finetune:
    task: {name: energy_forces}
    epochs: 5
    batch_size: 2
    lr: {loguniform: [1e-4, 1e-2]}
profiles: {quick: }
"""


RATES = "{loguniform: [1e-4, 1e-2]}"


def load(folder: Path, old: str = "", new: str = "") -> Space:
    assert old in SPACE
    (folder / "pbt.yaml").write_text(SPACE.replace(old, new, 1))
    return load_space(str(folder / "pbt.yaml"), "quick")


def test_a_space_may_search_all_that_can_change_midway(tmp_path: Path) -> None:
    more = """
    min_lr: {choice: [0, 1e-5]}
    weight_decay: {uniform: [0, 0.1]}
    clip_norm: {choice: [null, 1]}
    task:
      name: energy_forces
      energy_weight: {loguniform: [1e-3, 1]}
      force_weight: {choice: [1, 10]}"""
    space = load(tmp_path, "\n    task: {name: energy_forces}", more)
    search = space.settings.search
    assert search is not None
    assert search.population == PopulationBased(interval=2)
    assert search.population.bounds(5) == [(0, 2), (2, 4), (4, 5)]
    assert search.population.bounds(4) == [(0, 2), (2, 4)]


def test_its_name_alone_takes_the_usual_options(tmp_path: Path) -> None:
    (tmp_path / "pbt.yaml").write_text(
        SPACE.replace("{name: pbt, interval: 2}", "pbt").replace("epochs: 5", "epochs: 6")
    )
    search = load_space(str(tmp_path / "pbt.yaml"), "quick").settings.search
    assert search is not None
    assert search.population == PopulationBased()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("batch_size: 2\n    lr", "batch_size: {choice: [1, 2]}\n    lr", ":11: trial.finetune.ba"),
        ("epochs: 5", "epochs: {choice: [5, 6]}", ":10: trial.finetune.epochs: cannot change in"),
        ("epochs: 5", "warmup: {uniform: [0, 1]}\n    epochs: 5", "trial.finetune.warmup: cannot"),
        ("epochs: 5", "ema: {choice: [0.9, 0.99]}\n    epochs: 5", "trial.finetune.ema: cannot"),
        ("epochs: 5", "layer_decay: {choice: [1, 0.9]}\n    epochs: 5", "layer_decay: cannot"),
        ("ratio: 0.5", "ratio: {uniform: [0.2, 0.5]}", ":7: trial.pretrain.task.masking_ratio: ca"),
        (RATES, "1e-3", "search.sampler: needs distributions of what"),
        (
            RATES,
            "{choice: [1e-3, {loguniform: [1e-4, 1e-3]}]}",
            "lr: takes whole options or one range",
        ),
        ("interval: 2", "interval: 5", "search.sampler.interval: must be < 5, the epochs of"),
        ("interval: 2", "quantile: 0.6", "search.sampler.quantile: must be <= 0.5, but got 0.6"),
        ("interval: 2", "population: 8", "search.sampler.population: unknown key"),
        ("trials: 8", "trials: 1", "search.trials: must be >= 2, a population, but got 1"),
        ("trials: 8", "trials: 8, at_most: {seconds: 3}", "search.at_most: must be left out with"),
        ("trials: 8", "trials: 8, learn_from: x.csv", "search.learn_from: must be left out with"),
        (
            "trials: 8",
            "trials: 8, objectives: [val_force_rmse, seconds]",
            "search.objectives: must be left out with `pbt`",
        ),
        ("trials: 8", "trials: 8, start_with: [{finetune.lr: 1.0}]", "finetune.lr: must be 0.0001"),
        (
            "seeds:",
            "early_stopping: {grace_epochs: 1}\nseeds:",
            ":2: early_stopping: must be left out with `pbt`, which replaces what is bad by its",
        ),
        (
            "seeds:",
            "early_stopping: {name: median}\nseeds:",
            "which replaces what is bad by itself",
        ),
        (
            "{name: pbt, interval: 2}",
            "pb2",
            "`pb2` is not offered: its parts in Ray are private; t",
        ),
    ],
)
def test_what_does_not_suit_it_is_refused_in_a_line(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        load(tmp_path, old, new)
    assert len(refused.value.problems) == 1
    assert told in refused.value.problems[0]
