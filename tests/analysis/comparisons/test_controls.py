"""Each pretrained arm against its controls."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.controls import compare_with_controls, final
from analysis.comparisons.outcomes import compared
from analysis.comparisons.quantities import FORCE
from analysis.html.headline import headline
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_every_pretrained_arm_stands_beside_all_it_must_beat(extended: Study) -> None:
    rows = compare_with_controls(final(compared(extended), FORCE)).set_index("kind")
    assert list(rows.index) == ["scratch", "equal steps", "equal compute", "placebo"]
    assert rows.change["scratch"] == pytest.approx(-10)
    assert rows.change["equal steps"] == pytest.approx(12.5)
    assert rows.change["placebo"] == pytest.approx(-10)
    assert rows.reference["equal steps"] == "from scratch, 8 epochs"


def test_equal_compute_lies_between_the_lengths_of_scratch(extended: Study) -> None:
    trials = compared(extended).groupby("arm")["compute"].median()
    assert trials["from scratch, 4 epochs"] == 30
    assert trials["from scratch, 8 epochs"] == 60
    assert trials["masking 0.9, 4 epochs"] == 40
    share = math.log(40 / 30) / math.log(2)
    rows = compare_with_controls(final(compared(extended), FORCE)).set_index("kind")
    expected = 0.09 / (0.1 * 0.8**share) - 1
    assert rows.change["equal compute"] == pytest.approx(100 * expected)


def test_a_task_beside_finetuning_is_compared_with_scratch_and_its_placebo(
    tabulate: Tabulate, scratch: Build
) -> None:
    noisy = {
        "finetune.task.auxiliary.task.name": "denoising",
        "finetune.task.auxiliary.task.noise_scale": 0.1,
        "finetune.task.auxiliary.weight": 0.01,
        "finetune.task.auxiliary.task.placebo": False,
    }
    fake = noisy | {
        "finetune.task.auxiliary.task.placebo": True,
        "finetune.task.auxiliary.weight": 0.1,
    }
    runs = [
        scratch(10 * place + seed, seed, error, **settings)
        for place, (error, settings) in enumerate([(0.1, {}), (0.08, noisy), (0.1, fake)])
        for seed in SEEDS
    ]
    study = tabulate(*runs)
    rows = compare_with_controls(final(compared(study), FORCE))
    arm = "auxiliary denoising 0.1 at weight 0.01"
    assert set(rows.arm) == {arm}
    told = f"A{arm[1:]} lowers the test force RMSE by 20.0"
    assert headline(study).sentence.startswith(told)
    assert rows.set_index("kind").change[["scratch", "placebo"]].tolist() == pytest.approx(
        [-20] * 2
    )
