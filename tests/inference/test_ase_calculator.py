"""The ASE calculator: forces, stresses, periodic images and conserved energy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from study.datasets.frames import Frames
from study.inference.ase_calculator import StudyCalculator
from study.models.potential import ConservativePotential
from study.planning.study_dir import StudyDir


def structure(frames: Frames, index: int) -> Atoms:
    """A frame with its labels."""
    atoms = slice(*frames.offsets[index : index + 2])
    made = Atoms(frames.numbers[atoms], frames.positions[atoms], cell=frames.cells[index], pbc=True)
    made.calc = SinglePointCalculator(
        made, energy=frames.energies[index], forces=frames.forces[atoms]
    )
    return made


def test_forces_are_the_slope_of_the_energy_in_a_skewed_cell(
    small_study: StudyDir, triclinic_water: Frames
) -> None:
    atoms = structure(triclinic_water, 1)
    atoms.calc = StudyCalculator(small_study.path)
    numeric = np.array([[_slope(atoms, i, axis) for axis in range(3)] for i in range(6)])
    np.testing.assert_allclose(atoms.get_forces()[:6], numeric, rtol=1e-5, atol=1e-6)


def _slope(atoms: Atoms, index: int, axis: int, h: float = 1e-4) -> float:
    """−∂E/∂x, eV/Å, from energies alone."""
    energies = []
    for step in (h, -h):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[index, axis] += step
        energies.append(moved.get_potential_energy())
    return (energies[1] - energies[0]) / (2 * h)


def test_a_box_smaller_than_the_cutoff_is_the_same_as_its_supercell(
    small_study: StudyDir, water: Frames
) -> None:
    cell = np.array([[3.1, 0, 0], [0.9, 3.2, 0], [-0.4, 0.7, 3.3]])
    small = Atoms("OH2", water.positions[:3], cell=cell, pbc=True)
    large = small.repeat(2)
    small.calc = large.calc = StudyCalculator(small_study.path)
    assert large.get_potential_energy() == pytest.approx(8 * small.get_potential_energy())
    np.testing.assert_allclose(large.get_forces()[:3], small.get_forces(), atol=1e-9)


def test_atoms_outside_the_cell_are_the_same_as_inside(
    small_study: StudyDir, water: Frames
) -> None:
    inside = structure(water, 0)
    outside = inside.copy()
    outside.positions += np.array([[3, -2, 1]]) @ inside.cell.array
    inside.calc = outside.calc = StudyCalculator(small_study.path)
    np.testing.assert_allclose(outside.get_forces(), inside.get_forces(), atol=1e-9)


def test_the_stress_is_that_of_finite_strains(
    small_study: StudyDir, triclinic_water: Frames
) -> None:
    atoms = structure(triclinic_water, 1)
    atoms.calc = StudyCalculator(small_study.path)
    # ASE strains the cell, and the neighbours are found anew.
    numeric = calculate_numerical_stress(atoms, eps=1e-5)
    assert np.abs(numeric).max() > 1e-4
    np.testing.assert_allclose(atoms.get_stress(), numeric, atol=1e-7)


def test_the_stress_turns_with_the_structure(
    small_study: StudyDir, triclinic_water: Frames, rotation: Callable[[int], np.ndarray]
) -> None:
    atoms, turn = structure(triclinic_water, 0), rotation(3)
    turned = Atoms(atoms.numbers, atoms.positions @ turn, cell=atoms.cell.array @ turn, pbc=True)
    large = atoms.repeat((2, 1, 1))
    atoms.calc = turned.calc = large.calc = StudyCalculator(small_study.path)
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(turned.get_stress(voigt=False), turn.T @ stress @ turn, atol=1e-9)
    np.testing.assert_allclose(large.get_stress(voigt=False), stress, atol=1e-9)


def test_a_cell_relaxes_to_less_stress(small_study: StudyDir, water: Frames) -> None:
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    before = np.abs(atoms.get_stress()).max(), atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.0, steps=25)
    assert np.abs(atoms.get_stress()).max() < 0.7 * before[0]
    assert atoms.get_potential_energy() < before[1]


def test_dynamics_at_constant_pressure_change_the_cell(
    small_study: StudyDir, water: Frames
) -> None:
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    atoms.set_velocities(np.random.default_rng(0).normal(scale=0.01, size=(24, 3)))
    dynamics = NPTBerendsen(
        atoms,
        timestep=0.5 * units.fs,
        temperature_K=300,
        pressure_au=-2 * np.trace(atoms.get_stress(voigt=False)) / 3 + 0.05,
        compressibility_au=1.0,
    )
    dynamics.run(3)
    assert atoms.get_volume() < 6.3**3


def test_a_slab_has_no_stress(small_study: StudyDir, water: Frames) -> None:
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    atoms.get_stress()
    atoms.pbc = (True, True, False)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_a_model_with_forces_of_its_own_has_no_stress(
    small_study: StudyDir, water: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConservativePotential, "gives_stress", False)
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def drift_and_exchange(atoms: Atoms, femtoseconds: float, steps: int) -> tuple[float, float]:
    """Largest change of the total energy, and range of the kinetic energy, eV."""
    spread = np.sqrt(units.kB * 100 / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    totals, kinetics = [], []
    dynamics = VelocityVerlet(atoms, timestep=femtoseconds * units.fs)
    for _ in dynamics.irun(steps):
        totals.append(atoms.get_total_energy())
        kinetics.append(atoms.get_kinetic_energy())
    return float(np.ptp(totals)), float(np.ptp(kinetics))


def test_dynamics_conserve_energy(small_study: StudyDir, water: Frames) -> None:
    atoms = structure(water, 0)
    atoms.calc = StudyCalculator(small_study.path)
    drift, exchanged = drift_and_exchange(atoms, 0.1, 200)
    assert exchanged > 0.2
    assert drift < 1e-3 * exchanged
