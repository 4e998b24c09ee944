"""Exported programs against the model that they come from."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from study.datasets.frames import Frames
from study.inference.predictor import TrainedPotential
from study.inference.trained_model import resolve_trained_model
from study.planning.study_dir import StudyDir
from study.predict import main


def structure(frames: Frames, index: int) -> Atoms:
    """A frame with its labels."""
    atoms = slice(*frames.offsets[index : index + 2])
    made = Atoms(frames.numbers[atoms], frames.positions[atoms], cell=frames.cells[index], pbc=True)
    made.calc = SinglePointCalculator(
        made, energy=frames.energies[index], forces=frames.forces[atoms]
    )
    return made


def test_an_exported_model_predicts_the_same_without_its_class(
    small_study: StudyDir, water: Frames, triclinic_water: Frames, tmp_path: Path
) -> None:
    given, out = tmp_path / "water.extxyz", tmp_path / "model.pt2"
    ase.io.write(given, structure(water, 0))
    assert main([str(small_study.path), str(given), "--export", str(out)]) == 0
    potential = TrainedPotential(resolve_trained_model(small_study.path))
    atoms = structure(triclinic_water, 0)[:9]
    graph = potential.graph([atoms])
    program = torch.export.load(out).module()
    energy, forces = program(graph.z, graph.pos, graph.edge_index, graph.shift)
    ((expected, expected_forces, _),) = potential.predict([atoms])
    assert float(energy) == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(forces.detach().numpy(), expected_forces, atol=1e-5)
