"""What curves tell, against numbers worked out by hand: crossings, areas, roughness, spikes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import stdev

import numpy as np
import pandas as pd
import pytest

from analysis.comparisons.training_curves import (
    arrivals,
    convergence,
    first_below,
    learning_area,
    stability,
    steadiness,
    while_learning,
)
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


FLAT = [1.0] * 8


def drawn(run: Run, errors: Sequence[float], norms: Sequence[float] = FLAT) -> Run:
    """The same run with these validation force errors, epoch by epoch; NaN is no evaluation."""
    rest = [point for point in run.points if not point.metric.startswith("finetune/")]
    run.points[:] = [
        *(Point("finetune/val_force_rmse", e, x) for e, x in enumerate(errors, 1) if x == x),
        *(Point("finetune/grad_norm", e, x) for e, x in enumerate(norms, 1)),
        *rest,
    ]
    run.params["finetune.epochs"] = str(len(errors))
    return run


def halving(start: float, epochs: int = 8) -> list[float]:
    return [start / 2**epoch for epoch in range(epochs)]


@pytest.fixture
def raced(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Study:
    """Eight epochs of 30 s in all, 10 s of pretraining.

    Scratch halves its error from 12.8, 6.4 or 25.6, to 0.1, 0.05 and 0.2: the median is 0.1.
    Masking is an epoch ahead of seed 0, as fast as seed 1, and stays at 1 in seed 2.
    """
    runs = [pretrained(seed, 0.5, 0.3) for seed in SEEDS]
    starts = (12.8, 6.4, 25.6)
    mine = (halving(6.4), halving(6.4), [1.0] * 8)
    for seed in SEEDS:
        runs += [
            drawn(scratch(seed, seed, 0.1), halving(starts[seed])),
            drawn(masked(10 + seed, seed, 0.5, 0.1), mine[seed]),
        ]
    # Epochs of a trial that diverged set no target.
    runs.append(drawn(scratch(3, 3, 0.1, status="diverged"), [90.0] * 8))
    return tabulate(*runs)


def test_targets_are_times_the_median_final_error_of_the_reference(raced: Study) -> None:
    table = arrivals(raced).set_index(["arm", "seed", "target"])
    # 12.8 · 2^(1 − epoch) = k · 0.1 where epoch = 8 − log2 k; one earlier or later for the others.
    for target in (2.0, 1.5, 1.2, 1.0):
        by_hand = 8 - math.log2(target)
        assert table.epochs["from scratch", 0, target] == pytest.approx(by_hand)
        assert table.epochs["from scratch", 1, target] == pytest.approx(by_hand - 1)
        assert table.epochs["masking 0.5", 0, target] == pytest.approx(by_hand - 1)
        assert math.isinf(table.epochs["masking 0.5", 2, target])
    # The slowest seed of scratch ends at 0.2, twice the median, and gets no further.
    assert table.epochs["from scratch", 2, 2.0] == pytest.approx(8)
    assert math.isinf(table.epochs["from scratch", 2, 1.5])


def test_compute_to_a_target_begins_with_pretraining(raced: Study) -> None:
    table = arrivals(raced).set_index(["arm", "seed", "target"]).seconds
    assert table["from scratch", 0, 2.0] == pytest.approx(7 * 30 / 8)
    assert table["masking 0.5", 0, 2.0] == pytest.approx(10 + 6 * 30 / 8)
    assert math.isinf(table["masking 0.5", 2, 2.0])


def test_censored_seeds_are_later_than_all_others(raced: Study) -> None:
    table = convergence(raced).set_index(["arm", "target"])
    mine, bare = table.loc[("masking 0.5", 2.0)], table.loc[("from scratch", 2.0)]
    assert (mine.reached, mine.n, bare.reached, bare.n) == (2, 3, 3, 4)
    # Scratch takes 7, 6 and 8 epochs, and for ever where it diverged; masking 6, 6 and for ever.
    assert (bare.epochs, mine.epochs) == pytest.approx((7.5, 6))
    assert (mine.pairs, mine.ended, mine.failed, mine.missing) == (2, 3, 1, 1)
    assert math.isnan(mine.change)
    assert math.isnan(mine.speedup)
    assert mine.verdict == "no verdict"


def test_of_enough_seeds_some_may_never_get_there(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [drawn(scratch(seed, seed, 0.1), halving(12.8)) for seed in range(8)]
    starts = [6.4, 6.4, 6.4, 6.4, 6.4, 6.4, 6.4]
    curves = [*map(halving, starts), [1.0] * 8]
    runs += [drawn(masked(10 + seed, seed, 0.5, 0.1), curves[seed]) for seed in range(8)]
    row = convergence(tabulate(*runs)).set_index(["arm", "target"]).loc[("masking 0.5", 2.0)]
    # Seven are an epoch earlier than the reference's seven, so that the rank sum against is 8.
    assert (row.reached, row.ended, row.failed) == (7, 8, 1)
    assert row.change == pytest.approx(100 * (6 / 7 - 1))
    assert row.speedup == pytest.approx(7 / 6)
    assert row.verdict == "inconclusive"


def test_if_most_seeds_never_get_there_neither_does_their_median(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [drawn(scratch(seed, seed, 0.1), halving(12.8)) for seed in SEEDS]
    ends = (halving(12.8), [1.0] * 8, [1.0] * 8)
    runs += [drawn(masked(10 + seed, seed, 0.5, 0.1), ends[seed]) for seed in SEEDS]
    row = convergence(tabulate(*runs)).set_index(["arm", "target"]).loc[("masking 0.5", 1.0)]
    assert math.isinf(row.epochs)
    assert (row.reached, row.pairs) == (1, 1)


def test_a_missing_evaluation_shifts_no_epoch(tabulate: Tabulate, scratch: Build) -> None:
    errors = halving(12.8)
    errors[2] = errors[3] = math.nan
    table = arrivals(tabulate(drawn(scratch(0, 0, 0.1), errors))).set_index("target")
    assert table.epochs[2.0] == pytest.approx(7)


def test_the_area_is_over_the_beginning_or_all(raced: Study) -> None:
    beginning, whole = (
        learning_area(raced, share).set_index(["arm", "seed"])["log"] for share in (0.3, 1.0)
    )
    # 0.3 of eight epochs are the first two.
    assert beginning["from scratch", 0] == pytest.approx(math.log(math.sqrt(12.8 * 6.4)))
    assert whole["from scratch", 0] == pytest.approx(math.log(12.8) - 3.5 * math.log(2))
    assert whole["masking 0.5", 2] == pytest.approx(0)
    table = while_learning(raced).set_index(["arm", "share"])
    # Seed by seed: half, the same, and 1 against 25.6 and 12.8, or against 25.6 / 2^3.5.
    by_hand = {0.3: (0.5, 1, 1 / math.sqrt(25.6 * 12.8)), 1.0: (0.5, 1, 2**3.5 / 25.6)}
    for share, ratios in by_hand.items():
        row = table.loc[("masking 0.5", share)]
        assert row.change == pytest.approx(100 * (np.prod(ratios) ** (1 / 3) - 1))
        assert row.pairs == 3


def test_roughness_is_of_the_steps_of_the_last_half(tabulate: Tabulate, scratch: Build) -> None:
    # Wild at first; then up by e^0.2, down by e^0.1 and up by e^0.3.
    tail = np.exp(np.cumsum([0, 0.2, -0.1, 0.3]))
    run = drawn(scratch(0, 0, 0.1), [1, 90, 1, 90, *tail])
    (row,) = steadiness(tabulate(run)).to_dict("records")
    assert row["roughness"] == pytest.approx(stdev([0.2, -0.1, 0.3]))


def test_a_steady_fall_is_no_roughness_and_no_fluctuation(
    tabulate: Tabulate, scratch: Build
) -> None:
    (row,) = steadiness(tabulate(drawn(scratch(0, 0, 0.1), halving(12.8)))).to_dict("records")
    assert row["roughness"] == pytest.approx(0, abs=1e-12)
    assert row["fluctuation"] == pytest.approx(0, abs=1e-12)
    assert row["spikes"] == pytest.approx(1)


def test_fluctuation_is_about_the_line_after_the_first_third(
    tabulate: Tabulate, scratch: Build
) -> None:
    # Nine epochs; of the last six the logarithm is a line and 0.1 · (1, −1, −1, 1, 1, −1) ...
    off = 0.1 * np.array([1, -1, -1, 1, 1, -1])
    at = np.arange(6)
    errors = [7, 0.1, 9, *np.exp(3 - 0.5 * at + off)]
    (row,) = steadiness(tabulate(drawn(scratch(0, 0, 0.1), errors))).to_dict("records")
    # ... whose own line is Σ(x − 2.5)·off / 17.5 = −0.1 · 1 / 17.5 steep.
    slope = float(((at - 2.5) * off).sum() / 17.5)
    left = off - slope * (at - 2.5)
    assert slope == pytest.approx(-0.1 / 17.5)
    assert row["fluctuation"] == pytest.approx(math.sqrt((left**2).sum() / 4))


def test_spikes_are_the_99th_percentile_over_the_median(tabulate: Tabulate, scratch: Build) -> None:
    # Of 101 norms the 100th in order is the 99th percentile: the lower of both spikes.
    norms = [2.0] * 99 + [30.0, 50.0]
    run = drawn(scratch(0, 0, 0.1), [1.0] * 101, norms)
    (row,) = steadiness(tabulate(run)).to_dict("records")
    assert row["spikes"] == pytest.approx(15)


def test_errors_beyond_numbers_leave_steadiness_finite(tabulate: Tabulate, scratch: Build) -> None:
    run = drawn(scratch(0, 0, 0.1), [2, 1, 2, 1, 1, 2, math.inf, 1])
    (row,) = steadiness(tabulate(run)).to_dict("records")
    assert row["roughness"] == pytest.approx(stdev([0, math.log(2), -math.log(2)]))


def test_rates_have_exact_intervals_and_an_exact_test(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1, status="diverged") for seed in SEEDS]
    # Below, at and above 0.95 of the trivial error of 0.6.
    ends = (0.569, 0.57, 0.61)
    runs += [masked(10 + seed, seed, 0.5, ends[seed]) for seed in SEEDS]
    table = stability(tabulate(*runs)).set_index("arm")
    bare, mine = table.loc["from scratch"], table.loc["masking 0.5"]
    assert (bare.diverged, mine.diverged, mine.collapsed) == (3, 0, 2)
    # Clopper and Pearson: 0 of n has the upper end 1 − (α/2)^(1/n), n of n the lower (α/2)^(1/n).
    assert mine.diverged_high == pytest.approx(100 * (1 - 0.025 ** (1 / 3)))
    assert bare.diverged_low == pytest.approx(100 * 0.025 ** (1 / 3))
    assert (mine.diverged_low, bare.diverged_high) == (0, 100)
    # Three pairs differ, all in one way: two of the 2³.
    assert mine.mcnemar == pytest.approx(2 / 8)
    assert mine.divergence == "inconclusive"
    assert pd.isna(bare.mcnemar)


def curve(*errors: float) -> pd.Series:
    """Errors after the first epoch, the second and so on."""
    return pd.Series(errors, range(1, len(errors) + 1))


def test_the_crossing_is_interpolated_in_the_logarithm() -> None:
    assert first_below(curve(4.0, 1.0), 2.0) == pytest.approx(1.5)
    assert first_below(curve(1.0), 2.0) == 1.0
    assert math.isinf(first_below(curve(4.0), 2.0))
    # Where an evaluation is missing the line goes on to the next one.
    assert first_below(curve(4.0, 3.0, 1.0).drop(2), 2.0) == pytest.approx(2.0)


def test_convergence_counts_those_that_never_get_there(extended: Study) -> None:
    table = convergence(extended).set_index(["arm", "target"])
    half = table.loc[("masking 0.9, 4 epochs", 2.0)]
    # Errors fall as 4^(1 - epoch/4): scratch is at twice its end after 2 epochs.
    assert table.epochs["from scratch, 4 epochs", 2.0] == pytest.approx(2.0, abs=0.01)
    assert half.epochs == pytest.approx(2 + 4 * math.log(0.9) / math.log(4), abs=0.02)
    assert half.reached == half.n == 3
    assert half.total < 1  # Pretraining costs more than it saves.
    never = table.loc[("masking 0.5 placebo, 4 epochs", 1.0)]
    assert never.reached < never.n


def test_the_learning_area_is_a_geometric_mean(extended: Study) -> None:
    area = learning_area(extended).set_index(["arm", "seed"])["log"]
    expected = math.log(0.1) + math.log(4) * np.mean([0.75, 0.5, 0.25, 0])
    assert area["from scratch, 4 epochs", 0] == pytest.approx(expected)


def test_divergence_and_collapse_are_counted_with_their_intervals(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.59) for seed in SEEDS]
    runs += [masked(3 + seed, seed, 0.5, 0.1) for seed in SEEDS]
    runs += [masked(9, 3, 0.5, 9.0, status="diverged")]
    table = stability(tabulate(*runs)).set_index("arm")
    assert table.collapsed.to_dict() == {"from scratch": 3, "masking 0.5": 0}
    assert table.diverged.to_dict() == {"from scratch": 0, "masking 0.5": 1}
    assert table.diverged_high["masking 0.5"] == pytest.approx(80.6, abs=0.1)
    assert table.fluctuation["from scratch"] == pytest.approx(0, abs=1e-9)
