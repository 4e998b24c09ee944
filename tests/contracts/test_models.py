"""What every model must keep: gradients, symmetries, batching, smoothness, seeds, transfer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from study.datasets.frames import Frames
from study.datasets.readers import ase_file
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import ModelConfig
from study.models.potential import Potential
from tests.native import NATIVE

Array = NDArray[np.float64]
Rotation = Callable[[int], Array]

TINY = {"layers": 3, "basis": 6, "frequencies": 6, "heads": 2}


def tiny(kind: type[ModelConfig]) -> ModelConfig:
    """Settings of a model that is checked in seconds."""
    fields = kind.model_fields
    sizes = {name: size for name, size in TINY.items() if name in fields}
    hidden = min(8, fields["hidden"].default // 4)
    return kind.model_validate({"name": kind.space_name(), "hidden": hidden} | sizes)


def alternatives(settings: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
    """Every other value of every option with named values, one at a time."""
    for name, info in type(settings).model_fields.items():
        if get_origin(info.annotation) is Literal:
            for value in set(get_args(info.annotation)) - {getattr(settings, name)}:
                yield f"{settings.name} {value}", settings.model_copy(update={name: value})


TINIES = {name: tiny(kind) for name, kind in NATIVE.items()}
EXTRA: dict[str, dict[str, Any]] = {
    "egnn of the paper": {"radial": "squared", "envelope": "hard"},
    "egnn with a final norm": {"final_norm": True},
    "egnn rewrapped": {"rewrap": True},
    "egnn released": {
        "radial": "squared",
        "envelope": "hard",
        "mask_init": "normal",
        "final_norm": True,
        "coordinate_norm": "detached",
        "mean": "count",
        "rewrap": True,
    },
    "forcenet with few neighbours": {"max_neighbors": 5},
    "forcenet with all neighbours": {"max_neighbors": None},
    "forcenet blind": {"species_blind": True},
    "visnet of degree 2": {"degrees": 2},
    "se3_transformer of degree 2": {"degrees": 3, "layers": 2},
}
"""What no single option with named values says; a model's name is the first word."""
VARIANTS: dict[str, ModelConfig] = (
    TINIES
    | {name: each for settings in TINIES.values() for name, each in sorted(alternatives(settings))}
    | {name: TINIES[name.split()[0]].model_copy(update=new) for name, new in EXTRA.items()}
)
HARD = [name for name, settings in VARIANTS.items() if settings.envelope == "hard"]
SMOOTH = [
    name
    for name, settings in VARIANTS.items()
    if settings.envelope == "smooth" and getattr(settings, "mean", "smooth") == "smooth"
]
"""A mean over the number of neighbours jumps with that number."""
BLIND = ["forcenet blind"]
OFFSET = ["forcenet channels"]
"""The readout decides what becomes of the reference energies, so a silent one puts out nothing."""
SEEING = [name for name in VARIANTS if name not in BLIND]
KINDS = {name: build_model(settings, seed=0) for name, settings in VARIANTS.items()}
CONSERVATIVE = [
    name for name, model in KINDS.items() if model.conservative and not model.needs_cell
]
"""Energies of wrapped edges jump where these are half a cell long, as many are in small cells."""
EQUIVARIANT = [name for name, model in KINDS.items() if model.equivariant]
EXTENSIVE = [
    name
    for name, settings in VARIANTS.items()
    if not getattr(settings, "rewrap", False) and getattr(settings, "energy_bias", "atom") == "atom"
]
"""Wrapped edges know one image of an atom alone, and a bias of the frame does not grow with it."""
UNMARKED = [
    name
    for name, settings in VARIANTS.items()
    if getattr(settings, "mask_init", "zeros") == "zeros"
]
SPREAD = {"visnet": 0.3}
"""Of weights in place of idle ones; unnormalized vectors grow from layer to layer."""
IDLE = {
    "egnn": {"layers.2.coordinate.0", "layers.2.coordinate.2"},
    "egnn displacement": set(),
    "visnet": {f"layers.0.{part}" for part in ("vec_proj", "f_proj", "w_src_proj", "w_trg_proj")},
    "equivariant_transformer": {"layers.0.vector_maps"},
}
"""By variant or model, what cannot matter: EGNN's last layer moves atoms for displacements only,
and before the first layer of a transformer there are no vectors."""

