"""SchNet, ViSNet, the equivariant transformer and GNS-TAT beyond their contract."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sympy.physics.wigner import real_gaunt
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn.models import SchNet as PublishedSchNet
from torch_geometric.nn.models.visnet import ViSNetBlock

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, edge_vectors
from study.models.build import build_model
from study.models.config import EGNN, GNS, EquivariantTransformer, SchNet, SE3Transformer, ViSNet
from study.models.equivariant_transformer import EquivariantTransformer as OurTransformer
from study.models.gns import network_correlation_map
from study.models.layers.radial import cutoff_envelope, distances, exponential_basis
from study.models.layers.tailored_relu import TARGET, TailoredReLU, correlation_map, tailored_slope
from study.models.se3_transformer import coupling_tensor

CUTOFF = 3.4


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames whose cells are larger than the cutoff."""
    graphs = GraphSet.build(mixed_water, CUTOFF, dtype=torch.float64)
    return graphs.gather(torch.tensor([2, 0]))


def test_schnet_is_that_of_torch_geometric(batch: Batch) -> None:
    settings = SchNet(
        name="schnet", hidden=8, layers=2, basis=6, cutoff=CUTOFF, envelope="raised_cosine"
    )
    ours = build_model(settings, seed=0).double().eval()
    distance = distances(edge_vectors(batch, batch.pos)).squeeze(-1)
    published = PublishedSchNet(
        8, 8, 2, 6, CUTOFF, interaction_graph=lambda _pos, _batch: (batch.edge_index, distance)
    ).double()
    weights = ours.state_dict()
    names = {"embedding.weight": weights["embedding.species.weight"][:100]}
    for key, part in (("lin1", "readout.0"), ("lin2", "readout.2")):
        names |= {f"{key}.{kind}": weights[f"{part}.{kind}"] for kind in ("weight", "bias")}
    for key, value in weights.items():
        if key.startswith("layers."):
            _, number, rest = key.split(".", 2)
            rest = rest.replace("convolution", "conv").replace("node.1", "lin")
            names[f"interactions.{number}.{rest}"] = value
            if "conv.nn" in rest:
                names[f"interactions.{number}.{rest.replace('conv.nn', 'mlp')}"] = value
    published.load_state_dict(names, strict=False)
    expected = published(batch.z, batch.pos, batch.batch).squeeze(-1)
    torch.testing.assert_close(ours(batch).energy, expected, rtol=1e-9, atol=1e-9)


class _OurEdges(torch.nn.Module):
    """Periodic edges and loops, as torch-geometric's `Distance` gives them without a cell.

    No atom may see images of itself, which torch-geometric would take for loops.
    """

    def __init__(self, graph: Batch) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del batch
        loops = torch.arange(len(pos)).expand(2, -1)
        vectors = torch.cat([-edge_vectors(self.graph, pos), torch.zeros_like(pos)])
        edges = torch.cat([self.graph.edge_index, loops], dim=1)
        return edges, vectors.norm(dim=-1), vectors


