"""Neighbours against a search over all images, and against ASE."""

from __future__ import annotations

import itertools

import ase
import ase.neighborlist
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from study import neighbors
from study.neighbors import neighbor_list

Array = NDArray[np.float64]
Edge = tuple[int, int, int, int, int]
"""Source, target, and the three lattice translations of the target."""


def edges_of(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    """What is found with vesin; without it the same must be, in any order of each target's."""
    edges = searched(positions, cell, cutoff)
    assert sorted(searched_without_vesin(positions, cell, cutoff)) == sorted(edges)
    return edges


def searched(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    edge_index, shifts = neighbor_list(positions, cell, cutoff)
    return [tuple(edge) for edge in np.concatenate([edge_index, shifts.T]).T.tolist()]


def searched_without_vesin(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(neighbors, "vesin", None)
        return searched(positions, cell, cutoff)


def brute_force(positions: Array, cell: Array, cutoff: float) -> set[Edge]:
    """Every pair in every image that can be near enough."""
    inverse = np.linalg.inv(cell)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    reach = np.ceil(cutoff / heights + np.ptp(positions @ inverse, axis=0)).astype(int)
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    found = set()
    for source, target in itertools.product(range(len(positions)), repeat=2):
        lengths = np.linalg.norm(positions[target] - positions[source] + images @ cell, axis=1)
        near = (lengths < cutoff) & ((source != target) | images.any(axis=1))
        found |= {(source, target, *image) for image in images[near].tolist()}
    return found


def by_ase(positions: Array, cell: Array, cutoff: float) -> set[Edge]:
    atoms = ase.Atoms(numbers=np.ones(len(positions)), positions=positions, cell=cell, pbc=True)
    source, target, shift = ase.neighborlist.neighbor_list("ijS", atoms, cutoff)
    return {
        (i, j, *s) for i, j, s in zip(source.tolist(), target.tolist(), shift.tolist(), strict=True)
    }


@st.composite
def crystals(draw: st.DrawFn) -> tuple[Array, Array, float]:
    """Positions, cell and cutoff: skewed and left-handed cells, atoms on faces and outside."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    cell = np.diag(rng.uniform(1.5, 4, 3)) + draw(st.sampled_from([0, 0.5, 1])) * rng.normal(
        size=(3, 3)
    )
    # Flat cells only make the search over images long.
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    assume(heights.min() > 0.8)
    atoms = draw(st.integers(1, 5))
    spread = draw(st.sampled_from([1, 4]))
    fractional = spread * (rng.random((atoms, 3)) - 0.3)
    if draw(st.booleans()):
        fractional = np.round(fractional)
        assume(len(np.unique(fractional % 1, axis=0)) == atoms)
    cutoff = heights.min() * draw(st.sampled_from([0.3, 0.9, 1.4, 2.5]))
    return fractional @ cell, cell, float(cutoff)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(crystals())
def test_edges_are_those_of_brute_force_and_of_ase(crystal: tuple[Array, Array, float]) -> None:
    found = edges_of(*crystal)
    assert len(set(found)) == len(found)
    assert set(found) == brute_force(*crystal) == by_ase(*crystal)


@pytest.mark.parametrize("fractional", [0.0, 1.0, -1.0, 0.5, 1 - 1e-16])
def test_an_atom_on_a_face_is_seen_once_from_inside(fractional: float) -> None:
    cell = np.array([[3.0, 0, 0], [0.4, 3, 0], [0.2, -0.3, 3]])
    positions = np.array([[0.2, 0.2, 0.2], [fractional, 0, 0]]) @ cell
    assert set(edges_of(positions, cell, 2.9)) == brute_force(positions, cell, 2.9)


def test_a_lonely_atom_sees_its_own_six_images() -> None:
    edges = edges_of(np.array([[0.1, 0.2, 0.3]]), 3 * np.eye(3), 3.1)
    steps = {(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)}
    assert set(edges) == {(0, 0, *step) for step in steps}


def test_atoms_far_apart_see_nobody() -> None:
    edge_index, shifts = neighbor_list(np.zeros((1, 3)), 10 * np.eye(3), 3.4)
    assert edge_index.shape == (2, 0)
    assert shifts.shape == (0, 3)


@pytest.mark.parametrize("cells_away", [1, 100, 127, 128, 200, 1000])
def test_an_atom_many_cells_away_sees_the_near_image(cells_away: int) -> None:
    positions = np.array([[0.0, 0, 0], [1.0 + 3.0 * cells_away, 0, 0]])
    assert set(edges_of(positions, 3 * np.eye(3), 1.5)) == {
        (0, 1, -cells_away, 0, 0),
        (1, 0, cells_away, 0, 0),
    }


def test_atoms_too_many_cells_apart_to_be_counted_are_refused() -> None:
    positions = np.array([[0.0, 0, 0], [1.0 + 3.0 * 40_000, 0, 0]])
    with pytest.raises(ValueError, match="wrap their positions"):
        neighbor_list(positions, 3 * np.eye(3), 1.5)


def test_edges_are_sorted_by_target() -> None:
    rng = np.random.default_rng(0)
    edges = edges_of(rng.uniform(0, 6, (20, 3)), 6 * np.eye(3), 3.4)
    targets = [target for _, target, *_ in edges]
    assert targets == sorted(targets)
