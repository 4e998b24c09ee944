"""Tables in the papers' layouts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.comparisons.paper_tables import data_efficiency, table1
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def test_table_1_has_a_row_per_model_and_its_changes(
    tabulate: Tabulate, scratch: Build, masked: Build
) -> None:
    runs = []
    for place, model in enumerate(("egnn", "gns")):
        for seed in SEEDS:
            name = {"model.name": model}
            runs += [scratch(20 * place + seed, seed, 0.1, **name)]
            runs += [masked(20 * place + 10 + seed, seed, 0.5, 0.1 / (place + 2), **name)]
    table = table1(tabulate(*runs)).set_index("model")
    assert table.force_change.to_dict() == pytest.approx({"EGNN": -50, "GNS": -200 / 3})
    assert table.energy_scratch["GNS"] == pytest.approx(100)


def test_data_efficiency_has_the_slope_of_the_logarithms(
    tabulate: Tabulate, scratch: Build
) -> None:
    runs = [
        scratch(
            10 * place + seed, seed, 0.1 * (1 + seed / 1000) / labels, **{"finetune.frames": labels}
        )
        for place, labels in enumerate((2, 4, 8))
        for seed in SEEDS
    ]
    table = data_efficiency(tabulate(*runs))
    assert table["labels"].tolist() == [2, 4, 8]
    assert table.slope.iloc[0] == pytest.approx(-1, abs=0.01)
