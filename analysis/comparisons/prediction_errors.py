"""Errors of predictions, frame by frame and element by element."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons.outcomes import compared
from analysis.comparisons.quantities import MILLI
from analysis.records.study_tables import Study

SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F", 11: "Na", 15: "P", 16: "S", 17: "Cl"}

LABELLED = [f"force_{axis}" for axis in "xyz"]

PREDICTED = [f"predicted_{name}" for name in LABELLED]


def by_element(study: Study) -> pd.DataFrame:
    """Force errors on test atoms: arm, element, n (trials), rmse and mae (means, meV/Å), std."""
    atoms = _with_arms(study)
    if atoms.empty:
        return atoms
    off = atoms[PREDICTED].to_numpy() - atoms[LABELLED].to_numpy()
    squares = atoms.assign(square=(off**2).mean(axis=1), absolute=np.abs(off).mean(axis=1))
    by_trial = squares.groupby(["arm", "number", "key"], sort=False)[["square", "absolute"]].mean()
    by_trial["rmse"] = MILLI * np.sqrt(by_trial.square)
    by_trial["mae"] = MILLI * by_trial.absolute
    table = by_trial.groupby(["arm", "number"], sort=False).agg(
        n=("rmse", "count"), rmse=("rmse", "mean"), std=("rmse", "std"), mae=("mae", "mean")
    )
    table = table.reset_index()
    table["element"] = table.number.map(lambda z: SYMBOLS.get(int(z), f"Z = {z}"))
    return table


def parity(study: Study, arm: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels and predictions of an arm: force components (eV/Å), and energies (eV/atom)."""
    atoms = _with_arms(study)
    atoms = atoms[atoms.arm == arm]
    forces = pd.DataFrame(
        {
            "label": atoms[LABELLED].to_numpy().ravel(),
            "predicted": atoms[PREDICTED].to_numpy().ravel(),
        }
    )
    frames = atoms.drop_duplicates(["key", "frame"])
    energies = pd.DataFrame({"label": frames.energy, "predicted": frames.predicted_energy})
    # A test frame may lack a label that others have.
    return forces.dropna(subset="label"), energies.dropna(subset="label")


def _with_arms(study: Study) -> pd.DataFrame:
    if study.predictions.empty:
        return pd.DataFrame()
    arms = compared(study).drop_duplicates("key").set_index("key").arm
    atoms = study.predictions
    named = atoms.assign(arm=atoms.key.astype(str).map(arms))
    return named[named.arm.notna()]