every_variant = pytest.mark.parametrize("name", VARIANTS)


def lively(name: str) -> Potential:
    """A float64 model whose parts all matter: none of its weights and statistics is idle."""
    model = build_model(VARIANTS[name], seed=3).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.abs().max() < 0.01:
                weights.normal_(std=SPREAD.get(model.settings.name, 1.0), generator=generator)
        for part, values in model.named_buffers():
            if "running" in part:
                values.uniform_(0.5, 2, generator=generator)
        model.scale.fill_(0.7)
    return model


def single(numbers: Array, positions: Array, cell: Array) -> Batch:
    """One configuration as a batch of one."""
    atoms = len(numbers)
    frames = Frames(
        numbers, positions, np.zeros((atoms, 3)), [0, atoms], cell[None], np.zeros(1), np.zeros(1)
    )
    return GraphSet.build(frames, 3.4, dtype=torch.float64).gather(torch.tensor([0]))


def mark(graph: Batch) -> Batch:
    """Mark every fifth atom for the pretext task."""
    graph.masked = (torch.arange(len(graph.z)) % 5 == 0).to(graph.pos.dtype)
    return graph


def head_prefixes(model: Potential) -> tuple[str, ...]:
    return tuple(f"{head}." for head in model.heads)


def outputs(model: Potential, graph: Batch) -> tuple[Tensor, ...]:
    """Energy, forces and vectors."""
    prediction = model(graph)
    return prediction.energy, prediction.forces, model.vectors(graph)


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def atoms(triclinic_water: Frames) -> tuple[Array, Array, Array]:
    """Numbers, positions and cell of 8 molecules in a skewed cell."""
    frame = triclinic_water.select(np.array([2]))
    return frame.numbers, frame.positions, frame.cells[0]


@pytest.fixture(scope="module")
def batch(mixed_water: Frames) -> Batch:
    """Two frames of different size."""
    graphs = GraphSet.build(mixed_water, 3.4, dtype=torch.float64)
    return graphs.gather(torch.tensor([1, 0]))


@pytest.fixture(scope="module")
def unlike() -> list[Frames]:
    """Two molecules, an atom and a crystal, which share no sum formula."""
    found = [molecule("CH3CH2OH"), molecule("NH3"), Atoms("F"), bulk("NaCl", "rocksalt", a=5.64)]
    return [ase_file.joined([atoms], Path("one")) for atoms in found]


def graphs_of(frames: Frames) -> GraphSet:
    return GraphSet.build(frames, 3.4, dtype=torch.float64)


@every_variant
def test_all_parts_of_the_tested_models_matter(name: str, batch: Batch) -> None:
    # Otherwise the symmetries below would be shown of a part only.
    model, graph = lively(name), mark(batch.clone())
    before, idle = outputs(model, graph), set()
    for part, weights in model.named_parameters():
        kept = weights.detach().clone()
        with torch.no_grad():
            weights.mul_(0.5).add_(0.1)
        after = outputs(model, graph)
        with torch.no_grad():
            weights.copy_(kept)
        if all(torch.allclose(a, b, atol=1e-6) for a, b in zip(after, before, strict=True)):
            idle.add(part.rpartition(".")[0])
    assert idle == IDLE.get(name, IDLE.get(VARIANTS[name].name, set()))


@every_variant
def test_outputs_have_the_shapes_of_the_batch(name: str, batch: Batch) -> None:
    shapes = [output.shape for output in outputs(lively(name), batch)]
    assert shapes == [(2,), (36, 3), (36, 3)]


