"""Predictions of finished trials for their test frames: one row per atom.

`python -m study.predict` lets the final weights predict, and leaves a file beside them; here these
files become the table `predictions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from analysis.records.mlflow_reader import Run
from study.core.errors import UserError
from study.core.records import Tag

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
