from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from analysis.statistics.change import paired_change
from analysis.statistics.verdict import verdict
from study.console.result_table import result_table, search_tables
from study.core.records import JobResult
from study.pipeline.job import Job
from study.planning.arms import arms
from study.space.trial import Trial

FILE = {"name": "n2p2_file", "path": "input.data"}
WATER = {"name": "tip3p_water"}


def ended(
    force: float,
    *,
    ratio: float | None = None,
    seed: int = 0,
    dataset: dict[str, Any] = WATER,
    status: Any = "completed",
    placebo: bool = False,
    own: float | None = None,
    stress: float | None = None,
    **finetune: Any,
) -> tuple[Job, JobResult]:
    stage = {"epochs": 1, "batch_size": 1}
    masking = {"task": {"name": "masking", "masking_ratio": ratio, "placebo": placebo}}
    trial = {
        "dataset": dataset,
        "model": {"name": "egnn"},
        "pretrain": stage | masking if ratio else None,
        "finetune": stage | {"task": {"name": "energy_forces"}} | finetune,
        "seed": seed,
    }
    metrics = {
        "test_force_rmse": force,
        "test_energy_rmse": 0.001,
        "trivial_force_rmse": 0.6,
        "trivial_energy_rmse": 0.003,
    }
    if own is not None:
        metrics |= {"test_worst_forces": own, "trivial_worst_forces": 2.0}
    if stress is not None:
        metrics |= {"test_stress_rmse": stress, "trivial_stress_rmse": 0.004}
    work = Job("trial", Trial.model_validate(trial), "d", "c")
    return work, JobResult(status, metrics=metrics if status == "completed" else {})


def lines(*trials: tuple[Job, JobResult], metric: str = "val_force_rmse") -> list[str]:
    console = Console(width=200, file=None, record=True, quiet=False)
    with console.capture() as shown:
        console.print(result_table(arms(trials, metric=metric)))
    return [" ".join(line.split()) for line in shown.get().splitlines()]


def test_changes_are_paired_by_seed() -> None:
    shown = lines(
        ended(0.1), ended(0.4, seed=1), ended(0.05, ratio=0.5), ended(0.2, ratio=0.5, seed=1)
    )
    assert "egnn scratch 2/2 250 ± 212 1 ± 0" in shown
    assert "egnn masking 0.5 2/2 125 ± 106 -50.0 % [-50.0, -50.0] 1 ± 0" in shown
    assert "too few seeds" in shown


def test_errors_of_stresses_are_shown_where_a_trial_has_them() -> None:
    shown = lines(ended(0.1, ratio=0.5), ended(0.2, stress=0.0015))
    assert "egnn scratch 1/1 200 1 1.5" in shown
    assert "egnn masking 0.5 1/1 100 -50.0 % 1 –" in shown
    assert "zero force, mean energy 600 3 4" in shown
    assert not any("stress" in line for line in lines(ended(0.1)))
    pairs = [ended(0.1, seed=s, stress=0.001) for s in range(4)]
    pairs += [ended(0.1 + s / 50, seed=s, ratio=0.5, stress=0.002) for s in range(4)]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(result_table(arms(pairs)))
    intervals = re.findall(r"\[.*?\]", captured.get(), re.DOTALL)
    assert len(intervals) == 1
    assert "\n" not in intervals[0]


def test_a_metric_of_ones_own_that_ranks_comes_first_and_decides() -> None:
    plain = [ended(0.1, own=1.5, seed=seed) for seed in (0, 1)]
    masked = [ended(0.2, own=0.75, ratio=0.5, seed=seed) for seed in (0, 1)]
    shown = lines(*plain, *masked, metric="val_worst_forces")
    assert "worst forces against force RMSE" in shown
    assert "egnn masking 0.5 2/2 0.75 ± 0 -50.0 % [-50.0, -50.0] 200 ± 0" in shown
    assert "zero force, mean energy 2 ± 0 600 ± 0" in shown
    assert any("200 ± 0 +100.0 %" in line for line in lines(*plain, *masked))


