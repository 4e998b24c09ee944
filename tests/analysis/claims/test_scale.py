"""Scale by settings, and verdicts on claims where trials diverge, never arrive, or round apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.claims.findings import findings, findings_table
from analysis.comparisons.controls import compare_with_controls, final
from analysis.comparisons.error_tables import final_errors
from analysis.comparisons.outcomes import planned
from analysis.comparisons.quantities import FORCE
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from analysis.statistics.verdict import Verdict
from tests.analysis.claims.trials import of_full_size, told_of

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_at_full_scale_the_band_of_the_paper_counts(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 100)) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.9, 0.064) for seed in SEEDS]
    toy = told_of(tabulate(*runs, profile="paper"), "t1-tip3p-egnn-force")
    assert (toy.scale, toy.verdict) == ("reduced", Verdict.DIRECTION)
    assert "finetune.epochs 4 instead of 50" in toy.deviations
    found = told_of(tabulate(*map(of_full_size, runs), profile="mine"), "t1-tip3p-egnn-force")
    assert (found.scale, found.deviations) == ("full", ())
    assert found.verdict == Verdict.REPRODUCED


def test_what_diverged_is_judged_with_the_rest(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    """Five of eight masked trials diverged, and the three left are 8 % lower: no verdict."""
    runs = [scratch(seed, seed, 0.1 + seed / 1000) for seed in range(8)]
    for seed in range(8):
        status = "completed" if seed < 3 else "diverged"
        runs.append(masked(8 + seed, seed, 0.9, 0.92 * (0.1 + seed / 1000), status=status))
    found = told_of(tabulate(*map(of_full_size, runs)), "fig5-tip3p-0.9")
    assert (found.verdict, found.effect) == (Verdict.NO_VERDICT, Verdict.NO_VERDICT)
    assert found.reason == "5 of 16 trials diverged"
    assert (found.change.n, found.change.failed, found.change.reference_failed) == (3, 5, 0)
    table = findings_table([found])
    assert (table.failed.item(), table.effect.item()) == (5, "no verdict")


def test_an_error_that_is_never_reached_is_later_than_any(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    """Five of eight never get there; those three that do are fast, and reproduce nothing."""
    runs = [scratch(seed, seed, 0.1) for seed in range(8)]
    runs += [masked(8 + seed, seed, 0.9, 0.05 if seed < 3 else 0.5) for seed in range(8)]
    found = [f for f in findings([tabulate(*runs)]) if f.statement.measure == "arrival"]
    judged = [f for f in found if f.change.ended]
    assert judged
    for finding in judged:
        assert finding.verdict == Verdict.NO_VERDICT
        assert (finding.change.n, finding.change.failed) == (3, 5)
        assert "5 of 16 trials never reach it" in finding.reason


def test_a_claim_has_the_interval_and_the_word_of_the_table(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 * (1 + seed / 50)) for seed in range(4)]
    for place, ratio in enumerate((0.25, 0.5, 0.9)):
        factors = [0.99, 0.97, 0.98, 0.96 + place / 100]
        runs += [
            masked(10 * (place + 1) + seed, seed, ratio, factors[seed] * 0.1 * (1 + seed / 50))
            for seed in range(4)
        ]
    study = tabulate(*runs)
    errors = final_errors(study).query("quantity == 'force_rmse'").set_index("arm")
    beside = compare_with_controls(final(planned(study), FORCE)).set_index("arm")
    for ratio in (0.25, 0.5, 0.9):
        row, finding = errors.loc[f"masking {ratio}"], told_of(study, f"fig5-tip3p-{ratio}")
        assert (finding.change.low, finding.change.high) == pytest.approx((row.low, row.high))
        assert finding.effect == row.verdict == beside.verdict[f"masking {ratio}"]
        assert (row.family_size, finding.change.family, beside.family_size[f"masking {ratio}"]) == (
            3,
            3,
            3,
        )


def test_another_machine_that_gives_another_verdict_is_told(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    """The quick study's masking 0.9, with seeds of its own spread, here and on another machine."""
    bare = [scratch(seed, seed, 0.1) for seed in SEEDS]
    here = tabulate(*bare, *(masked(3 + s, s, 0.9, 0.097 + s / 1e5) for s in SEEDS), name="one")
    there = tabulate(*bare, *(masked(3 + s, s, 0.9, 0.096 + s / 300) for s in SEEDS), name="two")
    (found,) = (f for f in findings([here, there]) if f.statement.id == "fig5-tip3p-0.9")
    assert found.study == "one, two"
    assert "hangs on rounding: " in found.reason
    assert found.reason.endswith("inconclusive in two")
