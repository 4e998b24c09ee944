"""The result of a study in a sentence."""

from __future__ import annotations

from collections.abc import Callable

from analysis.comparisons.error_tables import (
    is_ablation,
)
from analysis.html.headline import headline
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]


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
    assert headline(tabulate(*trials)).sentence.startswith("Too few seeds for a verdict")


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
    assert found.details == (("Lowest validation error", [("masking 0.05", "n = 1")]),)
