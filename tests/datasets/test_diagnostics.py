"""What is odd about the parts of a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from study.datasets.diagnostics import split_warnings, warnings
from study.datasets.frames import Frames


def lone_atoms_and_water() -> Frames:
    """Two lone atoms, of which one is carbon, and four molecules of water."""
    water = np.array([[0.0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]]) + 4
    return Frames(
        numbers=np.array([1, 6] + [8, 1, 1] * 4),
        positions=np.concatenate([[[4.0, 4, 4]] * 2, np.tile(water, (4, 1))]),
        forces=np.ones((14, 3)),
        offsets=np.array([0, 1, 2, 5, 8, 11, 14]),
        cells=np.tile(9 * np.eye(3), (6, 1, 1)),
        energies=-np.arange(6.0),
        groups=np.arange(6),
    )


def parts(train: list[int], validation: list[int], test: list[int]) -> dict[str, np.ndarray]:
    return {
        "train": np.array(train),
        "validation": np.array(validation),
        "test": np.array(test),
    }


def test_a_sound_split_is_not_warned_of() -> None:
    assert split_warnings(lone_atoms_and_water(), parts([0, 1, 2, 3], [4], [5])) == []


def test_training_on_lone_atoms_alone_is_told_with_the_missing_element() -> None:
    lines = split_warnings(lone_atoms_and_water(), parts([0, 1], [2, 3], [4, 5]))
    assert "O in the validation part, but not in the training part" in lines
    assert any(line.startswith("fewer frames train than are held out: train 2") for line in lines)
    assert any("nothing but lone atoms" in line for line in lines)
    assert "frames that train have 1 atoms, those held out 3" in lines


def test_an_element_that_is_only_tested_is_told() -> None:
    lines = split_warnings(lone_atoms_and_water(), parts([0, 2, 3, 4], [5], [1]))
    assert lines == ["C in the test part, but not in the training part"]


def test_a_part_without_a_label_that_others_have_is_told() -> None:
    frames = lone_atoms_and_water()
    forces = frames.forces.copy()
    forces[-3:] = np.nan
    lines = split_warnings(replace(frames, forces=forces), parts([0, 1, 2, 3], [4], [5]))
    assert lines == ["no frame of the test part has forces"]


def test_energies_of_zero_may_be_none(water: Frames) -> None:
    energies = water.energies.copy()
    energies[:2] = 0
    told = [line for line in warnings(replace(water, energies=energies)) if "exactly 0" in line]
    assert told == ["the energy of 2 frames is exactly 0: leave it out where it is not known"]
    assert not [line for line in warnings(water) if "exactly 0" in line]