@pytest.mark.parametrize("metric", ["val_worst", "val_mean"])
def test_a_metric_of_ones_own_that_ranks_does_not_hide_the_other(metric: str) -> None:
    work, _ = ended(0.1)
    found = JobResult("completed", metrics={"test_worst": 1.5, "test_mean": 0.25})
    (arm,) = arms([(work, found)], metric=metric)
    assert set(arm.errors) == {"worst", "mean"}
    assert arm.errors[0] == metric.removeprefix("val_")


def test_a_seed_without_its_partner_does_not_shift_the_change() -> None:
    failed = ended(0, seed=1, status="failed")
    shown = lines(ended(0.1), failed, ended(0.05, ratio=0.5), ended(9.0, ratio=0.5, seed=1))
    assert any(line.startswith("egnn scratch 1/2 100") for line in shown)
    assert any("-50.0 %" in line for line in shown)
    assert "too few seeds (1 of 2)" in shown


def test_what_diverged_is_the_worst_of_its_pair() -> None:
    good = [ended(0.1, seed=seed) for seed in range(8)]
    few = [ended(0.09, ratio=0.5, seed=seed) for seed in range(7)]
    lost = ended(0, ratio=0.5, seed=7, status="diverged")
    shown = lines(*good, *few, lost)
    assert any("7/8 90 ± 0 -10.0 % [-10.0, > +999] 1" in line for line in shown)
    assert "inconclusive (7 of 8)" in shown
    many = [ended(0, ratio=0.5, seed=seed, status="diverged") for seed in range(3, 8)]
    shown = lines(*good, *few[:3], *many)
    assert any("3/8 90 ± 0 – 1" in line for line in shown)
    assert "no verdict (3 of 8)" in shown


@pytest.mark.parametrize("seeds", [3, 8])
def test_changes_have_the_intervals_and_words_of_the_report(seeds: int) -> None:
    scratch = pd.Series([0.1 + 0.003 * seed for seed in range(seeds)])
    by_arm = {0.5: scratch * 0.8, 0.9: scratch.where(scratch.index > 0, 0.14)}
    placebo = [
        ended(0.3, ratio=0.5, seed=seed, placebo=True) for seed in range(seeds)
    ]  # A control, whose interval is another family's.
    trials = [ended(error, seed=int(seed)) for seed, error in scratch.items()]
    for ratio, errors in by_arm.items():
        trials += [ended(error, ratio=ratio, seed=int(seed)) for seed, error in errors.items()]
    shown = lines(*trials, *placebo)
    for ratio, errors in by_arm.items():
        change = paired_change(errors, scratch, family=len(by_arm))
        text = f"{change.percent:+.1f} % [{change.low:+.1f}, {change.high:+.1f}]"
        (place,) = (n for n, line in enumerate(shown) if f"egnn masking {ratio} {seeds}" in line)
        assert text in shown[place]
        assert shown[place + 1] == str(verdict(change))


def test_longer_training_from_scratch_is_compared_with_the_shortest() -> None:
    shown = lines(ended(0.1), ended(0.05, epochs=3), ended(0.08, ratio=0.5))
    assert any("egnn scratch, finetune.epochs 3 1/1 50 -50.0 %" in line for line in shown)
    assert any("egnn masking 0.5, finetune.epochs 1 1/1 80 -20.0 %" in line for line in shown)


def test_a_search_shows_repeats_apart_and_trials_of_one_seed_best_first() -> None:
    trials = [
        *(ended(0.3 - 0.01 * seed, ratio=0.5, seed=seed) for seed in range(3)),
        *(ended(0.4, seed=seed) for seed in range(3)),
        ended(0.2, ratio=0.7),
        ended(0.7, ratio=0.1),
        ended(0, ratio=0.2, status="stopped"),
        ended(0, ratio=0.3, status="stopped"),
        ended(0, ratio=0.4, status="diverged"),
    ]
    console = Console(width=120)
    with console.capture() as captured:
        for table in search_tables(arms(trials), 0):
            console.print(table)
    shown = [" ".join(line.split()) for line in captured.get().splitlines()]
    repeated, ranked = "\n".join(shown).split("Trials with seed 0")
    assert "egnn masking 0.5 3/3 290 ± 10" in repeated
    assert "egnn masking 0.7" not in repeated
    first = [line.rpartition(" 1")[0] for line in ranked.splitlines() if line.startswith("egnn")]
    assert first[:3] == ["egnn masking 0.7 200", "egnn masking 0.5 300", "egnn scratch 400"]
    assert "egnn masking 0.1 700 ! 1" in ranked
    assert "masking 0.2" not in ranked
    assert "2 stopped early, 1 diverged" in ranked


