"""Figures of errors against settings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.figures import against
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_errors_against_width_join_models_of_equal_depth(
    tabulate: Tabulate, scratch: Build
) -> None:
    sizes = [(16, 2), (32, 2), (16, 4)]
    runs = [
        scratch(
            10 * place + seed,
            seed,
            1 / width / depth,
            **{"model.hidden": width, "model.layers": depth},
        )
        for place, (width, depth) in enumerate(sizes)
        for seed in SEEDS
    ]
    drawn = {drawing.name: drawing for drawing in against.drawings(tabulate(*runs))}
    assert {"force_rmse_against_width", "force_rmse_against_depth"} <= drawn.keys()
    shown = drawn["force_rmse_against_width"].shown.groupby(["task", "at"]).value.mean()
    # A model that is the only one of its depth is on no line.
    assert shown.to_dict() == pytest.approx(
        {("from scratch, depth 2", 16.0): 1000 / 32, ("from scratch, depth 2", 32.0): 1000 / 64}
    )
    axes = drawn["force_rmse_against_width"].figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
