from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list as ase_neighbors
from torch import Tensor
from torch_geometric.data import Batch

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import GNS, EquivariantTransformer, ForceNet, ModelConfig, SE3Transformer
from study.models.potential import Potential
from study.models.symmetry import random_rotation, rotate
from study.space.trial import Trial
from study.tasks.config import Denoising as Settings
from study.tasks.config import Masking as MaskingSettings
from study.tasks.config import Mixed as MixedSettings
from study.tasks.denoising import Denoising

CHOSEN = torch.tensor([3, 0, 1])

TAKING_FORCES: dict[str, ModelConfig] = {
    "equivariant_transformer": EquivariantTransformer(
        name="equivariant_transformer", hidden=8, layers=2, heads=2, force_input=True
    ),
    "se3_transformer": SE3Transformer(name="se3_transformer", hidden=4, layers=2, force_input=True),
    "gns": GNS(name="gns", hidden=8, layers=2, force_input=True),
    "forcenet": ForceNet(name="forcenet", hidden=8, layers=2, force_input=True),
}


class Pointing(Potential):
    """Puts out given vectors."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.fixed = vectors

    def vectors(self, graph: Batch) -> Tensor:
        assert len(graph.pos) == len(self.fixed)
        return self.fixed


@pytest.fixture
def graphs(triclinic_water: Frames) -> GraphSet:
    return GraphSet.build(triclinic_water, 3.4, dtype=torch.float64)


def denoising(graphs: GraphSet, **settings: object) -> Denoising:
    return Denoising(Settings.model_validate({"name": "denoising", **settings}), graphs)


def test_targets_lead_back_to_the_clean_positions(graphs: GraphSet) -> None:
    noisy = denoising(graphs, noise_scale=0.3).example(CHOSEN, seeded(0))
    back = noisy.graph.pos + 0.3 * noisy.targets
    torch.testing.assert_close(back, graphs.gather(CHOSEN).pos, rtol=0, atol=1e-14)


def test_noise_is_gaussian_with_the_given_scale(graphs: GraphSet) -> None:
    task, everything = denoising(graphs), torch.arange(len(graphs))
    pushes = torch.cat([task.example(everything, seeded(n)).targets for n in range(40)]).flatten()
    n = len(pushes)
    assert abs(pushes.mean()) < 5 / n**0.5
    assert abs(pushes.square().mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs(pushes.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5


def test_pushed_atoms_get_the_neighbours_of_their_new_places(
    graphs: GraphSet, triclinic_water: Frames
) -> None:
    graph = denoising(graphs, noise_scale=0.5).example(CHOSEN, seeded(1)).graph
    for number, frame in enumerate(CHOSEN.tolist()):
        first, last = graph.ptr[number : number + 2].tolist()
        cell = triclinic_water.cells[frame]
        atoms = Atoms(positions=graph.pos[first:last].numpy(), cell=cell, pbc=True)
        expected = sorted(ase_neighbors("d", atoms, 3.4))
        inside = (graph.edge_index[1] >= first) & (graph.edge_index[1] < last)
        source, target = graph.edge_index[:, inside]
        vectors = graph.pos[target] - graph.pos[source] + graph.shift[inside]
        np.testing.assert_allclose(sorted(vectors.norm(dim=1).tolist()), expected, atol=1e-12)


def test_centred_noise_leaves_the_centre_where_it_was(graphs: GraphSet) -> None:
    noisy = denoising(graphs, center=True).example(CHOSEN, seeded(2))
    for targets in noisy.targets.split(noisy.graph.ptr.diff().tolist()):
        torch.testing.assert_close(targets.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-14)


def test_perfect_vectors_have_no_loss_and_none_at_all_have_a_loss_of_one(graphs: GraphSet) -> None:
    task = denoising(graphs)
    targets = task.example(CHOSEN, seeded(3)).targets
    assert task.loss(Pointing(targets), CHOSEN, seeded(3)).item() == 0
    nothing = task.loss(Pointing(torch.zeros_like(targets)), CHOSEN, seeded(3)).item()
    assert nothing == pytest.approx(targets.square().mean().item(), rel=1e-12)


def test_a_placebo_pushes_alike_but_leads_nowhere(graphs: GraphSet) -> None:
    true, false = (
        denoising(graphs, placebo=placebo).example(CHOSEN, seeded(4)) for placebo in (False, True)
    )
    assert torch.equal(true.graph.pos, false.graph.pos)
    correlation = (true.targets * false.targets).mean()
    assert abs(correlation) < 5 / true.targets.numel() ** 0.5


def test_the_clean_frames_are_left_alone(graphs: GraphSet) -> None:
    before = graphs.pos.clone()
    denoising(graphs).example(CHOSEN, seeded(5))
    assert torch.equal(graphs.pos, before)


MIXED = {
    "name": "mixed",
    "tasks": [
        {"task": {"name": "masking", "masking_ratio": 0.5}, "weight": 2.0},
        {"task": {"name": "denoising", "noise_scale": 0.2}},
    ],
}


class Counting(Potential):
    """Predicts zeros, which cost the masking task 1, and counts the atoms it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def vectors(self, graph: Batch) -> Tensor:
        self.seen.append(len(graph.pos))
        return torch.zeros_like(graph.pos)


