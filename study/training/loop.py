"""The training loop of pretraining and finetuning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.core.seeding import seeded
from study.models.potential import Potential
from study.tasks.task import Task, Term
from study.training.energy_meter import EnergyMeter
from study.training.parallel.shared_engine import Team, build_engine
from study.training.schedule import learning_rate, scheduled_epochs
from study.training.state import Parent, TrainingState

if TYPE_CHECKING:
    from study.training.config import Stage

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
    team: Team | None = None,
    parent: Parent | None = None,
) -> Iterator[dict[str, float]]:
    """Train `model` in place and yield the metrics of each epoch.

    A new call with the same `folder` resumes bit for bit from its newest checkpoint, and yields the
    metrics of earlier epochs again. At the end the model holds the weights of `stage.select`.
    Trainings that differ only in `epochs` share a folder if they have equal `schedule_epochs`.

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
        team: other processes that share each step; None to train alone.
        parent: another training, which this one continues; None to begin anew.

    Raises:
        DivergenceError: if the loss, its gradient or a validation metric is not finite.
        PausedError: if `should_stop` returned True.
    """
    args = model, task, stage, train, validation, seed, folder, store, flops, should_stop, team
    yield from _TrainingLoop(*args, parent).run()


@dataclass(frozen=True)
class Steps:
    """Training steps of a stage: their loss is a function of seed, epoch and step.

    Args:
        task: the loss and its data.
        stage: batch size.
        frames: (M,) training frames, on the CPU.
        seed: decides the order of batches and all random numbers of the task.
    """

    task: Task
    stage: Stage
    frames: Tensor
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.frames) / self.stage.batch_size)

    def batches(self, epoch: int) -> Sequence[Tensor]:
        """Frames of each step of an epoch."""
        order = torch.randperm(len(self.frames), generator=seeded(self.seed, "order", epoch))
        return self.frames[order].split(self.stage.batch_size)

    def terms(self, epoch: int, step: int, batch: Tensor) -> list[Term]:
        """Loss of a step in its parts."""
        generator = seeded(self.seed, "task", epoch, step, device=self.task.graphs.device)
        return self.task.terms(batch, generator, epoch * self.per_epoch + step)


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
        team: Team | None,
        parent: Parent | None,
    ) -> None:
        self.model, self.task, self.stage, self.seed = model, task, stage, seed
        self.flops, self.should_stop, self.team = flops, should_stop, team
        self.steps = Steps(task, stage, train[: stage.frames], seed)
        self.validation = task.graphs.evaluation_batches(validation, stage.batch_size)
        workers = team.workers if team else 1
        self.engine = build_engine(model, stage, len(train), store, workers=workers)
        self.state = TrainingState(model, stage, folder, parent)
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
            "lr": self._learning_rate((number + 1) * self.steps.per_epoch - 1),
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
        batches = self.steps.batches(epoch)
        for step in range(self.state.progress.step, len(batches)):
            self._step(epoch, step, batches[step])
            self.state.progress.step = step + 1
            self._checkpoint_if_due()

    def _step(self, epoch: int, step: int, frames: Tensor) -> None:
        if self.team:
            self.team.start_step(epoch, step)
        rate = self._learning_rate(epoch * self.steps.per_epoch + step)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        terms = self.steps.terms(epoch, step, frames)
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
        if self.team:
            seconds, more = self.team.cost()
            self.state.progress.cpu_seconds += seconds
            joules = None if joules is None or more is None else joules + more
        if joules is not None:
            self.state.progress.energy_joule = (self.state.progress.energy_joule or 0) + joules

    def _validate(self) -> dict[str, float]:
        self.state.eval_model.eval()
        generator = seeded(self.seed, "validation", device=self.task.graphs.device)
        return self.task.evaluate(self.state.eval_model, self.validation, generator)

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.stage, step, self.steps.per_epoch)

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
