"""What no set of frames may contain, and what it may."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from study.core.errors import UserError
from study.datasets.frames import Frames
from study.datasets.validation import NEAR, check, closest_atoms

HERE = Path("set")


def boxed(cell: object, pbc: object = (True, True, True)) -> Frames:
    """Two frames of two atoms 1 Å apart; the second one in a cell of one's own."""
    return Frames(
        numbers=np.array([8, 1] * 2),
        positions=np.array([[0, 0, 0], [0, 0, 1.0]] * 2),
        forces=np.zeros((4, 3)),
        offsets=np.array([0, 2, 4]),
        cells=np.stack([4 * np.eye(3), np.array(cell, dtype=float)]),
        energies=np.zeros(2),
        groups=np.zeros(2, int),
        pbc=np.array([[True] * 3, pbc]),
    )


@pytest.mark.parametrize(
    ("cell", "pbc", "rule"),
    [
        (np.diag([1e6, 0.1, 0.1]), (True, True, True), r"at least 0\.5 Å thick"),
        (np.diag([4, 0.3, 4]), (False, True, False), r"at least 0\.5 Å thick"),
        (np.zeros((3, 3)), (True, True, True), "a cell with a volume"),
        (np.diag([4, 4, 0]), (True, True, True), "a cell with a volume"),
        (np.diag([4, 0, 0]), (True, True, False), "a cell with a volume"),
        ([[4, 0, 0], [8, 0, 0], [0, 0, 4]], (True, True, False), "a cell with a volume"),
        (np.diag([4, 4, -4]), (True, True, True), "right-handed"),
        (np.diag([4, 4, 1]), (True, True, True), "atoms in the same place"),
    ],
)
def test_a_cell_that_is_none_is_told_with_its_frame(
    cell: object, pbc: tuple[bool, ...], rule: str
) -> None:
    with pytest.raises(UserError, match=rf"^set: frame 1 \(from 0\) .*{rule}"):
        check(boxed(cell, pbc), HERE)


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.diag([4, 4, 0]), (True, True, False)),
        (np.diag([4, 4, 1]), (True, True, False)),
        (np.diag([4, 4, -4]), (True, True, False)),
        (np.zeros((3, 3)), (False, False, False)),
        (np.diag([0, 0, 3]), (False, False, True)),
        (np.diag([1e6, 3, 3]), (True, True, True)),
    ],
)
def test_what_does_not_repeat_needs_no_cell(cell: object, pbc: tuple[bool, ...]) -> None:
    check(boxed(cell, pbc), HERE)


def test_the_closest_atoms_are_sought_in_periodic_directions_alone() -> None:
    frames = boxed(np.diag([4, 4, 1.4]), (True, True, False))
    assert closest_atoms(frames).tolist() == pytest.approx([1, 1])
    assert closest_atoms(replace(frames, pbc=np.ones(3, bool)))[1] == pytest.approx(0.4)


def test_the_closest_atoms_of_molecules_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 2, 9, 18, 80], 200)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    positions = rng.normal(scale=3, size=(offsets[-1], 3))
    frames = Frames(
        numbers=np.ones(offsets[-1]),
        positions=positions,
        forces=0 * positions,
        offsets=offsets,
        cells=np.zeros((200, 3, 3)),
        energies=np.zeros(200),
        groups=np.zeros(200, int),
        pbc=np.zeros(3, bool),
    )
    expected = [
        pdist(positions[first:last]).min(initial=np.inf)
        for first, last in itertools.pairwise(offsets)
    ]
    within = np.where(np.array(expected) < NEAR, expected, np.inf)
    np.testing.assert_allclose(closest_atoms(frames), within, rtol=1e-12)
    assert 20 < np.isfinite(within).sum() < 180


def test_an_absent_label_is_told_by_the_source_and_a_nan_is_refused() -> None:
    frames = boxed(4 * np.eye(3))
    without = replace(frames, energies=np.array([0.0, np.nan]))
    with pytest.raises(UserError, match=r"frame 1 \(from 0\) must have finite numbers"):
        check(without, HERE)
    check(replace(without, origin={"absent": ["energy"]}), HERE)
    forces = frames.forces.copy()
    forces[2:] = np.nan
    check(replace(frames, forces=forces, origin={"absent": ["forces"]}), HERE)
    forces[3] = 0
    with pytest.raises(UserError, match=r"frame 1 \(from 0\) must have finite numbers"):
        check(replace(frames, forces=forces, origin={"absent": ["forces"]}), HERE)
