"""Edges of frames, precomputed or built per batch, and the index of their rows."""

from __future__ import annotations

import pytest
import torch

from study.datasets.frames import Frames
from study.graphs.edges import OnTheFlyEdges, PrecomputedEdges, RaggedIndex
from study.graphs.graph_set import GraphSet

CUTOFF = 3.4


def test_rows_of_owners_come_in_the_order_asked_for() -> None:
    ragged = RaggedIndex(torch.tensor([0, 2, 2, 5]))
    rows, place = ragged.rows(torch.tensor([2, 0, 1, 2]))
    assert rows.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert place.tolist() == [0, 0, 0, 1, 1, 3, 3, 3]


def test_no_owners_have_no_rows() -> None:
    rows, place = RaggedIndex(torch.tensor([0, 2])).rows(torch.tensor([], dtype=torch.long))
    assert len(rows) == len(place) == 0


@pytest.mark.parametrize("name", ["cubic", "triclinic", "shuffled mixed"])
def test_batches_are_the_same_whether_neighbours_are_held_or_found(
    name: str, every_water: dict[str, Frames]
) -> None:
    frames = every_water[name]
    precomputed = GraphSet.build(frames, CUTOFF)
    on_the_fly = GraphSet.build(frames, CUTOFF, max_edge_bytes=0)
    assert isinstance(precomputed.edges, PrecomputedEdges)
    assert isinstance(on_the_fly.edges, OnTheFlyEdges)
    for order in ([0, 1, 2, 3], [2, 0], [1, 1], [3]):
        ours, theirs = (graphs.gather(torch.tensor(order)) for graphs in (precomputed, on_the_fly))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys())  # noqa: SIM118


def test_neighbours_are_held_up_to_the_bytes_that_they_take(water: Frames) -> None:
    everything = torch.arange(len(water))
    edges = GraphSet.build(water, CUTOFF).edges
    assert isinstance(edges, PrecomputedEdges)
    assert edges.nbytes == 14 * edges.count(everything)
    kinds = [
        type(GraphSet.build(water, CUTOFF, max_edge_bytes=edges.nbytes + more).edges)
        for more in (-1, 0)
    ]
    assert kinds == [OnTheFlyEdges, PrecomputedEdges]


def test_neighbours_that_are_not_held_are_counted_about(mixed_water: Frames) -> None:
    precomputed, on_the_fly = (
        GraphSet.build(mixed_water, CUTOFF, max_edge_bytes=most).edges for most in (None, 0)
    )
    everything = torch.arange(4)
    assert on_the_fly.count(everything) == precomputed.count(everything)
    assert on_the_fly.count(torch.tensor([1])) == pytest.approx(
        precomputed.count(torch.tensor([1])), rel=0.2
    )
