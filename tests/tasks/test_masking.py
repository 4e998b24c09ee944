"""Hydrogen masking against numpy: who is hidden, where it was, and that nothing gives it away."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.potential import Potential
from study.tasks.config import Masking as Settings
from study.tasks.masking import MaskedBatch, Masking

Rows = NDArray[np.int64]

WATERS = ["cubic", "triclinic", "mixed", "shuffled cubic", "shuffled triclinic", "shuffled mixed"]
SEEN = ["z", "pos", "cell", "masked", "batch", "ptr"]
IMAGES = np.array(list(itertools.product(range(-2, 3), repeat=3)))


def masking(frames: Frames, ratio: float, cutoff: float = 3.4) -> Masking:
    graphs = GraphSet.build(frames, cutoff, dtype=torch.float64)
    return Masking(Settings(name="masking", masking_ratio=ratio), graphs)


def rows_left(frames: Frames, indices: list[int], graph: Batch) -> list[Rows]:
    """For every graph, which rows of `frames` its atoms are; found by their exact position."""
    rows = []
    for frame, positions in zip(indices, graph.pos.split(graph.ptr.diff().tolist()), strict=True):
        first, last = frames.offsets[frame : frame + 2]
        there = {tuple(x): first + i for i, x in enumerate(frames.positions[first:last].tolist())}
        rows.append(np.array([there[tuple(x)] for x in positions.tolist()]))
    return rows


def rows_hidden(frames: Frames, indices: list[int], graph: Batch) -> list[Rows]:
    """For every graph, which rows of `frames` it lacks."""
    return [
        np.setdiff1d(np.arange(*frames.offsets[frame : frame + 2]), left)
        for frame, left in zip(indices, rows_left(frames, indices, graph), strict=True)
    ]


def edges(rows: Rows, batch: Batch) -> list[tuple[float, ...]]:
    """Source and target by row, and the lattice translation; sorted."""
    shifts = batch.shift.numpy().round(6) + 0.0
    pairs = rows[batch.edge_index.T.numpy()].tolist()
    return sorted((*pair, *shift) for pair, shift in zip(pairs, shifts.tolist(), strict=True))


def shortest(vector: NDArray[np.float64], cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest of all periodic images of a vector."""
    images = vector - np.round(vector @ np.linalg.inv(cell)) @ cell + IMAGES @ cell
    return images[np.argmin(np.linalg.norm(images, axis=1))]


def expected_directions(frames: Frames, frame: int, hidden: Rows) -> dict[int, list[float]]:
    """Row of every atom that must point → unit vector to the hidden hydrogen of its molecule."""
    cell, rows = frames.cells[frame], np.arange(*frames.offsets[frame : frame + 2])
    oxygens, hydrogens = (rows[frames.numbers[rows] == number] for number in (8, 1))

    def towards(source: int, target: int) -> NDArray[np.float64]:
        return shortest(frames.positions[target] - frames.positions[source], cell)

    def oxygen_of(hydrogen: int) -> int:
        return min(oxygens, key=lambda oxygen: np.linalg.norm(towards(oxygen, hydrogen)))

    owners = {hydrogen: oxygen_of(hydrogen) for hydrogen in hydrogens}
    directions = {}
    for lost in hidden:
        (kept,) = (h for h in hydrogens if h != lost and owners[h] == owners[lost])
        for source in (owners[lost], kept):
            vector = towards(source, lost)
            directions[int(source)] = (vector / np.linalg.norm(vector)).tolist()
    return directions


@pytest.mark.parametrize("ratio", [0.13, 0.25, 0.5, 0.6, 0.999, 1.0])
@pytest.mark.parametrize("name", ["cubic", "shuffled triclinic"])
def test_a_ratio_of_the_molecules_lose_one_hydrogen_each(
    name: str, ratio: float, every_water: dict[str, Frames]
) -> None:
    frames, indices = every_water[name], [3, 0, 3]
    graph = masking(frames, ratio).example(torch.tensor(indices), seeded(0)).graph
    for frame, hidden in zip(indices, rows_hidden(frames, indices, graph), strict=True):
        assert set(frames.numbers[hidden]) == {1}
        assert len(expected_directions(frames, frame, hidden)) == 2 * len(hidden)
        assert len(hidden) == int(ratio * 8)


def test_every_frame_hides_a_ratio_of_its_own_molecules(mixed_water: Frames) -> None:
    indices = [0, 1, 2, 3]
    graph = masking(mixed_water, 0.6).example(torch.tensor(indices), seeded(0)).graph
    # int(0.6 * 8) and int(0.6 * 4).
    assert [len(rows) for rows in rows_hidden(mixed_water, indices, graph)] == [4, 2, 4, 2]