def test_together_the_weighted_losses_of_all_tasks_are_summed(graphs: GraphSet) -> None:
    mixed = MixedSettings.model_validate(MIXED).build(graphs)
    alone = denoising(graphs, noise_scale=0.2)
    generator = seeded(6)
    masking = MaskingSettings(name="masking", masking_ratio=0.5).build(graphs)
    masking.loss(Counting(), CHOSEN, generator)
    expected = 2.0 * 1.0 + alone.loss(Counting(), CHOSEN, generator).item()
    assert mixed.loss(Counting(), CHOSEN, seeded(6)).item() == pytest.approx(expected)


def test_alternating_takes_one_task_after_the_other(graphs: GraphSet) -> None:
    mixed = MixedSettings.model_validate(MIXED | {"schedule": "alternating"}).build(graphs)
    model = Counting()
    for step in range(4):
        mixed.loss(model, CHOSEN, seeded(7), step)
    whole, masked = len(graphs.gather(CHOSEN).pos), len(graphs.gather(CHOSEN).pos) - 3 * 4
    assert model.seen == [masked, whole, masked, whole]


def test_hidden_oxygens_are_pointed_at_by_their_hydrogens(
    graphs: GraphSet, triclinic_water: Frames
) -> None:
    settings = MaskingSettings(name="masking", masking_ratio=1.0, atom="oxygen")
    masked = settings.build(graphs).example(CHOSEN, seeded(8))  # type: ignore[attr-defined]
    assert set(masked.graph.z.tolist()) == {1}
    assert masked.graph.masked.all()
    for atom, direction in zip(masked.atoms, masked.directions, strict=True):
        frame = CHOSEN[masked.graph.batch[atom]]
        cell = torch.tensor(triclinic_water.cells[frame])
        oxygens = graphs.gather(frame[None]).pos[::3]
        apart = oxygens - masked.graph.pos[atom]
        apart = apart - (apart @ torch.linalg.inv(cell)).round() @ cell
        nearest = apart[apart.norm(dim=1).argmin()]
        torch.testing.assert_close(direction, nearest / nearest.norm())


def test_a_masking_placebo_hides_alike_but_points_nowhere(graphs: GraphSet) -> None:
    true, false = (
        MaskingSettings(name="masking", masking_ratio=1.0, placebo=placebo)
        .build(graphs)
        .example(CHOSEN, seeded(9))  # type: ignore[attr-defined]
        for placebo in (False, True)
    )
    assert torch.equal(true.graph.pos, false.graph.pos)
    cosines = (true.directions * false.directions).sum(1)
    assert abs(cosines.mean()) < 5 / (3 * len(cosines)) ** 0.5
    torch.testing.assert_close(false.directions.norm(dim=1), torch.ones(len(cosines)).double())


def test_frames_draw_their_scales_evenly_in_the_logarithm(graphs: GraphSet) -> None:
    task = denoising(graphs, noise_scale=0.4, lowest_scale=0.004)
    drawn = []
    for seed in range(200):
        noisy = task.example(CHOSEN, seeded(seed))
        scales = torch.stack([part.unique() for part in noisy.scales.split(24)])
        assert scales.shape == (3, 1)
        drawn.append(scales.flatten())
        back = noisy.graph.pos + 0.4 * noisy.scales * noisy.targets
        torch.testing.assert_close(back, graphs.gather(CHOSEN).pos, rtol=0, atol=1e-14)
    logarithms = torch.cat(drawn).log10()
    assert logarithms.min() >= -2
    assert logarithms.max() <= 0
    assert logarithms.mean().item() == pytest.approx(-1, abs=0.08)
    assert logarithms.std().item() == pytest.approx(2 / 12**0.5, abs=0.05)


