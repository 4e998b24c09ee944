"""Mutable state of a training: weights, optimizer, progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from study.models.potential import Potential
from study.training.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_selected,
    selected_after,
)
from study.training.schedule import OPTIMIZERS, layer_groups

if TYPE_CHECKING:
    from study.training.config import Stage


@dataclass
class Progress:
    """Progress of a stage, as checkpoints record it.

    Args:
        epoch: epochs finished.
        step: steps of the next epoch finished.
        history: metrics of each finished epoch.
        best_epoch: epoch with the lowest criterion so far; 0 before the first.
        seconds: wall time so far, including earlier processes.
        cpu_seconds: CPU time so far, summed over threads.
        energy_joule: energy so far, J; None where it cannot be measured.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joule: float | None = None


class LostParentError(Exception):
    """The last checkpoint of the training to continue is missing or damaged."""


@dataclass(frozen=True)
class Parent:
    """A training that another one continues.

    Args:
        folder: of its checkpoints.
        epoch: after which the other one goes on.
    """

    folder: Path
    epoch: int

    def checkpoint(self) -> Checkpoint:
        """Load the checkpoint at the end of this epoch.

        Raises:
            LostParentError: if the newest is another one: it may be in the making once more.
        """
        found = newest_checkpoint(self.folder)
        if found is None or (found.epoch, found.step) != (self.epoch, 0):
            raise LostParentError
        return found


class TrainingState:
    """Model, moving average and best weights, optimizer and progress.

    Args:
        model: the model to train, on its device.
        stage: optimizer, moving average, and which weights are selected.
        folder: of checkpoints; None to write none.
        parent: the training that it continues; None to begin anew.
    """

    def __init__(
        self, model: Potential, stage: Stage, folder: Path | None, parent: Parent | None = None
    ) -> None:
        self.model, self.stage, self.folder, self.parent = model, stage, folder, parent
        self.device = next(model.parameters()).device
        self.optimizer = OPTIMIZERS[stage.optimizer](
            layer_groups(model, stage.layer_decay),
            lr=stage.lr,
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self.steps: list[Tensor] = []
        """(2,) loss and gradient norm of each step of the current epoch."""
        self.saved_at = time.monotonic()
        self.best: dict[str, Tensor] = {}
        self.average = None if stage.ema is None else _moving_average(model, stage.ema)
        # Validated, kept and tested: the model, or the moving average of its weights.
        self.eval_model = model if self.average is None else cast("Potential", self.average.module)

    def finish(self) -> None:
        """Load the selected weights into the model."""
        self.model.load_state_dict(self.selected())

    def load_selected(self) -> bool:
        """Load the weights that a longer training had selected after this stage's last epoch.

        Returns:
            Whether there was such a training, so that nothing is left to train.
        """
        selected = None
        if self.folder is not None and self.stage.schedule_epochs is not None:
            selected = selected_after(self.folder, self.stage.epochs)
        if selected is not None:
            self.progress = Progress(**selected.state)
            self.model.load_state_dict(selected.tensors)
        return selected is not None

    def save(self) -> None:
        """Write a checkpoint with everything that `resume` needs, if there is a folder."""
        if self.folder is None:
            return
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        if self.eval_model is not self.model:
            average = self.eval_model.state_dict()
            tensors |= {f"average.{name}": value for name, value in average.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
        if self.steps:
            tensors["steps.all"] = torch.stack(self.steps)
        epoch, step, state = self.progress.epoch, self.progress.step, vars(self.progress)
        if self.stage.schedule_epochs is not None and not step:
            save_selected(self.folder, Checkpoint(epoch, self.selected(), state))
        save_checkpoint(self.folder, Checkpoint(epoch, tensors, state, step))
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Load the newest undamaged checkpoint, if there is one; the parent's before the first.

        Raises:
            LostParentError: if there is neither, though the training continues another one.
        """
        checkpoint = newest_checkpoint(self.folder, self.stage.epochs) if self.folder else None
        if checkpoint is None and self.parent is not None:
            checkpoint = self.parent.checkpoint()
        if checkpoint is None:
            return
        self.progress = Progress(**checkpoint.state)
        self.model.load_state_dict(checkpoint.part("model"))
        if self.eval_model is not self.model:
            self.eval_model.load_state_dict(checkpoint.part("average"))
        self.best = {name: value.to(self.device) for name, value in checkpoint.part("best").items()}
        for steps in checkpoint.part("steps").values():
            self.steps = list(steps.to(self.device))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in checkpoint.part("optimizer").items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = value
        state: dict[str, Any] = self.optimizer.state_dict() | {"state": moments}
        self.optimizer.load_state_dict(state)

    def update_ema(self) -> None:
        """Update the moving average of the weights; buffers are copied from the model."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def selected(self) -> dict[str, Tensor]:
        """Weights of the best epoch so far, or the current ones, by `stage.select`."""
        return self.best if self.stage.select == "best" else self.eval_model.state_dict()

    def keep_if_best(self, metrics: dict[str, float], criterion: str) -> None:
        """Keep the current weights if the criterion is lower than in all earlier epochs."""
        best = self.progress.best_epoch
        if best and metrics[criterion] >= self.progress.history[best - 1][criterion]:
            return
        self.progress.best_epoch = self.progress.epoch + 1
        self.best = {name: value.clone() for name, value in self.eval_model.state_dict().items()}


def _moving_average(model: Potential, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, which starts at the current ones."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    # With none averaged, torch would start at the weights after the first step instead.
    average.n_averaged.fill_(1)
    return average