def test_every_molecule_and_both_its_hydrogens_are_hidden_equally_often(water: Frames) -> None:
    indices = [5] * 2000
    graph = masking(water, 0.5).example(torch.tensor(indices), seeded("often")).graph
    hidden = np.concatenate(rows_hidden(water, indices, graph)) - water.offsets[5]
    counts = np.bincount(hidden, minlength=24).reshape(8, 3)
    assert not counts[:, 0].any()
    # Each of a binomial distribution; five standard deviations are passed once in 1.7 million.
    assert np.abs(counts[:, 1:] - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(counts.sum(axis=1) - 1000).max() < 5 * np.sqrt(2000 * 0.5 * 0.5)
    assert abs(counts[:, 1].sum() - 4000) < 5 * np.sqrt(8000 * 0.5 * 0.5)


def test_molecules_are_hidden_independently_of_each_other(water: Frames) -> None:
    indices = [5] * 2000
    graph = masking(water, 0.25).example(torch.tensor(indices), seeded("pairs")).graph
    pairs = Counter(
        tuple((rows - water.offsets[5]) // 3) for rows in rows_hidden(water, indices, graph)
    )
    # 28 pairs of 8 molecules.
    deviation = 5 * np.sqrt(2000 / 28 * 27 / 28)
    assert len(pairs) == 28
    assert max(abs(count - 2000 / 28) for count in pairs.values()) < deviation


@pytest.mark.parametrize("name", WATERS)
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_directions_are_minimum_image_unit_vectors_to_the_hidden_hydrogen(
    name: str, ratio: float, every_water: dict[str, Frames]
) -> None:
    frames, indices = every_water[name], [2, 1]
    example = masking(frames, ratio).example(torch.tensor(indices), seeded(1))
    rows = np.concatenate(rows_left(frames, indices, example.graph))[example.atoms]
    expected: dict[int, list[float]] = {}
    for frame, hidden in zip(indices, rows_hidden(frames, indices, example.graph), strict=True):
        expected |= expected_directions(frames, frame, hidden)
    assert len(set(rows)) == len(rows)
    assert set(rows) == set(expected)
    actual = example.directions.numpy()
    np.testing.assert_allclose(actual, [expected[row] for row in rows], atol=1e-9)


def test_the_pointing_atoms_and_no_others_are_marked(water: Frames) -> None:
    example = masking(water, 0.5).example(torch.tensor([0, 7]), seeded(2))
    marked = torch.nonzero(example.graph.masked).flatten()
    assert set(marked.tolist()) == set(example.atoms.tolist())
    assert set(example.graph.masked.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", WATERS)
def test_the_edges_left_are_the_original_ones_between_the_atoms_left(
    name: str, every_water: dict[str, Frames]
) -> None:
    frames, indices = every_water[name], [3, 1]
    task = masking(frames, 0.5)
    graph = task.example(torch.tensor(indices), seeded(3)).graph
    left = np.concatenate(rows_left(frames, indices, graph))
    whole = task.graphs.gather(torch.tensor(indices))
    every = np.concatenate([np.arange(*frames.offsets[frame : frame + 2]) for frame in indices])

    expected = [edge for edge in edges(every, whole) if set(edge[:2]) <= set(left.tolist())]
    assert edges(left, graph) == expected
    assert len(expected) < whole.num_edges


@pytest.mark.parametrize("name", ["cubic", "shuffled triclinic"])
def test_where_the_hidden_hydrogens_are_does_not_reach_the_model(
    name: str, every_water: dict[str, Frames]
) -> None:
    frames, indices = every_water[name], torch.arange(4)
    before = masking(frames, 1.0).example(indices, seeded(4)).graph
    hidden = np.concatenate(rows_hidden(frames, [0, 1, 2, 3], before))
    positions = frames.positions.copy()
    positions[hidden] += np.random.default_rng(0).uniform(-0.15, 0.15, (len(hidden), 3))
    forces, energies = np.zeros_like(frames.forces), np.zeros_like(frames.energies)
    moved = replace(frames, positions=positions, forces=forces, energies=energies)
    after = masking(moved, 1.0).example(indices, seeded(4)).graph
    assert set(before.keys()) == set(after.keys()) == {*SEEN, "edge_index", "shift"}
    assert all(torch.equal(before[name], after[name]) for name in SEEN)
    rows = np.arange(before.num_nodes)
    assert edges(rows, before) == edges(rows, after)


@pytest.mark.parametrize("name", ["mixed", "shuffled mixed"])
def test_the_graph_left_is_a_whole_batch(name: str, every_water: dict[str, Frames]) -> None:
    graph = masking(every_water[name], 0.5).example(torch.tensor([1, 0, 1]), seeded(5)).graph
    # 12 − 2 atoms, 24 − 4 and again 12 − 2.
    assert graph.ptr.tolist() == [0, 10, 30, 40]
    assert graph.batch.tolist() == [0] * 10 + [1] * 20 + [2] * 10
    assert graph.num_graphs == 3
    assert graph.edge_index.max() < 40


class Oracle:
    """A stand-in for a model that answers with what it is told of every example."""

    def __init__(self, task: Masking, seed: int, answer: Callable[[Tensor, int], Tensor]) -> None:
        self.task, self.generator, self.answer = task, seeded(seed), answer
        self.examples: list[MaskedBatch] = []

    def expect(self, *batches: Tensor) -> Oracle:
        self.examples = [self.task.example(frames, self.generator) for frames in batches]
        return self

    def vectors(self, graph: Batch) -> Tensor:
        """Only pointing atoms may count: all others get nonsense."""
        example = self.examples.pop(0)
        vectors = torch.full_like(graph.pos, 77.0)
        vectors[example.atoms] = self.answer(example.directions, graph.num_graphs)
        return vectors


@pytest.mark.parametrize(("factor", "loss"), [(3.7, 0.0), (1e-3, 0.0), (-2.5, 2.0)])
def test_the_loss_is_0_for_perfect_and_2_for_opposite_answers(
    water: Frames, factor: float, loss: float
) -> None:
    task, frames = masking(water, 0.5), torch.tensor([0, 4, 9])
    oracle = Oracle(task, 6, lambda directions, _graphs: factor * directions).expect(frames)
    assert task.loss(oracle, frames, seeded(6)).item() == pytest.approx(loss, abs=1e-12)


def test_the_loss_of_random_answers_is_1(water: Frames) -> None:
    task, frames = masking(water, 0.5), torch.arange(12).repeat(100)

    def guess(directions: Tensor, _graphs: int) -> Tensor:
        return torch.randn(directions.shape, generator=seeded(8), dtype=directions.dtype)

    loss = task.loss(Oracle(task, 7, guess).expect(frames), frames, seeded(7)).item()
    # 9600 cosines, each uniform in [−1, 1] with variance 1/3.
    assert loss == pytest.approx(1, abs=5 * np.sqrt(1 / 3 / 9600))


def test_validation_averages_over_atoms_not_over_batches(water: Frames) -> None:
    task, batches = masking(water, 0.5), [torch.arange(9), torch.arange(9, 12)]

    def wrong_in_large_batches(directions: Tensor, graphs: int) -> Tensor:
        return -directions if graphs == 9 else directions

    oracle = Oracle(task, 9, wrong_in_large_batches).expect(*batches)
    # 9 of 12 frames have the opposite direction, loss 2.
    assert task.evaluate(oracle, batches, seeded(9)) == {"val_loss": pytest.approx(1.5)}


def test_the_same_generator_gives_the_same_example(water: Frames) -> None:
    task, frames = masking(water, 0.5), torch.arange(12)
    first, second = (task.example(frames, seeded("same", 1)) for _ in range(2))
    assert torch.equal(first.graph.pos, second.graph.pos)
    assert torch.equal(first.directions, second.directions)


def test_another_generator_gives_another_example(water: Frames) -> None:
    task, frames = masking(water, 0.5), torch.arange(12)
    first, second = (task.example(frames, seeded("other", i)) for i in range(2))
    assert not torch.equal(first.graph.pos, second.graph.pos)


def test_an_example_leaves_the_global_random_state_alone(water: Frames) -> None:
    task, before = masking(water, 0.5), torch.get_rng_state()
    task.example(torch.arange(12), seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "ratio", "fewest"), [("cubic", 0.12, 8), ("mixed", 0.2, 4)])
def test_a_ratio_that_hides_nothing_in_some_frame_is_refused(
    name: str, ratio: float, fewest: int, every_water: dict[str, Frames]
) -> None:
    with pytest.raises(UserError, match=f"masking_ratio={ratio}, molecules={fewest}"):
        masking(every_water[name], ratio)


def test_by_distance_the_displacement_is_learned_and_not_the_direction_alone(
    triclinic_water: Frames,
) -> None:
    graphs = GraphSet.build(triclinic_water, 3.4, dtype=torch.float64)
    frames = torch.tensor([3, 0])
    tasks = {
        loss: Masking(Settings(name="masking", masking_ratio=0.5, loss=loss), graphs)
        for loss in ("cosine", "distance")
    }
    (by_angle,), (term,) = (task.terms(frames, seeded(0)) for task in tasks.values())
    masked = tasks["distance"].example(frames, seeded(0))
    lengths = masked.distances.squeeze(-1)
    # Of O–H and of H–H.
    short, long = lengths.sort().values.chunk(2)
    torch.testing.assert_close(short, torch.full_like(short, 0.9572))
    torch.testing.assert_close(long, torch.full_like(long, 2 * 0.9572 * np.sin(np.radians(52.26))))

    vectors = torch.zeros_like(masked.graph.pos)
    vectors[masked.atoms] = masked.distances * masked.directions
    for factor, expected in ((1.0, 0.0), (0.0, 1.0), (2.0, 1.0), (-1.0, 4.0)):
        model = Fixed(factor * vectors)
        found = term.penalty(model, term.batch)
        assert float(found) == pytest.approx(expected * float(lengths.square().mean()), abs=1e-12)
        metrics = tasks["distance"].evaluate(model, [frames], seeded(0))
        assert metrics["val_loss"] == pytest.approx(float(found), abs=1e-12)
    assert float(by_angle.penalty(Fixed(2 * vectors), by_angle.batch)) == pytest.approx(0)
    assert tasks["distance"].settings.label == "masking 0.5 by distance"


class Fixed(Potential):
    """Puts out given vectors."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.fixed = vectors

    def vectors(self, _graph: Batch) -> Tensor:
        return self.fixed
