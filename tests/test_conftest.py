"""The synthetic water of the other tests: its geometry, and that its labels are consistent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from study.datasets.frames import Frames


def test_every_molecule_is_a_rigid_water(water: Frames) -> None:
    oxygen, one, two = np.moveaxis(water.positions.reshape(-1, 3, 3), 1, 0)
    np.testing.assert_allclose(np.linalg.norm([one - oxygen, two - oxygen], axis=-1), 0.9572)
    cosine = np.sum((one - oxygen) * (two - oxygen), axis=-1) / 0.9572**2
    np.testing.assert_allclose(np.degrees(np.arccos(cosine)), 104.52)


def test_there_are_four_groups_of_three_frames(water: Frames) -> None:
    assert water.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("name", ["cubic", "triclinic", "mixed", "shuffled triclinic"])
def test_forces_are_the_negative_energy_gradient(
    name: str, every_water: dict[str, Frames], relabel: Callable[[Frames], Frames]
) -> None:
    frames, step = every_water[name], 1e-4
    first, last = frames.offsets[1], frames.offsets[2]
    for atom, axis in [(first, 0), (first + 4, 1), (last - 1, 2)]:
        move = np.zeros_like(frames.positions)
        move[atom, axis] = step
        ahead, behind = (
            relabel(replace(frames, positions=frames.positions + sign * move)).energies[1]
            for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * step)
        assert frames.forces[atom, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-6)


def test_shuffled_and_wrapped_atoms_have_the_same_labels(
    triclinic_water: Frames,
    shuffle: Callable[[Frames, int], tuple[Frames, np.ndarray]],
    relabel: Callable[[Frames], Frames],
) -> None:
    shuffled, came_from = shuffle(triclinic_water, 7)
    assert np.abs(shuffled.positions - triclinic_water.positions[came_from]).max() > 3
    again = relabel(shuffled)
    np.testing.assert_allclose(again.energies, triclinic_water.energies, atol=1e-9)
    np.testing.assert_allclose(again.forces, triclinic_water.forces[came_from], atol=1e-9)
