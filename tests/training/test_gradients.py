"""What the processor asks of a GPU in a training step, where it finds no neighbours.

Operations are looked at whose result, or its size, depends on values; copies are not, which on a
machine without a GPU cannot be told from what stays where it is.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from study.core.seeding import seeded
from study.datasets.frames import Frames
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig, SchNet
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.config import Masking
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.task import Task
from study.training.gradients import Engine

aten = torch.ops.aten

TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Waits(TorchDispatchMode):
    """Notes what has a result, or a size, that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self.depends(func, args, kwargs or {}):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))

    def depends(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if func is aten.repeat_interleave.Tensor:
            return kwargs.get("output_size") is None
        if func is aten.index.Tensor:
            return any(place is not None and place.dtype == torch.bool for place in args[1])
        return bool(TAGS & set(func.tags))


def waits_of_a_step(task: Task, settings: ModelConfig) -> list[str]:
    model = build_model(settings, seed=0).train()
    if isinstance(task, EnergyForces):
        task.statistics.apply(model, task.settings)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Waits() as waits:
        Engine(model).backward(task.terms(torch.tensor([2, 0]), seeded(0)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return waits.seen


@pytest.mark.parametrize(
    "model",
    [
        EGNN(name="egnn", hidden=8, layers=2),
        GNS(name="gns", hidden=8, layers=2),
        ForceNet(name="forcenet", hidden=8, layers=2),
        SchNet(name="schnet", hidden=8, layers=2),
    ],
    ids=lambda model: model.name,
)
def test_a_step_waits_for_no_number(mixed_water: Frames, model: ModelConfig) -> None:
    graphs = GraphSet.build(mixed_water, 3.4)
    settings = EnergyForcesSettings(name="energy_forces")
    finetuning = EnergyForces(settings, graphs, LabelStatistics.fit(graphs, torch.arange(4)))
    assert waits_of_a_step(finetuning, model) == []


def test_masking_of_water_waits_for_the_edges_that_stay(mixed_water: Frames) -> None:
    masking = Masking(name="masking", masking_ratio=0.5).build(GraphSet.build(mixed_water, 3.4))
    waits = waits_of_a_step(masking, EGNN(name="egnn", hidden=8, layers=2))
    assert waits == ["aten.nonzero.default"]


def test_what_waits_is_noticed() -> None:
    values = torch.tensor([1, 2])
    with Waits() as waits:
        values.max().item()
        values[values > 1]
        torch.bincount(values)
        torch.repeat_interleave(values)
        values[values - 1]
        torch.repeat_interleave(values, output_size=3)
    assert len(waits.seen) == 4