@pytest.mark.parametrize("degrees", [1, 2])
def test_visnet_is_that_of_torch_geometric_but_for_its_messages_at_the_cutoff(
    batch: Batch, degrees: int
) -> None:
    settings = ViSNet(
        name="visnet",
        hidden=8,
        layers=3,
        basis=6,
        heads=2,
        cutoff=CUTOFF,
        envelope="raised_cosine",
        degrees=degrees,
    )
    ours = build_model(settings, seed=0).double().eval()
    sizes = {"num_heads": 2, "num_layers": 3, "hidden_channels": 8, "num_rbf": 6}
    published = ViSNetBlock(lmax=degrees, cutoff=CUTOFF, trainable_rbf=False, **sizes).double()
    published.distance = _OurEdges(batch)
    renamed = {
        "embedding.species": "embedding",
        "neighbors": "neighbor_embedding",
        "edges": "edge_embedding",
        "layers": "vis_mp_layers",
        "norm": "out_norm",
    }
    weights = {}
    for key, value in ours.state_dict().items():
        for mine, theirs in renamed.items():
            if key.startswith(f"{mine}."):
                weights[theirs + key.removeprefix(mine)] = value
    weights = {
        key: value[:100] if "bedding.weight" in key else value for key, value in weights.items()
    }
    published.load_state_dict(weights, strict=False)
    # Ours fade out at the cutoff.
    published.vis_mp_layers = ours.layers  # type: ignore[attr-defined]
    found = ours.features(batch, batch.pos)  # type: ignore[operator]
    expected = published(batch.z, batch.pos, batch.batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_exponential_basis_has_its_centres_between_cutoff_and_zero() -> None:
    distance = torch.tensor([[0.0], [CUTOFF]], dtype=torch.float64)
    basis = exponential_basis(distance, CUTOFF, 5)
    assert basis.argmax(dim=1).tolist() == [4, 0]
    torch.testing.assert_close(basis.max(dim=1).values, torch.ones(2, dtype=torch.float64))


def test_the_raised_cosine_falls_from_one_to_zero_without_a_slope_at_the_end() -> None:
    distance = torch.tensor([[0.0], [1.5], [3.0]], dtype=torch.float64, requires_grad=True)
    weight = cutoff_envelope(distance, 3.0, "raised_cosine")
    assert weight.flatten().tolist() == pytest.approx([1, 0.5, 0])
    weight.sum().backward()
    assert distance.grad is not None
    assert distance.grad[2].item() == pytest.approx(0)


def test_attention_heads_see_their_own_features_alone(batch: Batch) -> None:
    energies = []
    for heads in (1, 2, 8):
        settings = EquivariantTransformer(
            name="equivariant_transformer", hidden=8, layers=2, basis=6, heads=heads
        )
        energies.append(build_model(settings, seed=0).double().eval()(batch).energy.tolist())
    assert energies[0] != energies[1] != energies[2]


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.7, 1.0])
def test_a_tailored_activation_maps_correlations_as_predicted(slope: float, cosine: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    second = cosine * first + math.sqrt(1 - cosine**2) * other
    activation = TailoredReLU(slope)
    mean = (activation(first) * activation(second)).mean().item()
    assert mean == pytest.approx(correlation_map(slope)(cosine), abs=0.01)


@pytest.mark.parametrize("layers", [10, 30])
def test_the_slope_is_tailored_to_the_depth(layers: int) -> None:
    slope = tailored_slope(lambda layer: network_correlation_map(layers, layer))
    assert 0 < slope < 1
    assert network_correlation_map(layers, correlation_map(slope))(0.0) == pytest.approx(TARGET)
    deeper = tailored_slope(lambda layer: network_correlation_map(2 * layers, layer))
    assert deeper > slope


def test_a_network_too_shallow_to_tailor_gets_relu() -> None:
    assert tailored_slope(lambda layer: layer) == 0


@pytest.mark.parametrize("layers", [2, 20])
def test_features_of_a_tailored_network_keep_their_size_at_any_depth(
    batch: Batch, layers: int
) -> None:
    settings = GNS(name="gns", hidden=64, layers=layers, radial="bessel", activation="tailored")
    features = build_model(settings, seed=0).double().features(batch)  # type: ignore[operator]
    assert 0.2 < features.square().mean().sqrt().item() < 3


def test_tailored_activations_come_without_norms_and_refuse_legacy_edges() -> None:
    settings = GNS(name="gns", hidden=8, layers=2, activation="tailored")
    modules = build_model(settings, seed=0).modules()
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in modules)
    with pytest.raises(ValueError, match="`edge_update` must be residual"):
        GNS(name="gns", activation="tailored", edge_update="legacy")


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ValueError, match="`hidden` must be divisible by `heads`"):
        ViSNet(name="visnet", hidden=9, heads=2)


def test_the_equivariant_transformer_is_that_of_torchmd_net(water: Frames) -> None:
    """Its features are those of the authors' package, in the option whose vectors fade out."""
    published = pytest.importorskip("torchmdnet.models.torchmd_et", exc_type=ImportError)
    settings = EquivariantTransformer(
        name="equivariant_transformer",
        hidden=8,
        layers=3,
        basis=6,
        heads=2,
        cutoff=5.0,
        envelope="raised_cosine",
    )
    graphs = GraphSet.build(water, settings.cutoff, dtype=torch.float64)
    batch = graphs.gather(torch.tensor([0]))
    ours = build_model(settings, seed=0).double().eval()
    assert isinstance(ours, OurTransformer)
    theirs = published.TorchMD_ET(
        8, 3, 6, "expnorm", trainable_rbf=False, num_heads=2, cutoff_upper=5.0, vector_cutoff=True
    ).double()
    theirs.load_state_dict(_names_of_torchmd_net(ours), strict=False)
    theirs.distance_expansion.double().reset_parameters()
    theirs.distance = _OurLoopedEdges(batch)
    scalars, vectors, *_ = theirs(batch.z, batch.pos, batch.batch)
    expected = (scalars, vectors)
    torch.testing.assert_close(ours.features(batch, batch.pos), expected, rtol=1e-6, atol=1e-7)


class _OurLoopedEdges(torch.nn.Module):
    """Edges and loops, as the package finds them, with vectors from source to target."""

    def __init__(self, graph: Batch) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *_arguments: object) -> tuple[Tensor, Tensor, Tensor]:
        graph = self.graph
        atoms = torch.arange(len(graph.z))
        edges = edge_vectors(graph, graph.pos)
        loops = edges.new_zeros(len(atoms), 3)
        return (
            torch.cat([graph.edge_index, torch.stack([atoms, atoms])], dim=1),
            torch.cat([edges.norm(dim=1), loops[:, 0]]),
            torch.cat([edges, loops]),
        )


