"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.core.errors import UserError
from study.core.seeding import seeded
from study.models.potential import Potential
from study.tasks.task import Task
from study.training.energy_meter import EnergyMeter
from study.training.gradients import Engine, can_compile
from study.training.schedule import learning_rate, scheduled_epochs
from study.training.state import TrainingState

if TYPE_CHECKING:
    from study.training.config import Stage

COMPILED_FROM = 10_000
"""Steps of a stage from which compiling, one to three minutes of a core, pays in any case."""


CHECKPOINT_EVERY = 300.0
"""Seconds after which an epoch that is not finished writes a checkpoint."""


class DivergenceError(Exception):
    """A loss or metric is no longer finite."""


class PausedError(Exception):
    """Training was asked to end before it was done; its checkpoint is written."""


def fit(
    model: Potential,
    task: Task,
    stage: Stage,
    train: Tensor,
    validation: Tensor,
    seed: int,
    folder: Path | None = None,
    store: Path | None = None,
    flops: float | None = None,
    ending: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, float]]:
    """Train `model` in place and yield the metrics of every epoch.

    With a `folder`, every epoch ends in a checkpoint there, written before its metrics are
    yielded, and so do `CHECKPOINT_EVERY` seconds within an epoch. A new call continues after the
    newest one: it yields the earlier epochs' metrics again, then goes on bit by bit as if nothing
    had happened, because order, masks and noise are functions of seed, epoch and step. At the end
    the model holds the weights that `stage.select` asks for. With `stage.schedule_epochs` the
    folder may be that of a longer or shorter training with the same schedule, and serves both.

    Args:
        model: on the device of the task's graphs.
        task: what to train on.
        stage: epochs, batch size, optimizer.
        train: (frames,) training frames, on the processor.
        validation: (frames,) validation frames, on the processor.
        seed: decides the order of batches and all that the task draws.
        folder: where checkpoints are kept; none are written without it.
        store: where compiled code is kept for other processes.
        flops: floating point operations of an epoch, if somebody counted them.
        ending: asked after every step whether to write a checkpoint and end.

    Raises:
        DivergenceError: when the loss, its gradient or an error of validation stops being finite.
        PausedError: when `ending` has said so.
    """
    run = _Run(model, task, stage, train, validation, seed, folder, store, flops, ending)
    state = run.state
    if state.load_selected():
        yield from state.progress.history
        return
    state.resume()
    yield from state.progress.history
    while state.progress.epoch < stage.epochs:
        metrics = run.epoch()
        state.save()
        yield metrics
    state.finish()


def compiles(stage: Stage, model: Potential, frames: int) -> bool:
    """Whether a stage runs compiled code; a rule without clocks, so that a resumed run agrees.

    Args:
        stage: its epochs and batches, and what it asks for.
        model: on the device to train on.
        frames: that there are to train on.

    Raises:
        UserError: if it asks for compiled code where there can be none.
    """
    device = next(model.parameters()).device
    if stage.compile and not model.compilable:
        raise UserError("`compile: true` does not work for this model; leave it out")
    if stage.compile and not can_compile(device):
        raise UserError("`compile: true` needs g++ on this machine; install it, or leave it out")
    if stage.compile is not None:
        return stage.compile
    per_epoch = math.ceil(min(frames, stage.frames or frames) / stage.batch_size)
    steps = scheduled_epochs(stage) * per_epoch
    return steps >= COMPILED_FROM and model.compilable and can_compile(device)


