"""Errors of hand-written studies with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.error_tables import (
    differing,
    early_errors,
    final_errors,
    pretext,
    results,
)
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]


def test_final_errors_are_means_in_milli_units(ablation: Study) -> None:
    scratch, masked = final_errors(ablation).query("quantity == 'force_rmse'").to_dict("records")
    assert (scratch["arm"], scratch["n"], scratch["unit"]) == ("from scratch", 3, "meV/Å")
    assert (scratch["mean"], scratch["std"]) == pytest.approx((200, 100))
    assert scratch["trivial"] == pytest.approx(600)
    assert math.isnan(scratch["change"])
    assert (masked["arm"], masked["pairs"]) == ("masking 0.5", 3)
    assert masked["change"] == pytest.approx(100 * (0.9 ** (4 / 3) - 1))


def test_energies_are_per_atom_and_per_frame(ablation: Study) -> None:
    means = final_errors(ablation).query("arm == 'from scratch'").set_index("unit")["mean"]
    assert means["meV/atom"] == pytest.approx(2)
    assert means["meV/frame"] == pytest.approx(200)


def test_early_errors_are_those_of_the_first_epoch(ablation: Study) -> None:
    scratch = early_errors(ablation).query("quantity == 'force_rmse' and arm == 'from scratch'")
    assert scratch["mean"].item() == pytest.approx(200 * 4**0.75)


def test_pretext_is_the_last_loss_of_each_pretraining(ablation: Study) -> None:
    (row,) = pretext(ablation).to_dict("records")
    assert (row["ratio"], row["n"]) == (0.5, 3)
    assert (row["mean"], row["std"]) == pytest.approx((0.3, 0.1))


def test_results_show_the_settings_that_vary(ablation: Study) -> None:
    table = results(ablation)
    assert list(table.columns[:4]) == ["number", "pretrain.task.masking_ratio", "seed", "status"]
    assert len(table) == 8


def test_settings_of_a_task_that_some_trials_lack_tell_only_what_it_is(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    beside = {"name": "denoising", "noise_scale": 0.1, "center": False}
    named = {f"finetune.task.auxiliary.task.{name}": value for name, value in beside.items()}
    runs = [scratch(0, 0, 0.1), scratch(1, 0, 0.1, **named)]
    assert differing(tabulate(*runs)) == ["finetune.task.auxiliary.task.name"]
    wider = named | {"finetune.task.auxiliary.task.noise_scale": 0.2}
    found = differing(tabulate(*runs, scratch(2, 0, 0.1, **wider)))
    assert found == [f"finetune.task.auxiliary.task.{name}" for name in ("name", "noise_scale")]
