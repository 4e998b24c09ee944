"""Neighbours against a search over all images, and against ASE."""

from __future__ import annotations

import itertools

import ase
import ase.neighborlist
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets import pairs
from study.datasets.frames import Frames
from study.graphs import neighbor_list as graphs_neighbor_list
from study.graphs.graph_set import GraphSet, connect
from study.graphs.neighbor_list import dense_neighbors, neighbor_list, neighbor_lists

Array = NDArray[np.float64]
Edge = tuple[int, int, int, int, int]
"""Source, target, and the three lattice translations of the target."""


def edges_of(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    """What is found with vesin; without it the same must be, in any order of each target's."""
    edges = searched(positions, cell, cutoff)
    assert sorted(searched_without_vesin(positions, cell, cutoff)) == sorted(edges)
    dense = searched_densely(positions, cell, cutoff)
    assert (dense is not None) == (thinnest(cell) >= 2 * cutoff)
    assert dense is None or sorted(dense) == sorted(edges)
    return edges


def searched(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    edge_index, shifts = neighbor_list(positions, cell, cutoff)
    return [tuple(edge) for edge in np.concatenate([edge_index, shifts.T]).T.tolist()]


def searched_without_vesin(positions: Array, cell: Array, cutoff: float) -> list[Edge]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pairs, "find_vesin", lambda: None)
        return searched(positions, cell, cutoff)


def searched_densely(positions: Array, cell: Array, cutoff: float) -> list[Edge] | None:
    ptr = torch.tensor([0, len(positions)])
    pairs_found = dense_neighbors(torch.tensor(positions), ptr, torch.tensor(cell)[None], cutoff)
    if pairs_found is None:
        return None
    edge_index, shifts = pairs_found
    return [tuple(edge) for edge in torch.cat([edge_index, shifts.T.long()]).T.tolist()]


def thinnest(cell: Array) -> float:
    """Smallest distance between opposite faces that repeat: volume over area, or area over edge."""
    vectors = cell[cell.any(axis=1)]
    if len(vectors) == 0:
        return float("inf")

    def content(edges: Array) -> float:
        return float(np.sqrt(max(np.linalg.det(edges @ edges.T), 0))) if len(edges) else 1.0

    faces = [content(np.delete(vectors, axis, axis=0)) for axis in range(len(vectors))]
    return content(vectors) / max(faces)


def brute_force(positions: Array, cell: Array, cutoff: float) -> set[Edge]:
    """Every pair in every image that can be near enough; zero vectors repeat nothing."""
    heights = np.linalg.norm(np.linalg.pinv(cell), axis=0)
    reach = np.ceil((cutoff + np.linalg.norm(np.ptp(positions, axis=0))) * heights).astype(int)
    reach[~cell.any(axis=1)] = 0
    images = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    pairs_found = set()
    for source, target in itertools.product(range(len(positions)), repeat=2):
        lengths = np.linalg.norm(positions[target] - positions[source] + images @ cell, axis=1)
        near = (lengths < cutoff) & ((source != target) | images.any(axis=1))
        pairs_found |= {(source, target, *image) for image in images[near].tolist()}
    return pairs_found


def by_ase(positions: Array, cell: Array, cutoff: float) -> set[Edge]:
    atoms = ase.Atoms(
        numbers=np.ones(len(positions)), positions=positions, cell=cell, pbc=cell.any(axis=1)
    )
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
    pairs_found = edges_of(*crystal)
    assert len(set(pairs_found)) == len(pairs_found)
    assert set(pairs_found) == brute_force(*crystal) == by_ase(*crystal)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(crystals(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_slabs_wires_and_molecules_repeat_where_they_say(
    crystal: tuple[Array, Array, float], pbc: tuple[bool, ...]
) -> None:
    positions, cell, cutoff = crystal
    lattice = np.where(np.array(pbc)[:, None], cell, 0.0)
    found = edges_of(positions, lattice, cutoff)
    assert len(set(found)) == len(found)
    assert (
        set(found) == brute_force(positions, lattice, cutoff) == by_ase(positions, lattice, cutoff)
    )


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(crystals(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_batch_finds_on_its_device_what_brute_force_finds_whatever_repeats(
    crystal: tuple[Array, Array, float], pbc: tuple[bool, ...]
) -> None:
    positions, cell, cutoff = crystal
    lattice = np.where(np.array(pbc)[:, None], cell, 0.0)
    ptr = torch.tensor([0, len(positions)])
    found = dense_neighbors(torch.tensor(positions), ptr, torch.tensor(lattice)[None], cutoff)
    if found is None:
        assert any(pbc)
        return
    edges = torch.cat([found[0].T, found[1].long()], dim=1).tolist()
    assert set(map(tuple, edges)) == brute_force(positions, lattice, cutoff)


@pytest.mark.parametrize(
    "sides", [(1e6, 3, 3), (1e7, 10, 10), (1e6, 1e6, 3), (1e6, 0, 3), (0, 0, 3), (0, 0, 0)]
)
def test_atoms_far_apart_are_searched_in_any_shape(sides: tuple[float, ...]) -> None:
    # vesin ends the process by a division by zero where it merges bins of a needle.
    cell = np.diag(sides)
    positions = np.array([[0.0, 0, 0], [1.0, 0, 0], [7e5, 1, 1], [7e5 + 1, 1, 1]])
    found = searched(positions, cell, 1.5)
    assert set(found) == {(a, b, 0, 0, 0) for a, b in ((0, 1), (1, 0), (2, 3), (3, 2))}
    assert sorted(searched_without_vesin(positions, cell, 1.5)) == sorted(found)


def test_a_cell_too_thin_to_count_its_images_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"images within 3.5 Å, but its faces are 1e-06 Å apart"):
        neighbor_list(np.zeros((1, 3)), np.diag([1e-6, 1e-6, 5]), 3.5)


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


def test_a_batch_is_connected_on_its_device_as_frame_by_frame(mixed_water: Frames) -> None:
    cutoff = 1.5
    batch = GraphSet.build(mixed_water, cutoff).gather(torch.tensor([3, 0, 2]))
    batch.pos += 3 * torch.randn(batch.pos.shape, generator=seeded(0))
    edge_index, shift = connect(batch, cutoff)
    pairs_found = dense_neighbors(batch.pos, batch.ptr, batch.cell, cutoff)
    assert pairs_found is not None
    lattice = zip(pairs_found[1].float(), batch.cell[batch.batch[pairs_found[0][0]]], strict=True)
    moved = torch.stack([steps @ cell for steps, cell in lattice])

    def in_order(edges: Tensor, shifts: Tensor) -> list[list[float]]:
        return sorted(torch.cat([edges, (1e3 * shifts).round().T]).T.tolist())

    assert in_order(pairs_found[0], moved) == in_order(edge_index, shift)
    assert torch.equal(pairs_found[0][1], edge_index[1])  # Both are sorted by target.


def test_too_many_pairs_are_left_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.zeros((3, 3)), torch.tensor([0, 2, 3]), 10 * torch.eye(3).expand(2, 3, 3)
    monkeypatch.setattr(graphs_neighbor_list, "MAX_PAIRS", 5)
    assert dense_neighbors(*batch, cutoff=3.4) is not None
    monkeypatch.setattr(graphs_neighbor_list, "MAX_PAIRS", 4)
    assert dense_neighbors(*batch, cutoff=3.4) is None


@pytest.mark.parametrize("package", ["vesin", "none"])
def test_many_frames_have_the_edges_of_each_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    if package == "none":
        monkeypatch.setattr(pairs, "find_vesin", lambda: None)
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 60)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    positions = rng.normal(scale=2, size=(offsets[-1], 3))
    # Molecules with atoms at distances equal to the cutoff, a needle, and frames that repeat.
    positions[: offsets[20]] = rng.integers(0, 4, (offsets[20], 3))
    positions[offsets[21] - 1] = 7e6, 1, 1
    cells = np.zeros((60, 3, 3))
    cells[::7] = np.diag([6.0, 7, 0])
    index, shifts, counts = neighbor_lists(positions, offsets, cells, 3.0)
    alone = [
        neighbor_list(positions[first:last], cell, 3.0)
        for first, last, cell in zip(offsets[:-1], offsets[1:], cells, strict=True)
    ]
    np.testing.assert_array_equal(index, np.concatenate([each for each, _ in alone], axis=1))
    np.testing.assert_array_equal(shifts, np.concatenate([each for _, each in alone]))
    assert counts.tolist() == [len(each) for _, each in alone]
    assert (index.dtype, shifts.dtype) == (np.int32, np.int16)
