"""A trained potential as an MLflow model, which MLflow runs from this very source.

A table has a row per structure: `numbers` (N,) atomic numbers, `positions` (N, 3) Å, and `cell`
(3, 3) Å with the lattice vectors as rows, zero along which nothing repeats. Each row gets its
`energy`, eV with reference energies, and `forces` (N, 3) eV/Å.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
import pandas as pd


class StudyModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Predicts with the weights of one trial."""

    def load_context(self, context: Any) -> None:
        """Read weights and settings, and the user's plugin if the model is defined in one."""
        from study.inference import predictor, trained_model

        (folder,) = context.artifacts.values()
        trained = trained_model.resolve_trained_model(Path(folder))
        self.potential = predictor.TrainedPotential(trained)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Energy and forces of each structure."""
        del context, params
        from ase import Atoms

        rows = model_input.to_dict("records")
        structures = [
            Atoms(row["numbers"], list(row["positions"]), cell=cell, pbc=cell.any(axis=1))
            for row, cell in ((row, np.array(list(row["cell"]))) for row in rows)
        ]
        predictions = list(self.potential.predict(structures))
        return pd.DataFrame(
            {
                "energy": [each.energy for each in predictions],
                "forces": [each.forces.tolist() for each in predictions],
            }
        )


mlflow.models.set_model(StudyModel())
