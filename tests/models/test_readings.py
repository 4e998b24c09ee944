"""The released reading of arXiv:2402.15921: parity with its code, and what each option changes."""

from __future__ import annotations

import pytest
import torch

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet, nearest_images
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig
from tests.models import parity, released
from tests.models.parity import Compared, Pair

TOLERANCE = 1e-10


def assert_same(compared: Compared, tolerance: float = TOLERANCE) -> None:
    apart = {quantity: parity.deviation(*both) for quantity, both in compared.items()}
    assert max(apart.values()) < tolerance, apart


@pytest.mark.parametrize("name", parity.SETTINGS)
def test_the_released_reading_is_the_released_code(name: str) -> None:
    assert_same(parity.compare(Pair.make(name)))


@pytest.mark.parametrize("name", ["gns", "forcenet"])
def test_what_the_released_code_adds_to_lengths_does_not_matter(name: str) -> None:
    found = parity.compare(Pair.make(name), extra=released.EXTRA)
    assert_same(found, tolerance=1e-5)
    with pytest.raises(AssertionError):
        assert_same(found)


def test_moved_coordinates_are_the_released_code_s() -> None:
    assert_same(parity.compare_denoising(Pair.make("egnn", vector_output="displacement")))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("egnn", {"coordinate_norm": "smooth"}),
        ("egnn", {"mean": "smooth"}),
        ("egnn", {"rewrap": False}),
        ("gns", {"edge_update": "residual"}),
        ("forcenet", {"energy_bias": "atom"}),
        ("forcenet", {"lengths": "signed"}),
    ],
)
def test_without_any_one_option_the_code_is_another(name: str, changes: dict[str, object]) -> None:
    pair = Pair.make(name, **changes)
    with pytest.raises(AssertionError):
        assert_same(parity.compare_labels(pair), tolerance=1e-4)


SMALL = {"hidden": 8, "layers": 2}


def test_detached_lengths_make_forces_differ_from_the_gradient(graphs: GraphSet) -> None:
    batch = graphs.gather(torch.tensor([0]))
    model = build_model(EGNN(name="egnn", coordinate_norm="detached", **SMALL), 0).double().eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.coordinate[2].weight.mul_(1e3)
    move = torch.randn(batch.pos.shape, generator=seeded(0), dtype=torch.float64)

    def energy(step: float) -> float:
        moved = batch.clone()
        moved.pos = batch.pos + step * move
        return float(model(moved).energy.detach())

    slope = (energy(1e-4) - energy(-1e-4)) / 2e-4
    power = float((model(batch).forces.detach() * move).sum())
    assert not model.conservative
    assert abs(power + slope) > 1e-3 * abs(slope)


def test_nearest_images_are_those_of_a_remainder(graphs: GraphSet) -> None:
    batch = graphs.gather(torch.tensor([0]))
    sides = torch.diagonal(batch.cell[0])
    assert torch.equal(batch.cell[0], torch.diag(sides))
    shape = (batch.edge_index.shape[1], 3)
    vectors = 20 * torch.randn(*shape, generator=seeded(0), dtype=torch.float64)
    expected = torch.remainder(vectors + sides / 2, sides) - sides / 2
    torch.testing.assert_close(nearest_images(batch, vectors), expected)


def test_vectors_in_skewed_or_open_cells_become_no_longer(triclinic_water: Frames) -> None:
    batch = GraphSet.build(triclinic_water, 3.4, dtype=torch.float64).gather(torch.tensor([0]))
    far = 9 * torch.randn(batch.edge_index.shape[1], 3, generator=seeded(1), dtype=torch.float64)
    near = nearest_images(batch, far)
    assert (near.norm(dim=1) <= far.norm(dim=1) + 1e-12).all()
    turns = (far - near) @ torch.linalg.inv(batch.cell[0])
    torch.testing.assert_close(turns, turns.round())
    batch.cell = torch.zeros_like(batch.cell)
    assert torch.equal(nearest_images(batch, far), far)


@pytest.mark.parametrize("kind", [EGNN, GNS, ForceNet], ids=lambda kind: str(kind.space_name()))
def test_mask_embeddings_start_as_asked_for_and_nothing_else_differs(
    kind: type[ModelConfig],
) -> None:
    zeros, normal = (
        build_model(kind.model_validate({"name": kind.space_name(), "mask_init": init} | SMALL), 3)
        for init in ("zeros", "normal")
    )
    for key, value in normal.state_dict().items():
        same = torch.equal(value, zeros.state_dict()[key])
        assert same == (key != "embedding.mask.weight"), key
    assert not zeros.embedding.mask.weight.any()
    wide = kind.model_validate({"name": kind.space_name(), "mask_init": "normal", "hidden": 1000})
    drawn = build_model(wide.model_copy(update={"layers": 1}), 0).state_dict()
    vectors = drawn["embedding.mask.weight"]
    assert abs(float(vectors.mean())) < 0.1
    assert float(vectors.std()) == pytest.approx(1, abs=0.1)


def test_a_bias_of_the_frame_counts_once_and_is_shared_by_its_atoms(graphs: GraphSet) -> None:
    batch = graphs.gather(torch.tensor([0, 1]))
    energies = []
    for bias in ("atom", "frame"):
        settings = ForceNet(name="forcenet", energy_bias=bias, **SMALL)
        model = build_model(settings, seed=0).double().eval()
        with torch.no_grad():
            model.readout[0].bias.fill_(5.0)
        model.scale.fill_(3.0)
        energies.append(model(batch).energy)
        summed = torch.zeros(2, dtype=torch.float64).index_add(0, batch.batch, model.scalars(batch))
        torch.testing.assert_close(3.0 * summed, energies[-1])
    extra = 3.0 * 5.0 * (batch.ptr.diff() - 1)
    torch.testing.assert_close(energies[0] - energies[1], extra.double())
