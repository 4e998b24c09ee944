"""GNS beyond its contract."""

from __future__ import annotations

import torch
from torch import Tensor

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import GNS
from study.models.layers.radial import bessel_basis


def test_gns_edges_are_told_vector_and_distance_in_units_of_the_cutoff(graphs: GraphSet) -> None:
    batch, encoder_inputs = graphs.gather(torch.tensor([0])), []
    model = build_model(GNS(name="gns", hidden=8, layers=1), seed=0).double()
    model.encode_edge.register_forward_hook(lambda _, inputs, __: encoder_inputs.append(inputs[0]))
    model(batch)
    source, target = batch.edge_index
    vectors = batch.pos[target] - batch.pos[source] + batch.shift
    expected = torch.cat([vectors, vectors.norm(dim=1, keepdim=True)], dim=1) / 3.4
    torch.testing.assert_close(encoder_inputs[0], expected)


def test_gns_edges_with_a_bessel_basis_are_told_the_direction_alone(graphs: GraphSet) -> None:
    settings, encoder_inputs = GNS(name="gns", hidden=8, layers=1, radial="bessel", basis=5), []
    batch = graphs.gather(torch.tensor([0]))
    model = build_model(settings, seed=0).double()
    model.encode_edge.register_forward_hook(lambda _, inputs, __: encoder_inputs.append(inputs[0]))
    model(batch)
    source, target = batch.edge_index
    vectors = batch.pos[target] - batch.pos[source] + batch.shift
    distance = vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder_inputs[0][:, :3], 3**0.5 * vectors / distance)
    torch.testing.assert_close(encoder_inputs[0][:, 3:], bessel_basis(distance, 3.4, 5))


def edge_states(edge_update: str, batch: Tensor) -> list[Tensor]:
    """The edge states that each of four steps starts from."""
    settings = GNS(name="gns", hidden=8, layers=4, edge_update=edge_update)
    model, states = build_model(settings, seed=0).double(), []
    for layer in model.layers:
        layer.state.register_forward_hook(lambda _, inputs, __: states.append(inputs[0]))
    model(batch)
    return states


def test_legacy_edge_states_double_at_every_step_and_others_do_not(water: Frames) -> None:
    batch = GraphSet.build(water, 3.4, dtype=torch.float64).gather(torch.tensor([0]))
    first, *legacy = edge_states("legacy", batch)
    for step, state in enumerate(legacy, start=1):
        assert torch.equal(state, 2**step * first)
    first, second, *_ = edge_states("residual", batch)
    # What is added to a state has been through a layer norm.
    change = second - first
    torch.testing.assert_close(change.mean(dim=1), torch.zeros(len(change)).double())
    torch.testing.assert_close(
        change.var(dim=1, correction=0), torch.ones(len(change)).double(), rtol=1e-2, atol=1e-2
    )
