"""What of a stage changes while it trains: weights, optimizer, progress."""

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


class TrainingState:
    """Model, average of its weights, best weights, optimizer and progress.

    Args:
        model: to train, on its device.
        stage: optimizer, average, and which weights are selected.
        folder: of checkpoints; none are written without it.
    """

    def __init__(self, model: Potential, stage: Stage, folder: Path | None) -> None:
        self.model, self.stage, self.folder = model, stage, folder
        self.device = next(model.parameters()).device
        self.optimizer = OPTIMIZERS[stage.optimizer](
            layer_groups(model, stage.layer_decay),
            lr=stage.lr,
            weight_decay=stage.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self.steps: list[Tensor] = []
        """(2,) loss and gradient norm of each step of the epoch so far."""
        self.saved_at = time.monotonic()
        self.best: dict[str, Tensor] = {}
        self.average = None if stage.ema is None else _moving_average(model, stage.ema)
        # What is validated, kept and tested: the model, or the average of its weights.
        self.eval_model = model if self.average is None else cast("Potential", self.average.module)

    def finish(self) -> None:
        """Leave the selected weights in the model."""
        self.model.load_state_dict(self.selected())

    def load_selected(self) -> bool:
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
        """Take over the newest undamaged checkpoint, if there is one."""
        checkpoint = newest_checkpoint(self.folder, self.stage.epochs) if self.folder else None
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
        """Move the average of the weights by a step; the buffers are those of the model."""
        if self.average is not None:
            self.average.update_parameters(self.model)

    def selected(self) -> dict[str, Tensor]:
        """The weights to go on with, by what is known so far."""
        return self.best if self.stage.select == "best" else self.eval_model.state_dict()

    def keep_if_best(self, metrics: dict[str, float], criterion: str) -> None:
        """Keep the weights if the criterion has never been as low."""
        best = self.progress.best_epoch
        if best and metrics[criterion] >= self.progress.history[best - 1][criterion]:
            return
        self.progress.best_epoch = self.progress.epoch + 1
        self.best = {name: value.clone() for name, value in self.eval_model.state_dict().items()}


def _moving_average(model: Potential, decay: float) -> AveragedModel:
    """An exponential moving average that starts at the model's weights as they are now."""
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    # With none averaged, torch would start at the weights after the first step instead.
    average.n_averaged.fill_(1)
    return average
