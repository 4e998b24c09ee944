"""Invariants that every pretraining task must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from study.checks.finding import run_check
from study.checks.structures import build_graphs, water_box
from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.models.potential import Potential
from study.tasks.task import Task

BATCH = torch.tensor([2, 0])
CUTOFF = 3.4


@dataclass(frozen=True)
class TaskUnderTest:
    """The task to check.

    Args:
        build: builds it for a set of graphs.
        graphs: frames of water.
    """

    build: Callable[[GraphSet], Task]
    graphs: GraphSet

    def loss(self, seed: int, graphs: GraphSet | None = None) -> Tensor:
        """Compute the loss () of two frames for a new model in training mode."""
        task = self.build(graphs or self.graphs)
        return task.loss(_model().train(), BATCH, seeded(seed))


def _model() -> Potential:
    return build_model(EGNN(name="egnn", hidden=8, layers=2), seed=0).double()


def _loss(subject: TaskUnderTest) -> str:
    loss = subject.loss(1)
    if loss.shape != () or not loss.isfinite():
        return f"the loss must be a finite scalar, but got {loss}"
    return ""


def _generator(subject: TaskUnderTest) -> str:
    first, again = (subject.loss(1).item() for _ in range(2))
    before = torch.random.get_rng_state()
    subject.loss(1)
    if not torch.equal(torch.random.get_rng_state(), before):
        return "all randomness must come from `generator`, but torch's own was used"
    if first != again:
        return f"equal generators must give equal losses, but got {first} and {again}"
    return ""


def _body(subject: TaskUnderTest) -> str:
    model = _model().train()
    subject.build(subject.graphs).loss(model, BATCH, seeded(1)).backward()  # type: ignore[no-untyped-call]
    heads = tuple(f"{head}." for head in model.heads)
    body = [weights for name, weights in model.named_parameters() if not name.startswith(heads)]
    if any(weights.grad is not None and weights.grad.any() for weights in body):
        return ""
    return "no gradient reaches the body of a model; predict with `model.vectors` or `model(graph)`"


def _labels(subject: TaskUnderTest) -> str:
    graphs = subject.graphs
    hidden = replace(
        graphs,
        energy=torch.full_like(graphs.energy, torch.nan),
        force=torch.full_like(graphs.force, torch.nan),
    )
    if subject.loss(1).item() != subject.loss(1, hidden).item():
        return "the loss must not depend on energies and forces, but does"
    return ""


def _frames(subject: TaskUnderTest) -> str:
    graphs = subject.graphs
    tensors = {field.name: getattr(graphs, field.name) for field in fields(graphs)}
    before = {name: value.clone() for name, value in tensors.items() if isinstance(value, Tensor)}
    subject.loss(1)
    changed = [name for name, value in before.items() if not torch.equal(value, tensors[name])]
    return f"the frames must stay as they are, but `{changed[0]}` has changed" if changed else ""


def _validation(subject: TaskUnderTest) -> str:
    task = subject.build(subject.graphs)
    batches = list(torch.arange(len(subject.graphs)).split(2))  # type: ignore[no-untyped-call]
    metrics, again = (task.evaluate(_model().eval(), batches, seeded(3)) for _ in range(2))
    if task.criterion not in metrics or not all(
        map(torch.isfinite, map(torch.tensor, metrics.values()))
    ):
        return f"must give finite metrics, `{task.criterion}` among them, but got {metrics}"
    if metrics != again:
        return f"equal generators must give equal metrics, but got {metrics} and {again}"
    return ""


CHECKS: dict[str, Callable[[TaskUnderTest], str]] = {
    "the loss is a finite number": _loss,
    "all randomness comes from the generator": _generator,
    "gradients reach the body of a model": _body,
    "it reads no labels": _labels,
    "it does not change the frames": _frames,
    "validation metrics are finite": _validation,
}


def examine(build: Callable[[GraphSet], Task]) -> Iterator[tuple[str, str]]:
    """Run all checks of a task; yield the name and the problem of each, empty if it passed."""
    graphs = build_graphs([water_box(seed) for seed in range(4)], CUTOFF)
    for name, check in CHECKS.items():
        yield name, run_check(check, TaskUnderTest(build, graphs))