def test_trials_of_other_seeds_are_compared_by_their_share_of_the_trivial_error() -> None:
    one, other = ended(0.06), ended(0.12, ratio=0.5, seed=1)
    other[1].metrics["trivial_force_rmse"] = 1.2
    shown = lines(one, other)
    assert any(line.startswith("egnn scratch") and line.endswith("0 0.100") for line in shown)
    assert any(line.startswith("egnn masking 0.5") and line.endswith("1 0.100") for line in shown)
    assert any(line.startswith("zero force, mean energy 600 to 1200") for line in shown)


def test_errors_worse_than_predicting_nothing_are_marked() -> None:
    worse = ended(0.1, ratio=0.5)
    worse[1].metrics["test_energy_rmse"] = 0.0031
    shown = lines(ended(0.1), worse)
    assert any(line.startswith("egnn masking 0.5") and line.endswith("3.1 !") for line in shown)
    assert "! worse than predicting zero force, or the mean" in shown


def test_each_arm_is_compared_with_scratch_of_the_same_setting() -> None:
    shown = lines(
        ended(0.1, lr=1e-3),
        ended(0.2, lr=2e-3),
        ended(0.05, ratio=0.5, lr=1e-3),
        ended(0.05, ratio=0.5, lr=2e-3),
    )
    assert any(
        line.startswith("egnn masking 0.5, finetune.lr 0.001 1/1 50 -50.0 %") for line in shown
    )
    assert any(
        line.startswith("egnn masking 0.5, finetune.lr 0.002 1/1 50 -75.0 %") for line in shown
    )


@pytest.mark.parametrize("ratio", [None, 0.5])
def test_data_sets_are_told_apart_by_name_and_not_by_all_that_follows(ratio: float | None) -> None:
    shown = lines(ended(0.1, ratio=ratio), ended(0.2, ratio=ratio, dataset=FILE))
    arm = "masking 0.5" if ratio else "scratch"
    assert any(line.startswith(f"egnn {arm}, dataset.name tip3p_water 1/1 100") for line in shown)
    assert any(line.startswith(f"egnn {arm}, dataset.name n2p2_file 1/1 200") for line in shown)
    assert sum(line.startswith("zero force, mean energy, data of egnn") for line in shown) == 2


def test_only_exceptions_are_told_of_what_most_arms_share() -> None:
    usual = [ended(0.1, lr=1e-3, epochs=number) for number in (1, 2, 3)]
    shown = lines(*usual, ended(0.1, lr=1e-3, clip_norm=2.0))
    assert [line.partition(" 1/1")[0] for line in shown if " 1/1" in line] == [
        "egnn scratch, finetune.epochs 1",
        "egnn scratch, finetune.epochs 2",
        "egnn scratch, finetune.epochs 3",
        "egnn scratch, finetune.epochs 1, finetune.clip_norm 2",
    ]


def test_a_task_beside_finetuning_is_told() -> None:
    beside = {"task": {"name": "denoising", "noise_scale": 0.1}, "weight": 0.1}
    noisy = {"name": "energy_forces", "auxiliary": beside}
    shown = lines(ended(0.1), ended(0.2, task=noisy), ended(0.3, ratio=0.5, task=noisy))
    assert [line for line in shown if " 1/1" in line] == [
        "egnn scratch 1/1 100 1",
        "egnn scratch + denoising 0.1 1/1 200 +100.0 % 1",
        "egnn masking 0.5 + denoising 0.1 1/1 300 +200.0 % 1",
    ]
    heavy = {"name": "energy_forces", "auxiliary": beside | {"weight": 0.2}}
    shown = lines(ended(0.1), ended(0.2, task=noisy), ended(0.3, task=heavy))
    assert [line.partition(" 1/1")[0] for line in shown if " 1/1" in line] == [
        "egnn scratch",
        "egnn scratch + denoising 0.1, weight 0.1",
        "egnn scratch + denoising 0.1, weight 0.2",
    ]
