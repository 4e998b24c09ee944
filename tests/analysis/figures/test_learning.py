"""The figures of learning show what the tables say, on runs that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from analysis.comparisons.training_curves import arrivals, stability, steadiness
from analysis.figures import learning
from analysis.figures.style import Drawing
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
Drawn = tuple[Study, dict[str, Drawing]]
SEEDS = range(3)


def with_curve(run: Run, errors: list[float], norms: list[float]) -> Run:
    """The same run with other validation force errors and gradient norms."""
    others = [point for point in run.points if not point.metric.startswith("finetune/")]
    curve = [Point("finetune/val_force_rmse", epoch, e) for epoch, e in enumerate(errors, 1)]
    spikes = [Point("finetune/grad_norm", epoch, norm) for epoch, norm in enumerate(norms, 1)]
    run.points[:] = [*curve, *spikes, *others]
    return run


@pytest.fixture
def drawn(tabulate: Tabulate, scratch: Build, masked: Build, pretrained: Build) -> Drawn:
    """Scratch halves its error each epoch from 0.8; masking is a factor √2 ahead; one diverged."""
    runs = [pretrained(seed, 0.5, 0.3) for seed in SEEDS]
    for seed in SEEDS:
        halves = [0.8, 0.4, 0.2, 0.1]
        ahead = [error / math.sqrt(2) for error in halves]
        runs += [
            with_curve(scratch(seed, seed, 0.1), halves, [1, 1, 1, 1]),
            with_curve(masked(10 + seed, seed, 0.5, 0.07), ahead, [1, 1, 1, 3 + seed]),
        ]
    runs.append(masked(20, 3, 0.5, 0.1, status="diverged"))
    study = tabulate(*runs)
    return study, {drawing.name: drawing for drawing in learning.drawings(study)}


def test_epochs_to_an_error_are_where_the_lines_are(drawn: Drawn) -> None:
    study, figures = drawn
    (axes,) = figures["speed_epochs"].figure.axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    # 2, 1.5, 1.2 and 1 times 0.1, by hand: epoch 4 less a logarithm to base 2.
    by_hand = np.array([3, 4 - math.log2(1.5), 4 - math.log2(1.2), 4])
    assert lines["from scratch"] == pytest.approx(by_hand)
    assert lines["masking 0.5"] == pytest.approx(by_hand - 0.5)
    table = arrivals(study).groupby(["arm", "target"]).epochs.median()
    shown = figures["speed_epochs"].shown.groupby(["arm", "target"]).epochs.median()
    assert shown.to_dict() == table.to_dict()


def test_compute_to_an_error_counts_pretraining(drawn: Drawn) -> None:
    study, figures = drawn
    (axes,) = figures["speed_minutes"].figure.axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    # Four epochs take 30 s; pretraining took 10 s more.
    assert lines["from scratch"][0] == pytest.approx(3 * 7.5 / 60)
    assert lines["masking 0.5"][0] == pytest.approx((10 + 2.5 * 7.5) / 60)
    medians = arrivals(study).groupby(["arm", "target"]).seconds.median()
    assert lines["masking 0.5"][0] == pytest.approx(medians["masking 0.5", 2.0] / 60)


def test_steadiness_and_spikes_are_those_of_the_table(drawn: Drawn) -> None:
    study, figures = drawn
    shown = figures["gradient_spikes"].shown
    table = steadiness(study).set_index(["arm", "seed"]).spikes
    assert all(row.spikes == table[row.arm, row.seed] for _, row in shown.iterrows())
    (axes,) = figures["gradient_spikes"].figure.axes
    marks = next(line for line in axes.lines if line.get_label() == "spikes")
    rows = dict(zip(marks.get_ydata(), marks.get_xdata(), strict=True))
    names = [text.get_text() for text in axes.get_yticklabels()]
    # Between the third and the fourth of four sorted norms at 0.99 × 3.
    assert rows[names.index("masking 0.5")] == pytest.approx(1 + 0.97 * 3)
    assert rows[names.index("from scratch")] == pytest.approx(1)


def test_failures_are_drawn_as_shares_of_the_trials(drawn: Drawn) -> None:
    study, figures = drawn
    shown = figures["failures"].shown.set_index("arm")
    assert shown["diverged (%)"].to_dict() == {"from scratch": 0, "masking 0.5": 25}
    row = stability(study).set_index("arm").loc["masking 0.5"]
    assert 100 * row.diverged / row.n == shown["diverged (%)"]["masking 0.5"]
    (axes,) = figures["failures"].figure.axes
    ends = [tuple(line[:, 0]) for line in axes.collections[0].get_segments()]
    assert (row.diverged_low, row.diverged_high) in ends
