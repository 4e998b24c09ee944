"""torch-sim beside the ASE calculator: many structures at once, and the same energies and paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.inference.ase_calculator import StudyCalculator
from study.inference.nve import thermalize
from study.planning.study_dir import StudyDir
from tests.inference.test_ase_calculator import structure

torch_sim = pytest.importorskip("torch_sim")

STEPS, TIMESTEP = 20, 0.5


@pytest.fixture(scope="module")
def model(small_study: StudyDir) -> torch.nn.Module:
    from study.inference.torch_sim_model import TorchSimModel

    return TorchSimModel(small_study.path)


@pytest.fixture
def structures(water: Frames, triclinic_water: Frames, small_study: StudyDir) -> list[Atoms]:
    """Boxes of different shapes and sizes, with the ASE calculator."""
    found = [
        structure(triclinic_water, 1),
        structure(water, 0),
        structure(water, 1).repeat((2, 1, 1)),
    ]
    for atoms in found:
        atoms.calc = StudyCalculator(small_study.path)
    return found


def state_of(structures: list[Atoms]) -> torch_sim.SimState:
    return torch_sim.io.atoms_to_state(structures, torch.device("cpu"), torch.float64)


def test_a_batch_has_the_energies_forces_and_stresses_of_ase(
    model: torch.nn.Module, structures: list[Atoms]
) -> None:
    found = model(state_of(structures))
    expected = [atoms.get_potential_energy() for atoms in structures]
    np.testing.assert_allclose(found["energy"], expected, rtol=1e-12)
    forces = np.concatenate([atoms.get_forces() for atoms in structures])
    np.testing.assert_allclose(found["forces"], forces, atol=1e-10)
    stresses = [atoms.get_stress(voigt=False) for atoms in structures]
    np.testing.assert_allclose(found["stress"], stresses, atol=1e-12)


def test_constant_energy_dynamics_follows_the_path_of_ase(
    model: torch.nn.Module, structures: list[Atoms]
) -> None:
    for seed, atoms in enumerate(structures):
        thermalize(atoms, 300, seed)
    state = state_of(structures)
    # torch-sim's momenta are those of eV, Å and amu, as ASE's.
    state.momenta = torch.tensor(np.concatenate([each.get_momenta() for each in structures]))
    step = torch.tensor(TIMESTEP * units.fs, dtype=torch.float64)
    begin, advance = torch_sim.nve(model, dt=step, kT=torch.tensor(0.0))
    moved = begin(state)
    totals = []
    for _ in range(STEPS):
        moved = advance(moved)
        kinetic = (moved.momenta**2).sum(1) / (2 * moved.masses)
        totals.append(moved.energy.index_add(0, moved.system_idx, kinetic))
    for atoms, found in zip(structures, moved.to_atoms(), strict=True):
        VelocityVerlet(atoms, TIMESTEP * units.fs).run(STEPS)
        # torch-sim folds atoms back into the cell.
        apart = (found.positions - atoms.positions) @ np.linalg.inv(atoms.cell.array)
        np.testing.assert_allclose(apart, apart.round(), atol=1e-9)
    drift = (torch.stack(totals) - totals[0]).abs().amax(0)
    assert (drift / moved.n_atoms_per_system < 1e-3).all()


def test_what_the_model_has_not_learned_is_refused(
    model: torch.nn.Module, structures: list[Atoms]
) -> None:
    structures[1].symbols[0] = "Cu"
    with pytest.raises(UserError, match=r"structure 1 .*has Cu"):
        model(state_of(structures))
