"""Tables of hand-written studies with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.arms import excluded, included
from analysis.comparisons.cost import cost, reuse
from analysis.comparisons.error_tables import (
    differing,
    early_errors,
    final_errors,
    is_ablation,
    pretext,
    results,
)
from analysis.formatting import energy, operations
from analysis.html.headline import headline
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from study.core.records import Tag

Build = Callable[..., Run]


@pytest.fixture
def ablation(
    tabulate: Callable[..., Study], scratch: Build, masked: Build, pretrained: Build
) -> Study:
    """Scratch 0.10, 0.20, 0.30 eV/Å; masking takes off 10, 19 and 10 %; two trials go wrong."""
    trials = [scratch(0, 0, 0.1), scratch(1, 1, 0.2), scratch(2, 2, 0.3)]
    trials += [masked(3, 0, 0.5, 0.09), masked(4, 1, 0.5, 0.162), masked(5, 2, 0.5, 0.27)]
    trials += [masked(6, 3, 0.5, 9.0, status="diverged"), scratch(7, 3, 0.1, status="running")]
    return tabulate(*trials, *(pretrained(seed, 0.5, 0.2 + seed / 10) for seed in range(3)))


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


def test_what_went_wrong_is_listed_and_not_imputed(ablation: Study) -> None:
    rows = excluded(ablation).set_index("number")
    assert list(rows.index) == [6, 7]
    assert rows.reason[6] == "it diverged in epoch 2"
    assert rows.reason[7] == "still running, or its process died"
    assert set(included(ablation).number) == set(range(6))


def test_an_infinite_test_error_excludes_a_completed_trial(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    study = tabulate(scratch(0, 0, 0.1), scratch(1, 1, math.inf))
    assert excluded(study).reason.item() == "completed, but without a finite test force_rmse"


def test_an_arm_is_compared_with_scratch_of_its_own_setting(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    trials = [
        build(number, 0, *ratio, force, **{"finetune.epochs": epochs})
        for number, (build, ratio, force, epochs) in enumerate(
            [(scratch, (), 0.4, 10), (scratch, (), 0.2, 20), (masked, (0.5,), 0.1, 20)]
        )
    ]
    rows = final_errors(tabulate(*trials)).query("quantity == 'force_rmse'").set_index("arm")
    assert rows.change["masking 0.5, 20 epochs"] == pytest.approx(-50)


def test_results_show_the_settings_that_vary(ablation: Study) -> None:
    table = results(ablation)
    assert list(table.columns[:4]) == ["number", "pretrain.task.masking_ratio", "seed", "status"]
    assert len(table) == 8


def test_sharing_saves_all_but_the_first_use(
    tabulate: Callable[..., Study], masked: Build, pretrained: Build
) -> None:
    trials = [masked(n, 0, 0.5, 0.1, **{"finetune.lr": 10.0**-n}) for n in range(3)]
    study = tabulate(*trials, pretrained(0, 0.5, 0.2))
    assert reuse(study)[["trials", "saved_seconds"]].to_numpy().tolist() == [[3, 20.0]]
    assert cost(study).seconds.tolist() == [10.0, 90.0]


def test_epochs_that_pretrainings_share_are_paid_once(
    tabulate: Callable[..., Study], masked: Build, pretrained: Build
) -> None:
    whole = {Tag.WHOLE: "w" * 64}
    short, long = (pretrained(0, ratio, 0.2, **whole) for ratio in (0.25, 0.5))
    long.points[-1] = Point("seconds", 0, 25.0)
    trials = [masked(0, 0, 0.25, 0.1), masked(1, 0, 0.5, 0.1), masked(2, 0, 0.5, 0.2)]
    study = tabulate(*trials, short, long)
    table = reuse(study).sort_values("seconds")
    assert table[["seconds", "saved_seconds"]].to_numpy().tolist() == [[10.0, 0.0], [15.0, 35.0]]
    assert cost(study).seconds.tolist() == [25.0, 90.0]


def test_an_audit_costs_only_what_it_added_to_the_stopped_trial(
    tabulate: Callable[..., Study], masked: Build, audited: Build, pretrained: Build
) -> None:
    stopped = [masked(n, 0, 0.5, 0.3, status="stopped") for n in range(2)]
    for run in stopped:
        run.points.extend([Point("finetune/seconds", 2, 12.0), Point("finetune/flops", 2, 2e9)])
    # One went on from the trial's checkpoint; the other found none and began anew.
    late, anew = audited(0, 0, 0.5, 0.2), audited(1, 0, 0.5, 0.2)
    late.points.append(Point("flops", 0, 5e9))
    anew.points[:] = [p._replace(value=8.0) if p.metric == "seconds" else p for p in anew.points]
    anew.points.append(Point("flops", 0, 1e9))
    study = tabulate(*stopped, late, anew, pretrained(0, 0.5, 0.2), search={"trials": 2})
    table = cost(study).set_index("stage")
    assert table.seconds.to_dict() == {"pretraining": 10, "finetuning": 24, "audit": 18 + 8}
    assert table.flops["audit"] == pytest.approx(3e9 + 1e9)
    assert math.isnan(table.flops["pretraining"])


def test_costs_are_told_in_fitting_units() -> None:
    assert [operations(x) for x in (0.0, 999.0, 1.5e12)] == ["0 FLOP", "999 FLOP", "1.50 TFLOP"]
    assert [energy(x) for x in (1500.0, 7.2e6, math.nan)] == ["1.50 kJ", "2.00 kWh", "–"]


def test_the_headline_names_what_was_found(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    errors = enumerate((0.090, 0.089, 0.091))
    trials = [run for n, e in errors for run in (scratch(n, n, 0.1), masked(n + 3, n, 0.5, e))]
    found = headline(tabulate(*trials))
    assert found.sentence == "Pretraining lowered the final force error: masking 0.5."
    assert found.details[0][1] == [("masking 0.5: lower", "−10.0 % [−12.5, −7.5], n = 3")]


def test_two_seeds_are_too_few_for_a_verdict(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    trials = [
        scratch(0, 0, 0.2),
        scratch(1, 1, 0.2),
        masked(2, 0, 0.5, 0.1),
        masked(3, 1, 0.5, 0.1),
    ]
    assert headline(tabulate(*trials)).sentence.startswith("Too few seeds to tell")


def test_of_a_search_only_repeated_arms_are_compared(
    tabulate: Callable[..., Study], masked: Build, scratch: Build
) -> None:
    trials = [masked(n, 0, n / 20, n / 100) for n in range(1, 12)]
    study = tabulate(scratch(0, 0, 0.5), *trials, search={"trials": 12})
    assert not is_ablation(study)
    assert "best of 12 settings" in headline(study).sentence


def test_a_search_is_judged_by_validation(tabulate: Callable[..., Study], masked: Build) -> None:
    trials = [masked(n, 0, n / 20, n / 100) for n in range(1, 12)]
    lucky = masked(12, 0, 0.9, 0.2)
    lucky.points[:] = [p._replace(value=1e-3) if "test" in p.metric else p for p in lucky.points]
    found = headline(tabulate(*trials, lucky, search={"trials": 12}))
    assert found.details == (("Best in validation", [("masking 0.05", "n = 1")]),)


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
