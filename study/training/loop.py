"""The only training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from study.core.errors import UserError
from study.core.seeding import seeded
from study.models.potential import Potential
from study.tasks.task import Task
from study.training.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_selected,
    selected_after,
)
from study.training.energy_meter import EnergyMeter
from study.training.gradients import Engine, can_compile
from study.training.schedule import OPTIMIZERS, layer_groups, learning_rate, scheduled_epochs

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


@dataclass
class Progress:
    """How far a stage has come.

    Args:
        epoch: epochs finished.
        step: steps of the next epoch finished.
        history: metrics of each finished epoch.
        best_epoch: the one with the lowest criterion so far; 0 before the first.
        seconds: wall time spent, also in earlier processes.
        cpu_seconds: processor time of the process in them, all its threads together.
        energy_joule: energy that they took, where the machine tells it.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joule: float | None = None


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
    if run.take_over():
        yield from run.progress.history
        return
    run.resume()
    yield from run.progress.history
    while run.progress.epoch < stage.epochs:
        metrics = run.epoch()
        run.save()
        yield metrics
    run.finish()


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
    """Model, optimizer and progress of one stage."""

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
        self.folder, self.flops, self.ending = folder, flops, ending
        self.train = train[: stage.frames]
        self.validation = list(validation.split(stage.batch_size))
        self.steps_per_epoch = math.ceil(len(self.train) / stage.batch_size)
        self.engine = Engine(
            model,
            compiled=compiles(stage, model, len(train)),
            store=store,
            precision=stage.precision,
        )
        self.optimizer = OPTIMIZERS[stage.optimizer](
            layer_groups(model, stage.layer_decay),
            lr=stage.lr,
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self.meter = EnergyMeter(task.graphs.device)
        self.steps: list[Tensor] = []
        """(2,) loss and gradient norm of each step of the epoch so far."""
        self._saved_at = time.monotonic()
        self._clocks = self._saved_at, time.process_time()
        self.best: dict[str, Tensor] = {}
        # What is validated, kept and tested: the model, or the average of its weights.
        self.judged = model if stage.ema is None else copy.deepcopy(model)

    def epoch(self) -> dict[str, float]:
        """Train once over the frames, then validate."""
        self.meter.lap()
        self._clocks = time.monotonic(), time.process_time()
        number = self.progress.epoch
        self._train(number)
        loss, norm = torch.stack(self.steps).mean(dim=0).tolist()
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
        hopeless = self.task.hopeless(metrics) if self._past_a_tenth(number + 1) else ""
        if hopeless:
            raise DivergenceError(f"{hopeless} in epoch {number + 1}")
        self._keep_if_best(metrics)
        self._count_cost()
        self.progress.epoch, self.progress.step, self.steps = number + 1, 0, []
        metrics |= self._spent()
        self.progress.history.append(metrics)
        return metrics

    def finish(self) -> None:
        """Leave the selected weights in the model."""
        self.model.load_state_dict(self._selected())

    def take_over(self) -> bool:
        """Leave the weights in the model that a longer training had selected by the last epoch."""
        found = None
        if self.folder is not None and self.stage.schedule_epochs is not None:
            found = selected_after(self.folder, self.stage.epochs)
        if found is not None:
            self.progress = Progress(**found.state)
            self.model.load_state_dict(found.tensors)
        return found is not None

    def save(self) -> None:
        """Write everything that `resume` needs, if there is a folder for it."""
        if self.folder is None:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        if self.judged is not self.model:
            average = self.judged.state_dict()
            tensors |= {f"average.{name}": value for name, value in average.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        if self.steps:
            tensors["steps.all"] = torch.stack(self.steps)
        epoch, step, state = self.progress.epoch, self.progress.step, vars(self.progress)
        if self.stage.schedule_epochs is not None and not step:
            save_selected(self.folder, Checkpoint(epoch, self._selected(), state))
        save_checkpoint(self.folder, Checkpoint(epoch, tensors, state, step))
        self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Take over the newest undamaged checkpoint, if there is one."""
        checkpoint = newest_checkpoint(self.folder, self.stage.epochs) if self.folder else None
        if checkpoint is None:
            return
        self.progress = Progress(**checkpoint.state)
        self.model.load_state_dict(checkpoint.part("model"))
        if self.judged is not self.model:
            self.judged.load_state_dict(checkpoint.part("average"))
        device = self.task.graphs.device
        self.best = {name: value.to(device) for name, value in checkpoint.part("best").items()}
        for steps in checkpoint.part("steps").values():
            self.steps = list(steps.to(device))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint.part("optimizer").items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        state: dict[str, Any] = self.optimizer.state_dict() | {"state": moments}
        self.optimizer.load_state_dict(state)

    def _train(self, epoch: int) -> None:
        """All steps of an epoch that are left; what they yield stays on the device."""
        self.model.train()
        order = torch.randperm(len(self.train), generator=seeded(self.seed, "order", epoch))
        batches = self.train[order].split(self.stage.batch_size)
        for step in range(self.progress.step, len(batches)):
            self._step(epoch, step, batches[step])
            self.progress.step = step + 1
            self._heed_ending()

    def _step(self, epoch: int, step: int, chosen: Tensor) -> None:
        number = self._steps(epoch) + step
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(number) * group["share"]
        generator = seeded(self.seed, "task", epoch, step, device=self.task.graphs.device)
        terms = self.task.terms(chosen, generator, number)
        self.optimizer.zero_grad()
        loss = self.engine.backward(terms)
        limit = self.stage.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.steps.append(torch.stack([loss, norm]))
        self.optimizer.step()
        self._follow()

    def _heed_ending(self) -> None:
        """Write a checkpoint when it is time, and end if that is asked for."""
        ending = self.ending()
        if ending or time.monotonic() - self._saved_at > CHECKPOINT_EVERY:
            self._count_cost()
            self.save()
        if ending:
            raise PausedError

    def _count_cost(self) -> None:
        """Add what has passed since the last call to the cost of the stage."""
        wall, cpu = self._clocks
        self._clocks = time.monotonic(), time.process_time()
        self.progress.seconds += self._clocks[0] - wall
        self.progress.cpu_seconds += self._clocks[1] - cpu
        joules = self.meter.lap()
        if joules is not None:
            self.progress.energy_joule = (self.progress.energy_joule or 0) + joules

    def _follow(self) -> None:
        """Move the average of the weights by a step; the buffers are those of the model."""
        if self.stage.ema is None:
            return
        with torch.no_grad():
            pairs = zip(self.judged.parameters(), self.model.parameters(), strict=True)
            for average, weights in pairs:
                average.lerp_(weights, 1 - self.stage.ema)
            for copied, buffer in zip(self.judged.buffers(), self.model.buffers(), strict=True):
                copied.copy_(buffer)

    def _selected(self) -> dict[str, Tensor]:
        return self.best if self.stage.select == "best" else self.judged.state_dict()

    def _past_a_tenth(self, epochs: int) -> bool:
        return epochs > 0.1 * scheduled_epochs(self.stage)

    def _validate(self) -> dict[str, float]:
        self.judged.eval()
        generator = seeded(self.seed, "validation", device=self.task.graphs.device)
        return self.task.evaluate(self.judged, self.validation, generator)

    def _keep_if_best(self, metrics: dict[str, float]) -> None:
        best = self.progress.best_epoch
        criterion = self.task.criterion
        if best and metrics[criterion] >= self.progress.history[best - 1][criterion]:
            return
        self.progress.best_epoch = self.progress.epoch + 1
        self.best = {name: value.clone() for name, value in self.judged.state_dict().items()}

    def _steps(self, epochs: int) -> int:
        return epochs * self.steps_per_epoch

    def _rate(self, step: int) -> float:
        return learning_rate(self.stage, step, self.steps_per_epoch)

    def _spent(self) -> dict[str, float]:
        """What the epochs so far have cost, as far as it is known; see `study.core.records.SPENT`."""
        done = self.progress
        flops = None if self.flops is None else done.epoch * self.flops
        spent = {
            "seconds": done.seconds,
            "cpu_seconds": done.cpu_seconds,
            "flops": flops,
            "energy_joule": done.energy_joule,
        }
        return {name: value for name, value in spent.items() if value is not None}
