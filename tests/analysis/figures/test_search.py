"""Figures of a long search stay light."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.figures import style
from analysis.figures.search import drawings
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study


def test_a_long_search_draws_some_points_of_each_kind_and_the_whole_front(
    tabulate: Callable[..., Study], masked: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "MOST_POINTS", 2)
    errors = (0.5, 0.4, 0.3, 0.2, 0.1)
    runs = [masked(n, 0, 0.5, error, exempt=False) for n, error in enumerate(errors)]
    made = {each.name: each for each in drawings(tabulate(*runs, search={"trials": 5}))}
    drawn = {
        name: [len(line.get_xdata()) for line in made[name].figure.axes[0].lines]  # type: ignore[arg-type]
        for name in ("timeline", "pareto")
    }
    front = int(made["pareto"].shown.front.sum())
    assert drawn["timeline"] == [5, 2]
    assert drawn["pareto"][0] == front
    assert all("At most 2 points of a kind are drawn." in each.caption for each in made.values())
    assert [len(each.shown) for each in made.values()] == [5, 5]