@every_variant
@pytest.mark.parametrize(
    "positions",
    [
        [[0, 0, 0]],
        [[0, 0, 0], [10, 10, 10]],
        [[0, 0, 0], [0.01, 0, 0], [0, 1, 0]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 2]],
    ],
    ids=["one atom", "no neighbours", "nearly touching", "coinciding"],
)
def test_outputs_are_finite(name: str, positions: list[list[float]]) -> None:
    graph = single(np.full(len(positions), 8), np.array(positions), 20 * np.eye(3))
    assert all(output.isfinite().all() for output in outputs(lively(name), graph))


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_forces_are_the_negative_energy_gradient(name: str, batch: Batch) -> None:
    model = lively(name)
    forces = model(batch).forces
    rng = torch.Generator().manual_seed(0)
    for _ in range(4):
        move = torch.randn(batch.pos.shape, generator=rng, dtype=torch.float64)

        def energy(step: float, move: Tensor = move) -> float:
            moved = batch.clone()
            moved.pos = batch.pos + step * move
            return float(model(moved).energy.sum().detach())

        h = 2e-4
        # Central difference of fourth order.
        slope = (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)
        assert float((forces * move).sum()) == pytest.approx(-slope, rel=1e-6)


@every_variant
def test_moving_all_atoms_changes_nothing(name: str, atoms: tuple[Array, Array, Array]) -> None:
    numbers, positions, cell = atoms
    model = lively(name)
    before = outputs(model, single(*atoms))
    after = outputs(model, single(numbers, positions + np.array([0.7, -11.3, 2.9]), cell))
    assert_same(after, before)


@every_variant
def test_moving_atoms_by_lattice_vectors_changes_nothing(
    name: str, atoms: tuple[Array, Array, Array]
) -> None:
    numbers, positions, cell = atoms
    model = lively(name)
    jumps = np.random.default_rng(0).integers(-3, 4, positions.shape)
    before = outputs(model, single(*atoms))
    assert_same(outputs(model, single(numbers, positions + jumps @ cell, cell)), before)


@every_variant
def test_permuting_atoms_permutes_forces_and_vectors(
    name: str, atoms: tuple[Array, Array, Array]
) -> None:
    numbers, positions, cell = atoms
    model = lively(name)
    order = np.random.default_rng(1).permutation(len(numbers))
    graph = mark(single(*atoms))
    permuted = single(numbers[order], positions[order], cell)
    permuted.masked = graph.masked[order]
    energy, forces, vectors = outputs(model, graph)
    assert_same(outputs(model, permuted), (energy, forces[order], vectors[order]))


@pytest.mark.parametrize("name", EQUIVARIANT)
@pytest.mark.parametrize("handedness", [1, -1])
def test_rotating_atoms_and_cell_rotates_forces_and_vectors(
    name: str, handedness: int, atoms: tuple[Array, Array, Array], rotation: Rotation
) -> None:
    numbers, positions, cell = atoms
    model = lively(name)
    turn = handedness * rotation(4)
    turned = mark(single(numbers, positions @ turn, cell @ turn))
    energy, forces, vectors = outputs(model, mark(single(*atoms)))
    matrix = torch.tensor(turn)
    assert_same(outputs(model, turned), (energy, forces @ matrix, vectors @ matrix))


@pytest.mark.parametrize("name", EXTENSIVE)
def test_a_supercell_of_eight_has_eight_times_the_energy(
    name: str, atoms: tuple[Array, Array, Array]
) -> None:
    numbers, positions, cell = atoms
    model = lively(name)
    images = np.array(list(itertools.product((0, 1), repeat=3))) @ cell
    supercell = single(np.tile(numbers, 8), (images[:, None] + positions).reshape(-1, 3), 2 * cell)
    energy, forces, vectors = outputs(model, single(*atoms))
    expected = (8 * energy, forces.repeat(8, 1), vectors.repeat(8, 1))
    assert_same(outputs(model, supercell), expected)


@every_variant
def test_a_batch_predicts_what_its_members_predict(name: str, mixed_water: Frames) -> None:
    model = lively(name)
    graphs = GraphSet.build(mixed_water, 3.4, dtype=torch.float64)
    alone = [outputs(model, graphs.gather(torch.tensor([i]))) for i in (2, 3, 0)]
    together = outputs(model, graphs.gather(torch.tensor([2, 3, 0])))
    assert_same(together, tuple(map(torch.cat, zip(*alone, strict=True))))


