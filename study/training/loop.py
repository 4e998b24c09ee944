"""The training loop of pretraining and finetuning."""

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
"""Steps of a stage from which compiling, which takes one to three core minutes, pays off."""

CHECKPOINT_EVERY = 300.0
"""Seconds between checkpoints within an epoch."""


class DivergenceError(Exception):
    """Training has diverged: a loss or metric is not finite, or an error is far too large."""


class PausedError(Exception):
    """Training has stopped early on request, after writing a checkpoint."""


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
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, float]]:
    """Train `model` in place and yield the metrics of each epoch.

    A new call with the same `folder` resumes from its newest checkpoint: it yields the metrics of
    earlier epochs again and continues bit for bit. At the end the model holds the weights that
    `stage.select` asks for. Trainings that differ only in `epochs` may share a folder if they have
    the same `schedule_epochs`.

    Args:
        model: on the device of the task's graphs.
        task: the loss and its data.
        stage: epochs, batch size, optimizer.
        train: (M,) training frames, on the CPU.
        validation: (M,) validation frames, on the CPU.
        seed: decides the order of batches and all random numbers of the task.
        folder: of checkpoints; None to write none.
        store: of compiled programs, shared between processes.
        flops: FLOPs of one epoch; None if they were not counted.
        should_stop: called after each step; True writes a checkpoint and stops.

    Raises:
        DivergenceError: if the loss, its gradient or a validation metric is not finite.
        PausedError: if `should_stop` returned True.
    """
    args = model, task, stage, train, validation, seed, folder, store, flops, should_stop
    yield from _TrainingLoop(*args).run()


def compiles(stage: Stage, model: Potential, frames: int) -> bool:
    """Decide whether a stage runs compiled code; without timing, so that a resumed run agrees.

    Args:
        stage: its epochs, batch size and `compile` setting.
        model: on the device to train on.
        frames: number of training frames.

    Raises:
        UserError: if `compile: true` is impossible for this model or machine.
    """
    here = can_compile(next(model.parameters()).device)
    if stage.compile is True and not model.compilable:
        raise UserError("`compile: true` does not work for this model; leave it out")
    if stage.compile is True and not here:
        raise UserError(
            "`compile: true` needs g++ on this machine; install it, or write `compile: if_possible`"
        )
    per_epoch = math.ceil(min(frames, stage.frames or frames) / stage.batch_size)
    is_long = scheduled_epochs(stage) * per_epoch >= COMPILED_FROM
    wanted = is_long if stage.compile is None else bool(stage.compile)
    return wanted and model.compilable and here


