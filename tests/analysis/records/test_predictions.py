"""From files beside the weights to a table, and to errors by element."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.comparisons.prediction_errors import by_element, parity
from analysis.records.mlflow_reader import Run
from analysis.records.parquet_tables import write_tables
from analysis.records.predictions import read_predictions
from analysis.records.study_tables import load
from study.core.errors import UserError
from study.core.records import Tag


@pytest.fixture
def stored(tmp_path: Path, scratch: Callable[..., Run]) -> Run:
    """A trial that predicts two frames of water; forces on oxygen are off by 0.1 eV/Å."""
    run = scratch(0, 0, 0.1)
    numbers = np.array([8, 1, 1, 8, 1, 1], dtype=np.uint8)
    forces = np.arange(18.0).reshape(6, 3)
    path = tmp_path / "work" / f"trial-{run.tags[Tag.KEY][:20]}" / "predictions.npz"
    path.parent.mkdir(parents=True)
    np.savez(
        path,
        frames=[7, 3],
        sizes=[3, 3],
        numbers=numbers,
        energies=[3.0, 6.0],
        predicted_energies=[3.3, 6.0],
        forces=forces,
        predicted_forces=forces + 0.1 * (numbers == 8)[:, None],
    )
    return run


def test_predictions_come_back_with_units_and_by_element(
    tmp_path: Path, stored: Run, scratch: Callable[..., Run]
) -> None:
    without = scratch(1, 1, 0.1)
    without.tags[Tag.KEY] = "f" * 64
    table = read_predictions([stored, without], tmp_path)
    study = Run("s", "FINISHED", tags={Tag.KIND: "study", Tag.SCHEMA: "1"})
    write_tables([study, stored], "x", tmp_path / "tables", table)
    loaded = load(tmp_path / "tables")
    assert loaded.predictions.frame.tolist() == [7, 7, 7, 3, 3, 3]
    assert loaded.predictions.atom.tolist() == [0, 1, 2, 0, 1, 2]
    assert table.schema.field("force_x").metadata[b"unit"].decode() == "eV/Å"
    errors = by_element(loaded).set_index("element")
    assert errors.rmse.to_dict() == pytest.approx({"O": 100, "H": 0}, abs=1e-3)
    forces, energies = parity(loaded, "from scratch")
    assert len(forces) == 18
    assert (energies.predicted - energies.label).tolist() == pytest.approx([0.1, 0])


def test_missing_predictions_name_the_way_out(tmp_path: Path, scratch: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match=r"run `python -m study.predict STUDY` first"):
        read_predictions([scratch(0, 0, 0.1)], tmp_path)