@every_variant
def test_molecules_and_crystals_of_any_composition_share_a_batch(
    name: str, unlike: list[Frames]
) -> None:
    model = lively(name)
    together = ase_file.joined([a for f in unlike for a in ase_file.structures(f)], Path("all"))
    alone = [outputs(model, graphs_of(frames).gather(torch.tensor([0]))) for frames in unlike]
    graphs = graphs_of(together)
    batched = outputs(model, graphs.gather(torch.arange(len(unlike))))
    assert_same(batched, tuple(map(torch.cat, zip(*alone, strict=True))))
    assert len(batched[1]) == sum(len(frames.numbers) for frames in unlike)


def change_by_swapping(name: str, atoms: tuple[Array, Array, Array]) -> float:
    """eV, when an oxygen and a hydrogen change places."""
    numbers, positions, cell = atoms
    swapped = numbers.copy()
    swapped[[0, 1]] = numbers[[1, 0]]
    model = lively(name)
    change = model(single(swapped, positions, cell)).energy - model(single(*atoms)).energy
    return change.abs().item()


@pytest.mark.parametrize("name", SEEING)
def test_swapping_two_species_changes_the_energy(
    name: str, atoms: tuple[Array, Array, Array]
) -> None:
    assert change_by_swapping(name, atoms) > 1e-6


@pytest.mark.parametrize("name", BLIND)
def test_a_species_blind_model_takes_all_atoms_for_the_same(
    name: str, atoms: tuple[Array, Array, Array]
) -> None:
    assert change_by_swapping(name, atoms) == 0


def jump_at_cutoff(name: str, step: float = 1e-7) -> tuple[float, float]:
    """Change of energy and of forces when the only far atom crosses the cutoff by a step (Å)."""
    model = lively(name)

    def predict(distance: float) -> tuple[Tensor, Tensor]:
        # The far atom has no other neighbour, so nothing else changes.
        positions = np.array([[0, 0, 0], [-0.9, 0, 0], [distance, 0, 0]])
        prediction = model(single(np.array([8, 1, 8]), positions, 20 * np.eye(3)))
        return prediction.energy, prediction.forces

    inside, outside = predict(3.4 - step), predict(3.4 + step)
    energy, forces = (
        float((a - b).detach().abs().max()) for a, b in zip(inside, outside, strict=True)
    )
    return energy, forces


@pytest.mark.parametrize("name", SMOOTH)
def test_energy_and_forces_are_continuous_at_the_cutoff(name: str) -> None:
    energy, forces = jump_at_cutoff(name)
    assert energy < 1e-9
    assert forces < 1e-9


@pytest.mark.parametrize("name", HARD)
def test_a_hard_cutoff_lets_energy_and_forces_jump(name: str) -> None:
    energy, forces = jump_at_cutoff(name)
    assert energy > 1e-5
    assert forces > 1e-5


@pytest.mark.parametrize(("name", "growth"), [("forcenet", 8), ("forcenet cosine", 2)])
def test_an_envelope_reaches_zero_at_its_order(name: str, growth: float) -> None:
    # The cosine still has a slope at the cutoff; the smooth envelope has no curvature either.
    near, far = jump_at_cutoff(name, step=4e-3), jump_at_cutoff(name, step=8e-3)
    assert np.divide(far, near) == pytest.approx([growth, growth], rel=0.03)


@every_variant
def test_marked_atoms_are_told_apart(name: str, batch: Batch) -> None:
    model = lively(name)
    change = model.vectors(mark(batch.clone())) - model.vectors(batch)
    assert change.abs().max() > 1e-3


@pytest.mark.parametrize("name", UNMARKED)
def test_untrained_no_marks_are_the_same_as_marks_of_zero(name: str, batch: Batch) -> None:
    model = build_model(VARIANTS[name], seed=3).double().eval()
    unmarked = batch.clone()
    unmarked.masked = torch.zeros_like(batch.pos[:, 0])
    assert torch.equal(model.vectors(unmarked), model.vectors(batch))


