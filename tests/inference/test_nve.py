"""Velocity Verlet, thermal velocities and the drift of the energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes

from study.datasets.frames import Frames
from study.inference.ase_calculator import StudyCalculator
from study.inference.nve import (
    EnergySample,
    fit_energy_drift,
    run_nve,
    temperature_of,
    thermalize,
)
from study.planning.study_dir import StudyDir

STIFFNESS, LENGTH, STRETCH = 30.0, 1.2, 0.1
"""eV/Å², Å and Å of a diatomic molecule."""


class Bond(Calculator):
    """E = k (r - r₀)² / 2 of two atoms."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's protocol

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Any = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        along = self.atoms.positions[1] - self.atoms.positions[0]
        length = np.linalg.norm(along)
        pull = STIFFNESS * (length - LENGTH) * along / length
        energy = STIFFNESS * (length - LENGTH) ** 2 / 2
        self.results = {"energy": energy, "forces": np.stack([pull, -pull])}


@pytest.mark.parametrize("timestep", [0.5, 1.0])
def test_a_harmonic_bond_moves_as_velocity_verlet_says(timestep: float) -> None:
    """It conserves p²/2m + k x² (1 - (ω dt/2)²)/2, so that E varies by k x² (ω dt)²/8."""
    atoms = Atoms("N2", [[0, 0, 0], [LENGTH + STRETCH, 0, 0]])
    atoms.calc = Bond()
    frequency = np.sqrt(STIFFNESS / (atoms.get_masses()[0] / 2))
    moments = list(run_nve(atoms, timestep, 500))
    assert [moment.time for moment in moments[:3]] == [0, timestep / 1000, 2 * timestep / 1000]
    assert len(moments) == 501
    totals = [moment.total for moment in moments]
    stretched = STIFFNESS * STRETCH**2 / 2
    expected = stretched * (frequency * timestep * units.fs) ** 2 / 4
    assert totals[0] == pytest.approx(stretched)
    assert np.ptp(totals) == pytest.approx(expected, rel=0.01)
    assert max(moment.kinetic for moment in moments) == pytest.approx(stretched, rel=0.02)
    fit = fit_energy_drift(moments, 2)
    assert abs(fit.drift) < 1000 * expected
    # The root mean square of a sine's square about its mean is its range by the root of 8.
    assert fit.fluctuation == pytest.approx(1000 * expected / 2 / np.sqrt(8), rel=0.02)


def test_drift_and_fluctuation_are_those_of_a_line_with_ripples() -> None:
    moments = [
        EnergySample(step / 100, 5.0, 0.3 * step / 100 + 0.01 * (-1) ** step) for step in range(800)
    ]
    fit = fit_energy_drift(moments, 3)
    assert fit.drift == pytest.approx(100, rel=1e-3)
    assert fit.fluctuation == pytest.approx(10 / 3, rel=1e-3)


def test_velocities_are_those_of_the_temperature_and_of_the_seed() -> None:
    atoms = Atoms("H1500O500", np.zeros((2000, 3)))
    thermalize(atoms, 300, seed=1)
    assert temperature_of(atoms.get_kinetic_energy(), 2000) == pytest.approx(300, rel=0.06)
    # Equipartition: heavy atoms are slower.
    light, heavy = (atoms.get_velocities()[atoms.numbers == number] for number in (1, 8))
    assert np.var(light) / np.var(heavy) == pytest.approx(15.999 / 1.008, rel=0.1)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-9)
    before = atoms.get_velocities().copy()
    thermalize(atoms, 300, seed=1)
    np.testing.assert_array_equal(atoms.get_velocities(), before)
    thermalize(atoms, 300, seed=2)
    assert not np.allclose(atoms.get_velocities(), before)


@pytest.fixture
def structure(water: Frames, tmp_path: Path) -> Path:
    path = tmp_path / "water.extxyz"
    inside = slice(*water.offsets[:2])
    ase.io.write(
        path, Atoms(water.numbers[inside], water.positions[inside], cell=water.cells[0], pbc=True)
    )
    return path


def test_half_the_timestep_gives_a_quarter_of_the_fluctuation(
    small_study: StudyDir, structure: Path
) -> None:
    fluctuations = []
    for timestep in (0.2, 0.1):
        atoms = ase.io.read(structure)
        atoms.calc = StudyCalculator(small_study.path)
        thermalize(atoms, 100, seed=0)
        moments = list(run_nve(atoms, timestep, round(10 / timestep)))
        fluctuations.append(fit_energy_drift(moments, len(atoms)).fluctuation)
        exchanged = np.ptp([moment.kinetic for moment in moments])
        assert exchanged > 0.1
        assert np.ptp([moment.total for moment in moments]) < 0.02 * exchanged
    assert fluctuations[0] / fluctuations[1] == pytest.approx(4, rel=0.25)
