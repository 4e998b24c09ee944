"""A study's model as an ASE calculator.

from study.inference.ase_calculator import StudyCalculator
atoms.calc = StudyCalculator("runs/studies/masking_ratio-quick")

Models whose forces are the gradient of the energy give the stress of structures that are periodic
along all three vectors, so that cells can be relaxed (`ase.filters.FrechetCellFilter`) and dynamics
run at constant pressure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from study.datasets.parsing.stress import TO_VOIGT
from study.inference.predictor import FloatType, load_potential


class StudyCalculator(Calculator):
    """ASE calculator for energy (eV), forces (eV/Å) and stress (eV/Å³) of a trained model.

    Args:
        model: a study's folder, for its best trial; a trial's folder in `work`; or a file of
            weights there.
        device: torch device.
        precision: float32 as in training, or float64, which long NVE runs and tightly converged
            relaxations need.
        trust: run code that came with the model, though this user has not accepted it before.

    Raises:
        UserError: if there is no trained model, or its code is not to be trusted.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - ASE's protocol

    def __init__(
        self,
        model: str | Path,
        device: str = "cpu",
        precision: FloatType = "float64",
        *,
        trust: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = load_potential(model, device, precision, trust=trust)
        if self.potential.model.gives_stress:
            self.implemented_properties = [*self.implemented_properties, "stress"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy, forces and, where there is one, stress together, as `results`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        ((energy, forces, stress),) = self.potential.predict([self.atoms])
        results: dict[str, Any] = {"energy": energy, "free_energy": energy, "forces": forces}
        if stress is not None:
            results["stress"] = stress[TO_VOIGT]
        self.results = results