@every_variant
def test_energy_forces_and_vectors_can_be_trained_on(name: str, batch: Batch) -> None:
    model = lively(name).train()
    seen = [0] if name in BLIND else [1, 8]
    for output in outputs(model, batch):
        model.zero_grad()
        output.square().sum().backward(retain_graph=True)
        gradient = model.embedding.species.weight.grad
        assert gradient.isfinite().all()
        assert gradient[seen].abs().min(dim=1).values.min() > 0


@every_variant
def test_scale_multiplies_energy_and_forces(name: str, batch: Batch) -> None:
    model = lively(name)
    energy, forces, vectors = outputs(model, batch)
    model.scale.mul_(3)
    assert_same(outputs(model, batch), (3 * energy, 3 * forces, vectors))


@every_variant
def test_initial_weights_are_a_function_of_the_seed(name: str) -> None:
    torch.manual_seed(1)
    first = build_model(VARIANTS[name], seed=5).state_dict()
    torch.manual_seed(2)
    second = build_model(VARIANTS[name], seed=5).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first | second)


@every_variant
def test_another_seed_gives_other_weights(name: str) -> None:
    first, second = (build_model(VARIANTS[name], seed).readout[0].weight for seed in (5, 6))
    assert not torch.isclose(first, second).any()


@every_variant
def test_building_a_model_leaves_the_global_random_state_alone(name: str) -> None:
    before = torch.get_rng_state()
    build_model(VARIANTS[name], seed=5)
    assert torch.equal(torch.get_rng_state(), before)


@every_variant
def test_taking_over_everything_makes_the_same_model(name: str, batch: Batch) -> None:
    donor, heir = lively(name), build_model(VARIANTS[name], seed=9).double().eval()
    heir.load_pretrained(donor.state_dict(), include_heads=True)
    for loaded, given in zip(outputs(heir, batch), outputs(donor, batch), strict=True):
        assert torch.equal(loaded, given)


@every_variant
def test_taking_over_the_body_keeps_the_own_heads(name: str) -> None:
    donor, heir = (build_model(VARIANTS[name], seed).state_dict() for seed in (3, 9))
    model = build_model(VARIANTS[name], seed=9)
    model.load_pretrained(donor, include_heads=False)
    for key, value in model.state_dict().items():
        source = heir if key.startswith(head_prefixes(model)) else donor
        assert torch.equal(value, source[key]), key


@every_variant
def test_taking_over_incomplete_weights_is_refused(name: str) -> None:
    model = build_model(VARIANTS[name], seed=0)
    weights = model.state_dict()
    del weights["embedding.species.weight"]
    with pytest.raises(Exception, match=r"species\.weight"):
        model.load_pretrained(weights, include_heads=False)


@every_variant
def test_taking_over_weights_of_another_size_is_refused(name: str) -> None:
    wider = build_model(VARIANTS[name].model_copy(update={"hidden": 16}), seed=0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_model(VARIANTS[name], seed=0).load_pretrained(wider.state_dict(), include_heads=False)


@every_variant
def test_a_silenced_model_predicts_the_mean_energy_and_no_force(name: str, batch: Batch) -> None:
    model = lively(name)
    model.reference.fill_(-21.5)
    assert model(batch).forces.abs().max() > 1e-3
    model.zero_init_readout()
    prediction = model(batch)
    total = prediction.energy + model.reference_energy(batch)
    assert total.tolist() == ([0, 0] if name in OFFSET else [-21.5 * 12, -21.5 * 24])
    assert torch.count_nonzero(prediction.forces) == 0


@every_variant
def test_a_silenced_model_can_learn(name: str, batch: Batch) -> None:
    model = lively(name).train()
    model.zero_init_readout()
    (model(batch).forces - batch.force).square().sum().backward()
    head = model.get_submodule(model.heads[-1])
    assert head[-1].weight.grad.abs().max() > 1e-6
