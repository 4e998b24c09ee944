"""What is timed: one training step, data and all, in each of its variants.

A variant is one entry of `VARIANTS`; everything else finds it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from study.core.seeding import seeded
from study.graphs.graph_set import GraphSet
from study.models.build import build_model
from study.models.config import EGNN, GNS, ForceNet, ModelConfig
from study.models.potential import Potential
from study.tasks.config import Denoising, Masking
from study.tasks.config import EnergyForces as EnergyForcesSettings
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.task import Task
from study.training.gradients import Engine, can_compile
from study.training.precision import Precision
from tests.benchmarks import textbook
from tests.benchmarks.water import water_box

STAGES = ("masking", "denoising", "energy_forces")
STORE = Path("runs/benchmarks/code")
"""Compiled code, kept from one benchmark to the next."""
LR, WEIGHT_DECAY = 1e-4, 1e-4
Step = Callable[[], None]


class Unavailable(Exception):  # noqa: N818 - says what the variant is, no failure
    """A variant cannot do this case, or not on this machine."""


@dataclass(frozen=True)
class Case:
    """A training step of the paper's size.

    Args:
        model: egnn, gns or forcenet.
        stage: one of `STAGES`; masking ratio and noise scale are 0.5.
        molecules: of a frame.
        batch: frames of a step.
        cutoff: Å, of the neighbour lists; that of the models stays 3.4, which changes what they
            compute but not what it costs, and code is compiled only once.
        device: torch device.
    """

    model: str
    stage: str
    molecules: int
    batch: int
    cutoff: float = 3.4
    device: str = "cpu"

    @property
    def atoms(self) -> int:
        """Of a frame."""
        return 3 * self.molecules

    def settings(self) -> ModelConfig:
        """Our model at the paper's size."""
        kinds: dict[str, type[EGNN] | type[GNS] | type[ForceNet]]
        kinds = {"egnn": EGNN, "gns": GNS, "forcenet": ForceNet}
        return kinds[self.model].model_validate({"name": self.model})

    def graphs(self) -> GraphSet:
        """Two batches of water."""
        frames = water_box(self.molecules, 2 * self.batch)
        return GraphSet.build(frames, self.cutoff, device=self.device)


def ours(case: Case) -> tuple[Potential, Task]:
    """Model and task, ready to train."""
    graphs = case.graphs()
    model = build_model(case.settings(), seed=0).to(graphs.device)
    match case.stage:
        case "masking":
            settings = Masking(name="masking", masking_ratio=0.5)
            return model, settings.build(graphs)
        case "denoising":
            return model, Denoising(name="denoising", noise_scale=0.5).build(graphs)
    labels = EnergyForcesSettings(name="energy_forces")
    statistics = LabelStatistics.fit(graphs, torch.arange(len(graphs)))
    statistics.apply(model, labels)
    return model, EnergyForces(labels, graphs, statistics)


def eager_step(case: Case) -> Step:
    """A step of `study.training.loop`, gradients by autograd."""
    model, task = ours(case)
    return _step(case, model, task, Engine(model))


def compiled_step(case: Case, precision: Precision = "float32") -> Step:
    """A step of `study.training.loop`, gradients by compiled code."""
    if not can_compile(torch.device(case.device)):
        raise Unavailable("no compiler here")
    model, task = ours(case)
    engine = Engine(model, compiled=True, store=STORE, precision=precision)
    return _step(case, model, task, engine)


def _step(case: Case, model: Potential, task: Task, engine: Engine) -> Step:
    """As the loop of `study.training.loop`."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    batches = _batches(case)

    def step() -> None:
        number, frames = next(batches)
        generator = seeded(0, "task", number, device=case.device)
        terms = task.terms(frames, generator, number)
        optimizer.zero_grad()
        engine.backward(terms)
        torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf)
        optimizer.step()

    return step


def textbook_step(case: Case) -> Step:
    """A step of the baseline."""
    graphs = case.graphs()
    units = (1.0, 1.0)
    if case.stage == "energy_forces":
        statistics = LabelStatistics.fit(graphs, torch.arange(len(graphs)))
        units = statistics.energy_std, statistics.force_rms
    model = textbook.MODELS[case.model]().to(case.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    frames = textbook.Frames(textbook_frames(graphs), case.stage)
    batches = _forever(DataLoader(frames, case.batch, shuffle=True))
    model.train()
    total = 0.0

    def step() -> None:
        nonlocal total
        batch = next(batches).to(case.device)
        textbook.connect(batch, case.cutoff, model.most)
        loss = textbook.loss(model, batch, case.stage, units)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()

    return step


def textbook_frames(graphs: GraphSet) -> list[Data]:
    """All frames as the baseline holds them, on the CPU."""
    labels = LabelStatistics.fit(graphs, torch.arange(len(graphs)))
    frames = []
    for number in range(len(graphs)):
        batch = graphs.gather(torch.tensor([number])).cpu()
        energy = batch.energy - labels.energy_per_atom * len(batch.z)
        frame = Data(z=batch.z, pos=batch.pos, cell=batch.cell, force=batch.force)
        frame.energy, frame.masked = energy.to(batch.pos.dtype), torch.zeros_like(batch.z)
        frames.append(frame)
    return frames


@dataclass(frozen=True)
class Variant:
    """A way to do a training step.

    Args:
        label: for tables.
        sped_up: the process is set up as for training: oneDNN's products, where they stay exact,
            and memory that glibc keeps.
        build: makes the step of a case, or raises `Unavailable`.
    """

    label: str
    sped_up: bool
    build: Callable[[Case], Step]


VARIANTS = {
    "textbook": Variant("textbook", sped_up=False, build=textbook_step),
    "textbook_sped_up": Variant(
        "textbook, our process settings", sped_up=True, build=textbook_step
    ),
    "eager": Variant("ours, eager", sped_up=True, build=eager_step),
    "compiled": Variant("ours, compiled", sped_up=True, build=compiled_step),
    "bf16": Variant(
        "ours, compiled, bf16", sped_up=True, build=partial(compiled_step, precision="bf16")
    ),
}
BASELINE = "textbook"


def _batches(case: Case) -> Iterator[tuple[int, torch.Tensor]]:
    """Frames of each step, and its number, for ever."""
    number = 0
    while True:
        order = torch.randperm(2 * case.batch, generator=seeded(0, "order", number))
        for frames in order.split(case.batch):
            yield number, frames
            number += 1


def _forever(loader: DataLoader) -> Iterator[Data]:
    while True:
        yield from loader
