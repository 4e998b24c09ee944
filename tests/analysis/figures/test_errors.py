"""Bars of errors: ours, and the printed ones of arms that a paper has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.figures.errors import drawings
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


def test_arms_of_the_paper_stand_beside_what_it_prints(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = [scratch(seed, seed, 0.1 + seed / 100) for seed in range(3)]
    runs += [masked(3 + seed, seed, 0.9, 0.08) for seed in range(3)]
    runs += [masked(6 + seed, seed, 0.5, 0.07) for seed in range(3)]
    force, energy = drawings(tabulate(*runs))
    shown = force.shown.set_index("arm")
    assert shown["mean"].to_dict() == pytest.approx(
        {"from scratch": 110, "masking 0.5": 70, "masking 0.9": 80}
    )
    assert shown["std"]["from scratch"] == pytest.approx(10)
    # Table 1 of arXiv:2402.15921: EGNN on TIP3P water, from scratch and with the ratio 0.9.
    assert shown.paper.dropna().to_dict() == {"from scratch": 61.481, "masking 0.9": 39.291}
    assert energy.shown.set_index("arm").paper.dropna().to_dict() == {
        "from scratch": 685.071,
        "masking 0.9": 241.853,
    }
    assert "energy RMSE (meV/frame)" in energy.alt
    assert "arXiv:2402.15921, Table 1, at full scale" in force.caption
    assert "pretrain.epochs 4 instead of 25" in force.caption


def test_arms_of_no_paper_stand_alone(tabulate: Tabulate, scratch: Build, masked: Build) -> None:
    other = {"dataset.name": "mine"}
    runs = [scratch(0, 0, 0.1, **other), masked(1, 0, 0.9, 0.08, **other)]
    force, energy = drawings(tabulate(*runs))
    assert force.shown.paper.isna().all()
    assert "Hatched" not in force.caption
    assert "energy RMSE (meV/atom)" in energy.alt
