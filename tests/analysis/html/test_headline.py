"""The result of a study in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from analysis.comparisons.error_tables import (
    is_ablation,
)
from analysis.html.headline import headline
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.core.records import Tag

Build = Callable[..., Run]


def test_the_headline_names_what_was_found(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    errors = enumerate((0.090, 0.089, 0.091))
    trials = [run for n, e in errors for run in (scratch(n, n, 0.1), masked(n + 3, n, 0.5, e))]
    found = headline(tabulate(*trials))
    assert found.sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        "Masking 0.5 lowers the test force RMSE by 10.0 % (95 % CI 7.5–12.5, n = 3 seeds)."
    )
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
    assert headline(tabulate(*trials)).sentence.startswith("Too few seeds for a verdict")


def test_the_seeds_that_are_needed_are_estimated_from_three_on(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    errors = ((0.2, 0.19), (0.2, 0.205), (0.2, 0.17))
    pairs = [
        (scratch(seed, seed, alone), masked(seed + 3, seed, 0.5, helped))
        for seed, (alone, helped) in enumerate(errors)
    ]
    two, three = (
        headline(tabulate(*(run for pair in pairs[:count] for run in pair))).remark
        for count in (2, 3)
    )
    assert "It takes 3 seeds to estimate how many find a 5 % change." in two
    assert "power" not in two
    assert re.search(r"Detecting a 5 % change with 80 % power needs \d+ seeds\.", three)


def test_of_a_search_only_repeated_arms_are_compared(
    tabulate: Callable[..., Study], masked: Build, scratch: Build
) -> None:
    trials = [masked(n, 0, n / 20, n / 100) for n in range(1, 12)]
    study = tabulate(scratch(0, 0, 0.5), *trials, search={"trials": 12})
    assert not is_ablation(study)
    assert "best of 12 settings" in headline(study).sentence


def test_the_best_of_a_search_is_that_of_all_that_were_judged(
    tabulate: Callable[..., Study], masked: Build, scratch: Build
) -> None:
    ends = ("completed", "stopped", "stopped", "diverged", "failed", "running", "completed")
    trials = [
        masked(n, 0, n / 20, 0.1, status=status, exempt=False) for n, status in enumerate(ends, 1)
    ]
    study = tabulate(scratch(0, 0, 0.5), *trials, search={"trials": 7})
    assert headline(study).sentence.startswith("The best of 6 settings")


def test_a_search_is_judged_by_validation(tabulate: Callable[..., Study], masked: Build) -> None:
    trials = [masked(n, 0, n / 20, n / 100) for n in range(1, 12)]
    lucky = masked(12, 0, 0.9, 0.2)
    lucky.points[:] = [p._replace(value=1e-3) if "test" in p.metric else p for p in lucky.points]
    found = headline(tabulate(*trials, lucky, search={"trials": 12}))
    assert found.details == (("Lowest validation error", [("masking 0.05", "n = 1")]),)


def of_eight(
    tabulate: Callable[..., Study], scratch: Build, masked: Build, diverged: tuple[int, int]
) -> Study:
    """Eight seeds; the first so many trials of masking and of scratch diverged; the rest −8 %."""
    runs = []
    for seed in range(8):
        status = ["diverged" if seed < count else "completed" for count in diverged]
        error = 0.1 + seed / 1000
        runs.append(scratch(seed, seed, error, status=status[1]))
        runs.append(masked(10 + seed, seed, 0.5, 0.92 * error, status=status[0]))
    return tabulate(*runs)


@pytest.mark.parametrize(
    ("diverged", "counts", "rate"),
    [
        ((5, 0), "from scratch 0 of 8 and masking 0.5 5 of 8", "inconclusive"),
        ((0, 4), "from scratch 4 of 8 and masking 0.5 0 of 8", "inconclusive"),
        ((0, 8), "from scratch 8 of 8 and masking 0.5 0 of 8", "less often"),
        ((8, 0), "from scratch 0 of 8 and masking 0.5 8 of 8", "more often"),
    ],
)
def test_what_diverged_is_told_and_the_rest_does_not_decide(
    diverged: tuple[int, int],
    counts: str,
    rate: str,
    tabulate: Callable[..., Study],
    scratch: Build,
    masked: Build,
) -> None:
    study = of_eight(tabulate, scratch, masked, diverged)
    found = headline(study)
    assert found.sentence == (
        "No verdict on the final force error: too many trials diverged."
        f" Diverged: {counts} (against the reference: masking 0.5 {rate})."
    )
    ((arm, numbers),) = found.details[0][1]
    assert arm == "masking 0.5: no verdict"
    told = f"{diverged[0]} of 8 diverged, of the reference {diverged[1]}"
    assert numbers == f"n = {8 - sum(diverged)}, {told}"


def test_one_of_eight_that_diverged_is_the_worst_of_eight(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    found = headline(of_eight(tabulate, scratch, masked, (1, 0)))
    # Rank sum 8 of 36 against: p = 0.195.
    assert found.sentence.startswith("Inconclusive: no significant effect of pretraining")
    assert "Diverged: from scratch 0 of 8 and masking 0.5 1 of 8" in found.sentence


def test_a_trial_whose_pretraining_diverged_diverged(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in range(3)]
    for seed in range(3):
        run = masked(10 + seed, seed, 0.5, 0.1, status="failed")
        run.tags[Tag.REASON] = "its pretraining diverged: the loss is not finite"
        runs.append(run)
    assert "masking 0.5 3 of 3" in headline(tabulate(*runs)).sentence


def test_energies_worse_than_their_mean_are_told(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in range(3)]
    runs += [masked(10 + seed, seed, 0.5, 0.1 + seed / 1000) for seed in range(3)]
    for run in runs[3:]:
        run.points[:] = [
            p._replace(value=9.0) if p.metric == "test_energy_rmse" else p for p in run.points
        ]
    found = headline(tabulate(*runs))
    assert "Worse than predicting the mean: energy RMSE of masking 0.5." in found.remark


def test_pairs_that_are_missing_are_told(
    tabulate: Callable[..., Study], scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in range(4)]
    runs += [masked(10 + seed, seed, 0.5, 0.09 + seed / 1000) for seed in range(3)]
    runs.append(masked(13, 3, 0.5, 0.1, status="running"))
    assert "Provisional: 1 of 4 pairs of seeds are missing." in headline(tabulate(*runs)).remark