class _Run:
    """One stage: its epochs and steps, their order, and what they cost."""

    def __init__(
        self,
        model: Potential,
        task: Task,
        stage: Stage,
        train: Tensor,
        validation: Tensor,
        seed: int,
        folder: Path | None,
        store: Path | None,
        flops: float | None,
        ending: Callable[[], bool],
    ) -> None:
        self.model, self.task, self.stage, self.seed = model, task, stage, seed
        self.flops, self.ending = flops, ending
        self.train = train[: stage.frames]
        self.validation = list(validation.split(stage.batch_size))
        self.steps_per_epoch = math.ceil(len(self.train) / stage.batch_size)
        self.engine = Engine(
            model,
            compiled=compiles(stage, model, len(train)),
            store=store,
            precision=stage.precision,
        )
        self.state = TrainingState(model, stage, folder)
        self.meter = EnergyMeter(task.graphs.device)
        self._clocks = time.monotonic(), time.process_time()

    def epoch(self) -> dict[str, float]:
        """Train once over the frames, then validate."""
        self.meter.lap()
        self._clocks = time.monotonic(), time.process_time()
        number = self.state.progress.epoch
        self._train(number)
        loss, norm = torch.stack(self.state.steps).mean(dim=0).tolist()
        metrics = {
            "train_loss": loss,
            "grad_norm": norm,
            "lr": self._rate(self._steps(number + 1) - 1),
        }
        if not math.isfinite(metrics["train_loss"]):
            raise DivergenceError(f"training loss is {metrics['train_loss']} in epoch {number + 1}")
        metrics |= self._validate()
        # Not the criterion alone: searches rank by another error perhaps.
        strange = [name for name, value in metrics.items() if not math.isfinite(value)]
        if strange:
            raise DivergenceError(f"{strange[0]} is not finite in epoch {number + 1}")
        divergence_reason = (
            self.task.divergence_reason(metrics) if self._past_a_tenth(number + 1) else ""
        )
        if divergence_reason:
            raise DivergenceError(f"{divergence_reason} in epoch {number + 1}")
        self.state.keep_if_best(metrics, self.task.criterion)
        self._count_cost()
        self.state.progress.epoch, self.state.progress.step, self.state.steps = number + 1, 0, []
        metrics |= self._spent()
        self.state.progress.history.append(metrics)
        return metrics

    def _train(self, epoch: int) -> None:
        """All steps of an epoch that are left; what they yield stays on the device."""
        self.model.train()
        order = torch.randperm(len(self.train), generator=seeded(self.seed, "order", epoch))
        batches = self.train[order].split(self.stage.batch_size)
        for step in range(self.state.progress.step, len(batches)):
            self._step(epoch, step, batches[step])
            self.state.progress.step = step + 1
            self._checkpoint_if_due()

    def _step(self, epoch: int, step: int, chosen: Tensor) -> None:
        number = self._steps(epoch) + step
        for group in self.state.optimizer.param_groups:
            group["lr"] = self._rate(number) * group["share"]
        generator = seeded(self.seed, "task", epoch, step, device=self.task.graphs.device)
        terms = self.task.terms(chosen, generator, number)
        self.state.optimizer.zero_grad()
        loss = self.engine.backward(terms)
        limit = self.stage.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.state.steps.append(torch.stack([loss, norm]))
        self.state.optimizer.step()
        self.state.update_ema()

    def _checkpoint_if_due(self) -> None:
        """Write a checkpoint when it is time, and end if that is asked for."""
        ending = self.ending()
        if ending or time.monotonic() - self.state.saved_at > CHECKPOINT_EVERY:
            self._count_cost()
            self.state.save()
        if ending:
            raise PausedError

    def _count_cost(self) -> None:
        """Add what has passed since the last call to the cost of the stage."""
        wall, cpu = self._clocks
        self._clocks = time.monotonic(), time.process_time()
        self.state.progress.seconds += self._clocks[0] - wall
        self.state.progress.cpu_seconds += self._clocks[1] - cpu
        joules = self.meter.lap()
        if joules is not None:
            self.state.progress.energy_joule = (self.state.progress.energy_joule or 0) + joules

    def _past_a_tenth(self, epochs: int) -> bool:
        return epochs > 0.1 * scheduled_epochs(self.stage)

    def _validate(self) -> dict[str, float]:
        self.state.eval_model.eval()
        generator = seeded(self.seed, "validation", device=self.task.graphs.device)
        return self.task.evaluate(self.state.eval_model, self.validation, generator)

    def _steps(self, epochs: int) -> int:
        return epochs * self.steps_per_epoch

    def _rate(self, step: int) -> float:
        return learning_rate(self.stage, step, self.steps_per_epoch)

    def _spent(self) -> dict[str, float]:
        """What the epochs so far have cost, where it could be measured; see `COST_METRICS`."""
        done = self.state.progress
        flops = None if self.flops is None else done.epoch * self.flops
        spent = {
            "seconds": done.seconds,
            "cpu_seconds": done.cpu_seconds,
            "flops": flops,
            "energy_joule": done.energy_joule,
        }
        return {name: value for name, value in spent.items() if value is not None}
