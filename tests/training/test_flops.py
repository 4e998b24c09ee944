"""What training costs in operations and energy, and that counting changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.potential import Potential
from study.space.trial import Trial
from study.tasks.build import build_task
from study.tasks.task import Task
from study.training.config import Stage
from study.training.flops import Flops
from study.training.loop import fit

HIDDEN, BASIS, LAYERS = 8, 8, 2


TRAIN, VALIDATION = torch.tensor([0, 3, 6, 1]), torch.tensor([9, 10, 11])


def prepared(
    settings: Trial, graphs: GraphSet, kind: str, train: Tensor = TRAIN
) -> tuple[Potential, Task, Stage]:
    model = build_model(settings.model, seed=1).to(graphs.pos.dtype)
    stage = settings.pretrain if kind == "pretrain" else settings.finetune
    assert stage is not None
    return model, build_task(stage.task, model, graphs, train[: stage.frames]), stage


def egnn_products(atoms: int, edges: int) -> tuple[int, int]:
    """Operations of the gradients of a loss of EGNN's energies and forces; and of those alone.

    A layer y = x W takes one product forward. The force takes one more, dx = dy Wᵀ, where x
    depends on positions; then the loss's gradient takes those for W and x of the first product
    and for W and dy of the second: six, fewer where one of them is not needed. Autograd asks for
    the gradient of positions as well, because they are where its graph begins.
    """
    per_atom, per_edge = 2 * atoms * HIDDEN, 2 * edges * HIDDEN
    forward = learnt = 0
    for layer in range(LAYERS):
        first, last = layer == 0, layer == LAYERS - 1
        products = [
            (2 * per_atom * HIDDEN, 3 if first else 6),  # At first they depend on no position.
            (per_edge * BASIS, 6),
            (per_edge * HIDDEN, 6),  # the second layer of messages
            (3 * per_atom * HIDDEN, 6),  # the update: 2 F → F → F
        ]
        if not last:  # Where the last layer would move atoms nobody asks.
            products += [(per_edge * HIDDEN, 6), (per_edge, 6)]
        forward += sum(product for product, _ in products)
        learnt += sum(product * times for product, times in products)
    # The readout: what comes out of its last layer has a gradient of ones, which learns nothing.
    readout = [(per_atom * HIDDEN, 6), (per_atom, 5)]
    forward += sum(product for product, _ in readout)
    learnt += sum(product * times for product, times in readout)
    without_forces = 2 * per_atom * HIDDEN  # of the first layer, which no force needs
    shifts = 2 * edges * 3 * 3  # made of cells when a batch is gathered
    return learnt, 2 * forward - without_forces + shifts


def test_operations_of_egnn_are_those_counted_by_hand(
    water: Frames, tiny: Callable[..., Trial]
) -> None:
    frames = water.select(torch.tensor([0] * 12).numpy())  # Of the same size, edges included.
    graphs = GraphSet.build(frames, 3.4)
    model, task, stage = prepared(tiny(), graphs, "finetune")
    atoms, edges = int(graphs.atoms.offsets[1]), graphs.edges.count(torch.tensor([0]))
    learnt, judged = egnn_products(atoms, edges)
    counted = Flops.count(model, task, TRAIN[: stage.batch_size]).of_epoch(
        graphs, TRAIN, VALIDATION
    )
    assert counted == pytest.approx(len(TRAIN) * learnt + len(VALIDATION) * judged, rel=1e-12)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_one_batch_stands_for_all(
    kind: str, mixed_water: Frames, tiny: Callable[..., Trial]
) -> None:
    graphs = GraphSet.build(mixed_water, 3.4)
    frames = torch.arange(4)
    model, task, _ = prepared(tiny(), graphs, kind, frames)
    estimated = Flops.count(model, task, frames[:2]).of_epoch(graphs, frames, frames)
    each = [Flops.count(model, task, one).of_epoch(graphs, one, one) for one in frames.split(1)]
    assert len(set(each)) > 1
    assert estimated == pytest.approx(sum(each), rel=0.1)


def test_tasks_that_take_turns_are_all_counted(
    graphs: GraphSet, tiny: Callable[..., Trial]
) -> None:
    masking = {"name": "masking", "masking_ratio": 0.5}
    denoising = {"name": "denoising", "noise_scale": 0.1}
    counted = {}
    for schedule in ("alternating", "together"):
        parts = [{"task": task} for task in (masking, denoising)]
        mixed = {"name": "mixed", "schedule": schedule, "tasks": parts}
        model, task, _ = prepared(tiny(pretrain__task=mixed), graphs, "pretrain")
        counted[schedule] = Flops.count(model, task, TRAIN[:2]).step
    assert counted["alternating"] == pytest.approx(counted["together"] / 2)


def test_counting_changes_neither_model_nor_random_numbers(
    graphs: GraphSet, tiny: Callable[..., Trial]
) -> None:
    ends = []
    for count in (False, True):
        model, task, stage = prepared(tiny(), graphs, "pretrain")
        torch.manual_seed(3)
        if count:
            Flops.count(model, task, TRAIN[:2])
        assert float(torch.rand(())) == float(torch.rand((), generator=torch.manual_seed(3)))
        *_, last = fit(model, task, stage, TRAIN, VALIDATION, 0)
        ends.append((model.state_dict(), last["val_loss"]))
    (plain, loss), (counted, same) = ends
    assert loss == same
    assert all(torch.equal(plain[name], counted[name]) for name in plain)


def test_operations_add_up_over_epochs(graphs: GraphSet, tiny: Callable[..., Trial]) -> None:
    model, task, stage = prepared(tiny(), graphs, "finetune")
    epochs = list(fit(model, task, stage, TRAIN, VALIDATION, 0, flops=5.0))
    assert [epoch["flops"] for epoch in epochs] == [5, 10, 15]
    assert "flops" not in next(fit(model, task, stage, TRAIN, VALIDATION, 0))
