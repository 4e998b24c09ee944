"""What finished trials predict for their test frames: one row per atom.

`python -m study.predict` lets the final weights predict, and leaves a file beside them; here these
files become the table `predictions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.arms import compared
from analysis.load import Study
from analysis.quantities import MILLI
from analysis.runs import Run
from study.errors import UserError
from study.records import Tag

SCHEMA = pa.schema(
    [
        ("key", pa.dictionary(pa.int32(), pa.string())),
        pa.field("frame", pa.int32(), metadata={"meaning": "place in the data set, from 0"}),
        pa.field("atom", pa.int32(), metadata={"meaning": "place in the frame, from 0"}),
        pa.field("number", pa.uint8(), metadata={"meaning": "atomic number"}),
        pa.field("energy", pa.float64(), metadata={"unit": "eV/atom"}),
        pa.field("predicted_energy", pa.float64(), metadata={"unit": "eV/atom"}),
        *(
            pa.field(f"{who}force_{axis}", pa.float32(), metadata={"unit": "eV/Å"})
            for who in ("", "predicted_")
            for axis in "xyz"
        ),
    ]
)
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F", 11: "Na", 15: "P", 16: "S", 17: "Cl"}
LABELLED = [f"force_{axis}" for axis in "xyz"]
PREDICTED = [f"predicted_{name}" for name in LABELLED]


def read_predictions(runs: Sequence[Run], root: Path) -> pa.Table:
    """The predictions of all completed trials, from the store at `root`.

    Raises:
        UserError: if there are none.
    """
    keys = [
        run.tags[Tag.KEY]
        for run in runs
        if run.tags.get(Tag.KIND) == "trial" and run.tags.get(Tag.STATUS) == "completed"
    ]
    tables = []
    for key in dict.fromkeys(keys):
        path = root / "work" / f"trial-{key[:20]}" / "predictions.npz"
        if path.is_file():
            tables.append(_table(key, path))
    if not tables:
        raise UserError(f"no predictions below {root}; run `python -m study.predict STUDY` first")
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


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
    return forces, energies


def _with_arms(study: Study) -> pd.DataFrame:
    if study.predictions.empty:
        return pd.DataFrame()
    arms = compared(study).drop_duplicates("key").set_index("key").arm
    atoms = study.predictions
    named = atoms.assign(arm=atoms.key.astype(str).map(arms))
    return named[named.arm.notna()]


def _table(key: str, path: Path) -> pa.Table:
    with np.load(path, allow_pickle=False) as arrays:
        sizes = arrays["sizes"]
        atoms = int(sizes.sum())
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
        columns = {
            "key": pa.DictionaryArray.from_arrays(np.zeros(atoms, dtype=np.int32), [key]),
            "frame": np.repeat(arrays["frames"], sizes),
            "atom": np.arange(atoms) - starts,
            "number": arrays["numbers"],
            "energy": np.repeat(arrays["energies"] / sizes, sizes),
            "predicted_energy": np.repeat(arrays["predicted_energies"] / sizes, sizes),
        }
        for name, stored in (("", "forces"), ("predicted_", "predicted_forces")):
            for place, axis in enumerate("xyz"):
                columns[f"{name}force_{axis}"] = arrays[stored][:, place]
        fields = {field.name: field.type for field in SCHEMA}
        return pa.table(
            [pa.array(columns[name]).cast(kind) for name, kind in fields.items()], SCHEMA
        )