def test_conditioned_denoising_divides_the_output_by_the_scale(graphs: GraphSet) -> None:
    task = denoising(graphs, noise_scale=0.4, lowest_scale=0.1, conditioned=True)
    noisy = task.example(CHOSEN, seeded(2))
    perfect = Pointing(noisy.targets * noisy.scales)
    assert task.loss(perfect, CHOSEN, seeded(2)).item() == pytest.approx(0, abs=1e-12)
    assert task.evaluate(perfect, [CHOSEN], seeded(2))["val_loss"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"noise_scale": 0.1, "lowest_scale": 0.1}, "`lowest_scale < noise_scale` must hold"),
        ({"conditioned": True}, "`conditioned` needs a `lowest_scale`"),
    ],
)
def test_scales_that_make_no_range_are_refused(settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Settings.model_validate({"name": "denoising", **settings})


@pytest.mark.parametrize("scales", [{}, {"lowest_scale": 0.05}])
def test_the_noise_itself_in_angstrom_is_what_was_added(
    graphs: GraphSet, scales: dict[str, float]
) -> None:
    asked = {"noise_scale": 0.3, "target": "noise", "target_unit": "angstrom"} | scales
    task, back = denoising(graphs, **asked), denoising(graphs, noise_scale=0.3, **scales)
    noisy, clean = task.example(CHOSEN, seeded(0)), graphs.gather(CHOSEN).pos
    torch.testing.assert_close(noisy.graph.pos - noisy.targets, clean, rtol=0, atol=1e-14)
    same = back.example(CHOSEN, seeded(0))
    assert torch.equal(noisy.graph.pos, same.graph.pos)
    torch.testing.assert_close(noisy.targets, -0.3 * same.scales * same.targets)
    nothing = task.loss(Pointing(torch.zeros_like(clean)), CHOSEN, seeded(0)).item()
    assert nothing == pytest.approx(noisy.targets.square().mean().item())
    assert task.settings.label.endswith("predicting the noise in Å")


def test_conditioned_outputs_have_no_unit_of_length() -> None:
    settings = {"name": "denoising", "lowest_scale": 0.1, "conditioned": True}
    with pytest.raises(ValueError, match="`target_unit` must be noise_scale if `conditioned`"):
        Settings.model_validate(settings | {"target_unit": "angstrom"})


def test_errors_count_pushed_atoms_alone(graphs: GraphSet) -> None:
    task = denoising(graphs, noise_scale=0.3, corrupted=0.25)
    noisy, clean = task.example(CHOSEN, seeded(5)), graphs.gather(CHOSEN)
    moved = (noisy.graph.pos != clean.pos).any(dim=1)
    assert torch.equal(moved, noisy.noised.squeeze(-1) == 1)
    assert 0 < moved.sum() < len(moved) / 2
    off = torch.zeros_like(clean.pos)
    off[~moved] = 7.0
    off[moved.nonzero()[0]] = 2.0
    guess, expected = Pointing(noisy.targets + off), 4 / float(moved.sum())
    assert task.loss(guess, CHOSEN, seeded(5)).item() == pytest.approx(expected)
    assert task.evaluate(guess, [CHOSEN], seeded(5))["val_loss"] == pytest.approx(expected)
    summed = denoising(graphs, noise_scale=0.3, corrupted=0.25, reduction="sum")
    assert summed.loss(guess, CHOSEN, seeded(5)).item() == pytest.approx(12)


def test_a_sum_over_all_atoms_is_the_mean_times_their_components(graphs: GraphSet) -> None:
    guess = Pointing(torch.zeros(72, 3, dtype=torch.float64))
    mean, total = (
        denoising(graphs, reduction=kind).loss(guess, CHOSEN, seeded(0)) for kind in ("mean", "sum")
    )
    torch.testing.assert_close(total, 216 * mean)


def test_pushed_atoms_come_with_the_forces_before_the_push(graphs: GraphSet) -> None:
    task = denoising(graphs, corrupted=0.5, given="forces")
    noisy = task.example(CHOSEN, seeded(1))
    expected = noisy.noised * graphs.gather(CHOSEN).force
    assert torch.equal(noisy.graph.given_force, expected)
    assert expected.abs().sum() > 0
    assert "given_force" not in denoising(graphs).example(CHOSEN, seeded(1)).graph


@pytest.mark.parametrize("name", TAKING_FORCES)
def test_given_forces_matter_and_turn_with_the_atoms(name: str, graphs: GraphSet) -> None:
    model = build_model(TAKING_FORCES[name], seed=0).double().eval()
    graph = denoising(graphs, given="forces").example(CHOSEN, seeded(1)).graph
    conditioned = model.vectors(graph).detach()
    if model.equivariant:
        turn = random_rotation(seeded(2)).to(graph.pos)
        turned = rotate(graph, turn)
        turned.given_force = graph.given_force @ turn.T
        torch.testing.assert_close(model.vectors(turned).detach(), conditioned @ turn.T)
    del graph.given_force
    assert (model.vectors(graph).detach() - conditioned).abs().max() > 1e-6


def test_forces_are_given_to_models_that_take_them_alone(tiny: Callable[..., Trial]) -> None:
    task = {"name": "denoising", "given": "forces"}
    with pytest.raises(ValueError, match=r"`pretrain\.task\.given` must be nothing, or the model"):
        tiny(pretrain__task=task)
    with pytest.raises(ValueError, match=r"`finetune\.task\.auxiliary\.task\.given` must be"):
        tiny(finetune__task={"name": "energy_forces", "auxiliary": {"task": task}})
    assert tiny(pretrain__task=task, model={"name": "gns", "force_input": True}).pretrain
