"""Batches gathered by index are what frames built one by one give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_add_pool

from study.datasets.frames import Frames
from study.datasets.parsing import array_files
from study.datasets.parsing.array_files import DerivedArrays
from study.graphs import edges, graph_set
from study.graphs.graph_set import EVALUATED_ATOMS, GraphSet, edge_vectors
from study.graphs.neighbor_list import neighbor_list
from study.models.build import build_model
from study.models.config import EGNN

CUTOFF = 3.4


def to_data(frames: Frames, index: int) -> Data:
    """One frame as torch-geometric `Data`, built from `neighbor_list` alone."""
    frame = frames.select(np.array([index]))
    edge_index, translations = neighbor_list(frame.positions, frame.cells[0], CUTOFF)
    cell = torch.tensor(frame.cells, dtype=torch.float32)
    return Data(
        z=torch.tensor(frame.numbers, dtype=torch.long),
        pos=torch.tensor(frame.positions, dtype=torch.float32),
        edge_index=torch.tensor(edge_index, dtype=torch.long),
        shift=torch.tensor(translations, dtype=torch.float32) @ cell[0],
        cell=cell,
        energy=torch.tensor(frame.energies),
        force=torch.tensor(frame.forces, dtype=torch.float32),
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1], [2, 2, 0], [1]])
def test_a_batch_is_its_frames_built_one_by_one(mixed_water: Frames, order: list[int]) -> None:
    batch = GraphSet.build(mixed_water, CUTOFF).gather(torch.tensor(order))
    alone = Batch.from_data_list([to_data(mixed_water, i) for i in order])
    for name in ("z", "pos", "edge_index", "shift", "batch", "ptr", "energy", "force"):
        assert torch.equal(batch[name], alone[name]), name


def test_a_batch_works_with_torch_geometric(mixed_water: Frames) -> None:
    batch = GraphSet.build(mixed_water, CUTOFF).gather(torch.tensor([1, 0, 1]))
    assert (batch.num_graphs, batch.num_nodes) == (3, 48)
    assert batch.ptr.tolist() == [0, 12, 36, 48]
    atoms = global_add_pool(torch.ones(48, 1), batch.batch)
    assert atoms.flatten().tolist() == [12, 24, 12]


def test_torch_geometrics_own_batch_gives_the_same_prediction(
    mixed_water: Frames, egnn: EGNN
) -> None:
    model = build_model(egnn, seed=0).eval()
    ours = model(GraphSet.build(mixed_water, CUTOFF).gather(torch.arange(4)))
    theirs = model(Batch.from_data_list([to_data(mixed_water, i) for i in range(4)]))
    assert torch.equal(ours.energy, theirs.energy)
    assert torch.equal(ours.forces, theirs.forces)


def test_a_single_frame_needs_no_batch(mixed_water: Frames, egnn: EGNN) -> None:
    model = build_model(egnn, seed=0).eval()
    alone = model(to_data(mixed_water, 1))
    batch = model(GraphSet.build(mixed_water, CUTOFF).gather(torch.tensor([1])))
    assert torch.equal(alone.energy, batch.energy)
    assert torch.equal(alone.forces, batch.forces)


@pytest.mark.parametrize("name", ["triclinic", "shuffled triclinic", "shuffled mixed"])
def test_edge_vectors_are_short_and_end_in_an_image_of_the_target(
    name: str, every_water: dict[str, Frames]
) -> None:
    graphs = GraphSet.build(every_water[name], CUTOFF, dtype=torch.float64)
    batch = graphs.gather(torch.tensor([1, 0]))
    vectors = edge_vectors(batch, batch.pos).numpy()
    lengths = np.linalg.norm(vectors, axis=1)
    assert 0.9 < lengths.min() < lengths.max() < CUTOFF
    source, target = batch.edge_index.numpy()
    apart = vectors - (batch.pos[target] - batch.pos[source]).numpy()
    cells = graphs.cell[torch.tensor([1, 0])].numpy()[batch.batch.numpy()[source]]
    translations = np.linalg.solve(cells.swapaxes(1, 2), apart[..., None])
    np.testing.assert_allclose(translations, np.round(translations), atol=1e-9)
    assert np.round(translations).any()


def test_no_edge_connects_two_frames(mixed_water: Frames) -> None:
    batch = GraphSet.build(mixed_water, CUTOFF).gather(torch.tensor([3, 2, 1, 0]))
    source, target = batch.edge_index
    assert torch.equal(batch.batch[source], batch.batch[target])
    assert set(batch.batch[source].tolist()) == {0, 1, 2, 3}


def test_energies_keep_double_precision(water: Frames) -> None:
    huge = replace(water, energies=water.energies - 7e5)
    energy = GraphSet.build(huge, CUTOFF).gather(torch.tensor([3])).energy
    assert energy.item() == huge.energies[3]


@pytest.mark.parametrize("batch_size", [1, 3, 500])
def test_batches_to_evaluate_on_hold_each_frame_once_and_are_no_smaller_than_those_of_training(
    water: Frames, batch_size: int
) -> None:
    graphs = GraphSet.build(water, 3.4)
    frames = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0)).repeat(20)
    batches = graphs.evaluation_batches(frames, batch_size)
    assert torch.equal(torch.cat(batches), frames)
    atoms = [graphs.atoms.count(batch) for batch in batches]
    assert all(len(batch) >= batch_size or batch is batches[-1] for batch in batches)
    assert max(atoms) <= max(EVALUATED_ATOMS, batch_size * max(map(int, water.sizes)))
    assert graphs.evaluation_batches(frames[:0], batch_size)[0].numel() == 0


def test_graphs_of_a_large_set_are_mapped_and_equal_to_those_in_memory(
    every_water: dict[str, Frames], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_set, "STORED_ATOMS", 0)
    monkeypatch.setattr(edges, "STORED_EDGE_BYTES", 0)
    monkeypatch.setattr(edges, "MANY_MOLECULES", 0)
    monkeypatch.setattr(edges, "SAMPLE_FRAMES", 2)
    monkeypatch.setattr(edges, "ATOMS_AT_ONCE", 30)
    monkeypatch.setattr(array_files, "MAPPED", 0)
    mixed = every_water["shuffled mixed"]
    slab = np.ones((len(mixed), 3), bool)
    slab[::2, 2] = False
    sets = {
        "periodic": mixed,
        "molecules": replace(mixed, pbc=np.zeros(3, bool)),
        "slabs": replace(mixed, pbc=slab, stresses=np.ones((len(mixed), 3, 3))),
    }
    for name, frames in sets.items():
        memory = GraphSet.build(frames, CUTOFF)
        frames.save(tmp_path / name)
        for _ in range(2):  # The second time nothing is made.
            graphs = GraphSet.build(
                Frames.load(tmp_path / name), CUTOFF, store=DerivedArrays(tmp_path / name, name)
            )
            for order in ([0, 1, 2, 3], [2, 0], [1, 1], [3]):
                ours, theirs = (each.gather(torch.tensor(order)) for each in (graphs, memory))
                assert ours.keys() == theirs.keys()
                assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys())  # noqa: SIM118
                if name != "molecules":
                    ours, theirs = (
                        each.edges.count(torch.tensor(order)) for each in (graphs, memory)
                    )
                    assert ours == theirs
        if name == "molecules":
            assert isinstance(graphs.edges, edges.OnTheFlyEdges)
            assert not list(tmp_path.glob(f"{name}/*-*/*"))
            continue
        (folder,) = (each.parent for each in tmp_path.glob(f"{name}/edges-*/target.npy"))
        written = (folder / "target.npy").stat().st_mtime_ns
        (folder / "source.npy").write_bytes(b"damaged")
        again = GraphSet.build(frames, CUTOFF, store=DerivedArrays(tmp_path / name, name))
        assert (folder / "target.npy").stat().st_mtime_ns > written
        everything = torch.arange(len(frames))
        assert torch.equal(
            again.gather(everything).edge_index, memory.gather(everything).edge_index
        )