def _names_of_torchmd_net(model: OurTransformer) -> dict[str, Tensor]:
    """The weights of our model by the names of the package, which lays out values by head."""
    kinds = {
        "norm": "layernorm",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "key_filter.0": "dk_proj",
        "value_filter.0": "dv_proj",
        "vector_maps": "vec_proj",
        "output": "o_proj",
    }
    outside = {
        "embedding.species.weight": "embedding.weight",
        "neighbor_species.weight": "neighbor_embedding.embedding.weight",
        "neighbor_filter": "neighbor_embedding.distance_proj",
        "meet": "neighbor_embedding.combine",
        "norm": "out_norm",
    }
    found = {}
    for name, value in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        if name in outside:
            found[outside[name]] = value[:100]
        elif module in outside:
            found[f"{outside[module]}.{kind}"] = value
        elif module.startswith("layers."):
            _, number, part = module.split(".", 2)
            theirs = f"attention_layers.{number}.{kinds[part]}.{kind}"
            found[theirs] = _for_torchmd_net(part, value, model.settings.heads)
    return found


def _for_torchmd_net(part: str, value: Tensor, heads: int) -> Tensor:
    if part in ("value", "value_filter.0"):
        rows = value.unflatten(0, (3, heads, len(value) // (3 * heads)))
        return rows.transpose(0, 1).flatten(0, 2)
    if part == "output":
        plain, by_vectors, for_vectors = value.chunk(3)
        return torch.cat([for_vectors, by_vectors, plain])
    return value


def test_no_atom_sees_more_neighbours_than_allowed(batch: Batch) -> None:
    """The capped model on all edges is the uncapped one on the nearest edges of each atom."""
    distance = distances(edge_vectors(batch, batch.pos)).squeeze(-1)
    source, target = batch.edge_index
    kept = torch.zeros(len(target), dtype=torch.bool)
    for atom in range(len(batch.z)):
        mine = (target == atom).nonzero().squeeze(-1)
        kept[mine[distance[mine].argsort()[:3]]] = True
    fewer = batch.clone()
    fewer.edge_index, fewer.shift = batch.edge_index[:, kept], batch.shift[kept]
    assert len(source) > kept.sum()
    for settings in (
        EGNN(name="egnn", hidden=8, layers=2, basis=6),
        SchNet(name="schnet", hidden=8, layers=2, basis=6),
        ViSNet(name="visnet", hidden=8, layers=2, basis=6, heads=2),
        EquivariantTransformer(name="equivariant_transformer", hidden=8, layers=2, heads=2),
        GNS(name="gns", hidden=8, layers=2),
    ):
        capped = settings.model_copy(update={"max_neighbors": 3})
        expected = build_model(settings, seed=0).double().eval()(fewer)
        found = build_model(capped, seed=0).double().eval()(batch)
        torch.testing.assert_close(found.energy, expected.energy)
        torch.testing.assert_close(found.forces, expected.forces)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (1, 0, 1), (1, 1, 2), (2, 1, 3), (2, 2, 4)])
def test_degrees_couple_by_gaunt_coefficients(degrees: tuple[int, int, int]) -> None:
    """Those of sympy, but for the norm and the signs of harmonics."""
    found = coupling_tensor(*degrees)
    orders = [range(-degree, degree + 1) for degree in degrees]
    exact = [float(real_gaunt(*degrees, *m)) for m in itertools.product(*orders)]
    expected = torch.tensor(exact, dtype=torch.float64).reshape(found.shape)
    torch.testing.assert_close(found.abs(), (expected / expected.norm()).abs())


def test_attention_to_a_neighbour_fades_out_with_it(batch: Batch) -> None:
    """The farther of two neighbours, hardly inside the cutoff, changes next to nothing."""
    settings = SE3Transformer(name="se3_transformer", hidden=4, layers=2, basis=4, cutoff=CUTOFF)
    model = build_model(settings, seed=0).double().eval()

    def energy(distance: float) -> Tensor:
        graph = batch.clone()
        graph.z, graph.batch = torch.tensor([8, 1, 1]), torch.zeros(3, dtype=torch.long)
        graph.ptr, graph.cell = torch.tensor([0, 3]), batch.cell[:1]
        graph.pos = torch.tensor([[0, 0, 0], [1, 0, 0], [0, distance, 0]], dtype=torch.float64)
        graph.edge_index = torch.tensor([[1, 0, 2, 0], [0, 1, 0, 2]])
        graph.shift = torch.zeros(4, 3, dtype=torch.float64)
        return model(graph).energy.detach()

    gone = energy(CUTOFF)
    assert abs(energy(2.0) - gone) > 1e-3
    assert abs(energy(CUTOFF - 1e-3) - gone) < 1e-6
