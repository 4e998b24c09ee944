"""The parts of a step that workers compute add up to the step of one, whatever the loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.models.potential import Potential
from study.tasks.build import build_task
from study.tasks.config import EnergyForces, Scalar, TaskConfig
from study.tasks.task import Term
from study.training.parallel.portions import portion
from tests.contracts.test_tasks import EXAMPLES

DENOISING = {"task": {"name": "denoising", "noise_scale": 0.1, "corrupted": 0.5}, "weight": 0.3}
LABELLED: dict[str, TaskConfig] = {
    "energies and forces": EnergyForces(name="energy_forces", energy_weight=0.2),
    "absolute errors": EnergyForces(name="energy_forces", energy_weight=0.2, loss="l1"),
    "stresses": EnergyForces(name="energy_forces", energy_weight=0.2, stress_weight=0.7),
    "energies alone": Scalar(name="scalar", target="energy"),
    "noisy nodes": EnergyForces.model_validate(
        {"name": "energy_forces", "energy_weight": 0.2, "auxiliary": DENOISING}
    ),
    "labels from noised": EnergyForces.model_validate(
        {"name": "energy_forces", "auxiliary": DENOISING, "labels_from": "noised"}
    ),
}
EVERY: dict[str, TaskConfig] = {**EXAMPLES, **LABELLED}
BATCH = torch.tensor([3, 0, 1, 2])


@pytest.fixture(scope="module")
def graphs(mixed_water: Frames) -> GraphSet:
    """Frames of two sizes, one without an energy, one without forces, all with stresses."""
    energies, forces = mixed_water.energies.copy(), mixed_water.forces.copy()
    energies[1], forces[: mixed_water.offsets[1]] = np.nan, np.nan
    stresses = np.random.default_rng(0).normal(size=(len(mixed_water), 3, 3))
    stresses[2] = np.nan
    labels: dict[str, Any] = {"energies": energies, "forces": forces, "stresses": stresses}
    return GraphSet.build(replace(mixed_water, **labels), 3.4, dtype=torch.float64)


def gradients(model: Potential, terms: list[Term]) -> list[Tensor]:
    """Loss and gradients of the weighted sum of terms."""
    model.zero_grad(set_to_none=True)
    loss = torch.stack([term.weight * term.penalty(model, term.batch) for term in terms]).sum()
    loss.backward()
    weights = model.parameters()
    return [loss.detach(), *(torch.zeros_like(w) if w.grad is None else w.grad for w in weights)]


CASES = [(name, "some labels") for name in sorted(EVERY)]
CASES += [(name, "all labels") for name in sorted(LABELLED) if name != "stresses"]


@pytest.mark.parametrize(("name", "labels"), CASES)
def test_loss_and_gradients_of_the_parts_add_up(
    name: str, labels: str, graphs: GraphSet, egnn: EGNN, mixed_water: Frames
) -> None:
    if labels == "all labels":
        graphs = GraphSet.build(mixed_water, 3.4, dtype=torch.float64)
    model = build_model(egnn, seed=0).double().train()
    task = build_task(EVERY[name], model, graphs, BATCH)
    whole = gradients(model, task.terms(BATCH, seeded(1)))
    for workers in (2, 3, 6):
        total = [torch.zeros_like(each) for each in whole]
        for worker in range(workers):
            parts = [portion(term, worker, workers) for term in task.terms(BATCH, seeded(1))]
            if found := [part for part in parts if part]:
                own = gradients(model, found)
                total = [before + more for before, more in zip(total, own, strict=True)]
        for one, other in zip(total, whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def squares(model: Potential, batch: Batch) -> Tensor:
    return model.vectors(batch).square().mean()


def test_a_loss_that_does_not_say_how_it_divides_is_refused(graphs: GraphSet) -> None:
    batch = graphs.gather(BATCH)
    with pytest.raises(UserError, match=r"`workers` must be 1 with the loss `own`.*`counts`"):
        portion(Term("own", squares, batch), 0, 2)
    batch.own = torch.zeros(7)
    with pytest.raises(UserError, match=r"`workers` must be 1 .* `own` \(7,\)"):
        portion(Term("own", squares, batch, counts=lambda some: len(some.z)), 0, 2)
