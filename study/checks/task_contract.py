"""What every pretraining task must keep, whoever wrote it; studies rely on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from study.checks.finding import outcome
from study.checks.structures import connected, water_box
from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN
from study.models.potential import Potential
from study.tasks.task import Task

CHOSEN = torch.tensor([2, 0])
CUTOFF = 3.4


@dataclass(frozen=True)
class TaskUnderTest:
    """The task under examination.

    Args:
        build: makes it over graphs.
        graphs: water.
    """

    build: Callable[[GraphSet], Task]
    graphs: GraphSet

    def loss(self, seed: int, graphs: GraphSet | None = None) -> Tensor:
        """Of two frames, for a new model in training."""
        task = self.build(graphs or self.graphs)
        return task.loss(_model().train(), CHOSEN, seeded(seed))


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
    subject.build(subject.graphs).loss(model, CHOSEN, seeded(1)).backward()  # type: ignore[no-untyped-call]
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
    found, again = (task.evaluate(_model().eval(), batches, seeded(3)) for _ in range(2))
    if task.criterion not in found or not all(
        map(torch.isfinite, map(torch.tensor, found.values()))
    ):
        return f"must give finite metrics, `{task.criterion}` among them, but got {found}"
    if found != again:
        return f"equal generators must give equal metrics, but got {found} and {again}"
    return ""


CHECKS: dict[str, Callable[[TaskUnderTest], str]] = {
    "the loss is a finite number": _loss,
    "the generator decides all that is random": _generator,
    "the body of a model learns from it": _body,
    "it reads no labels": _labels,
    "it leaves the frames as they are": _frames,
    "validation is a finite number": _validation,
}


def examine(build: Callable[[GraphSet], Task]) -> Iterator[tuple[str, str]]:
    """Name of every check of a task, and what is wrong; empty if nothing is."""
    graphs = connected([water_box(seed) for seed in range(4)], CUTOFF)
    for name, check in CHECKS.items():
        yield name, outcome(check, TaskUnderTest(build, graphs))