class _TrainingLoop:
    """Runs the epochs and steps of one stage and measures their cost; see `fit`.

    Batch order, masks and noise are functions of seed, epoch and step, so that a resumed training
    equals an uninterrupted one in every bit.
    """

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
        should_stop: Callable[[], bool],
    ) -> None:
        self.model, self.task, self.stage, self.seed = model, task, stage, seed
        self.flops, self.should_stop = flops, should_stop
        self.train = train[: stage.frames]
        self.validation = task.graphs.evaluation_batches(validation, stage.batch_size)
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

    def run(self) -> Iterator[dict[str, float]]:
        """Resume from the newest checkpoint, and yield the metrics of all epochs."""
        state = self.state
        if state.load_selected():
            yield from state.progress.history
            return
        state.resume()
        yield from state.progress.history
        while state.progress.epoch < self.stage.epochs:
            metrics = self.epoch()
            # A yielded epoch must not be lost, so it is saved first.
            state.save()
            yield metrics
        state.finish()

    def epoch(self) -> dict[str, float]:
        """Train once over all frames, validate, and return the metrics."""
        self.meter.lap()
        self._clocks = time.monotonic(), time.process_time()
        number = self.state.progress.epoch
        self._train(number)
        loss, norm = torch.stack(self.state.steps).mean(dim=0).tolist()
        metrics = {
            "train_loss": loss,
            "grad_norm": norm,
            "lr": self._learning_rate(self._steps(number + 1) - 1),
        }
        if not math.isfinite(metrics["train_loss"]):
            raise DivergenceError(f"training loss is {metrics['train_loss']} in epoch {number + 1}")
        metrics |= self._validate()
        self._raise_if_diverged(metrics, number + 1)
        self.state.keep_if_best(metrics, self.task.criterion)
        self._count_cost()
        self.state.progress.epoch, self.state.progress.step, self.state.steps = number + 1, 0, []
        metrics |= self._cost()
        self.state.progress.history.append(metrics)
        return metrics

    def _raise_if_diverged(self, metrics: dict[str, float], epoch: int) -> None:
        # All metrics, not the criterion alone: a search may rank trials by another one.
        not_finite = [name for name, value in metrics.items() if not math.isfinite(value)]
        if not_finite:
            raise DivergenceError(f"{not_finite[0]} is not finite in epoch {epoch}")
        if epoch > 0.1 * scheduled_epochs(self.stage):
            reason = self.task.divergence_reason(metrics)
            if reason:
                raise DivergenceError(f"{reason} in epoch {epoch}")

    def _train(self, epoch: int) -> None:
        """Run the remaining steps of an epoch; their losses stay on the device."""
        self.model.train()
        order = torch.randperm(len(self.train), generator=seeded(self.seed, "order", epoch))
        batches = self.train[order].split(self.stage.batch_size)
        for step in range(self.state.progress.step, len(batches)):
            self._step(epoch, step, batches[step])
            self.state.progress.step = step + 1
            self._checkpoint_if_due()

    def _step(self, epoch: int, step: int, frames: Tensor) -> None:
        number = self._steps(epoch) + step
        for group in self.state.optimizer.param_groups:
            group["lr"] = self._learning_rate(number) * group["lr_factor"]
        generator = seeded(self.seed, "task", epoch, step, device=self.task.graphs.device)
        terms = self.task.terms(frames, generator, number)
        self.state.optimizer.zero_grad()
        loss = self.engine.backward(terms)
        limit = self.stage.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.state.steps.append(torch.stack([loss, norm]))
        self.state.optimizer.step()
        self.state.update_ema()

    def _checkpoint_if_due(self) -> None:
        """Write a checkpoint if one is due, and stop if requested."""
        stopping = self.should_stop()
        if stopping or time.monotonic() - self.state.saved_at > CHECKPOINT_EVERY:
            self._count_cost()
            self.state.save()
        if stopping:
            raise PausedError

    def _count_cost(self) -> None:
        """Add time and energy since the last call to the cost of the stage."""
        wall, cpu = self._clocks
        self._clocks = time.monotonic(), time.process_time()
        self.state.progress.seconds += self._clocks[0] - wall
        self.state.progress.cpu_seconds += self._clocks[1] - cpu
        joules = self.meter.lap()
        if joules is not None:
            self.state.progress.energy_joule = (self.state.progress.energy_joule or 0) + joules

    def _validate(self) -> dict[str, float]:
        self.state.eval_model.eval()
        generator = seeded(self.seed, "validation", device=self.task.graphs.device)
        return self.task.evaluate(self.state.eval_model, self.validation, generator)

    def _steps(self, epochs: int) -> int:
        return epochs * self.steps_per_epoch

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.stage, step, self.steps_per_epoch)

    def _cost(self) -> dict[str, float]:
        """Cost of all epochs so far, where it could be measured; see `COST_METRICS`."""
        progress = self.state.progress
        flops = None if self.flops is None else progress.epoch * self.flops
        cost = {
            "seconds": progress.seconds,
            "cpu_seconds": progress.cpu_seconds,
            "flops": flops,
            "energy_joule": progress.energy_joule,
        }
        return {name: value for name, value in cost.items() if value is not None}
