"""Tables of the page stay short."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.html import grids
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study


def test_a_long_study_lists_its_first_runs(
    tabulate: Callable[..., Study], masked: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids, "MOST_RUNS", 2)
    study = tabulate(*(masked(n, 0, n / 10, 0.1, status="stopped") for n in range(1, 4)))
    listed = [[row[0].text for row in grids.excluded_grid(study).rows]]
    listed += [[row[0].text for row in grids.result_grid(study).rows]]
    assert listed == [["trial 1", "trial 2"], ["1", "2"]]
