"""Stages of training as the user names them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from study.core.config import Config
from study.datasets.config import DatasetConfig
from study.tasks.config import EnergyForces, Scalar, TaskConfig

LABELLED = (EnergyForces, Scalar)
"""Tasks that learn from labels."""


class Stage(Config):
    """One training of the model on one task; pretraining and finetuning are both a stage."""

    task: TaskConfig
    epochs: int = Field(ge=1, le=1_000_000)
    """Passes over the training frames."""
    schedule_epochs: int | None = Field(default=None, ge=1, le=1_000_000)
    """Epochs after which the learning rate has fallen to `min_lr`; `epochs` when left out.
    Pretrainings that differ in `epochs` alone are then the same up to the shorter one's end, and
    share that."""
    batch_size: int = Field(ge=1, le=100_000)
    """Frames per step."""
    frames: int | None = Field(default=None, ge=1)
    """Training frames this stage sees; all when left out."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam with L2 as the released pretraining code."""
    lr: float = Field(default=1e-4, gt=0, le=10)
    """Learning rate at the start of the half cosine, the largest."""
    min_lr: float = Field(default=1e-7, ge=0, le=10)
    """Learning rate at its end, and at the start of the warm-up."""
    warmup: float = Field(default=0, ge=0)
    """Epochs, also parts of one, in which the learning rate first rises linearly."""
    plateau: float = Field(default=0, ge=0)
    """Epochs that it then stays at `lr` before it falls."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate of a layer as a share of the next one's; the heads learn with the whole."""
    weight_decay: float = Field(default=1e-4, ge=0, le=10)
    """Weight decay of the optimizer."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; unlimited when left out."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated,
    kept and tested in their place; none when left out."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """What linear layers round their factors to in training steps; sums, weights and validation are
    float32 in any case. tf32 is for GPUs, bf16 for GPUs and for CPUs that multiply it."""
    compile: bool | None = None
    """Run code compiled for the model; when left out, from 10,000 steps on."""
    select: Literal["best", "last"] = "best"
    """Weights to go on with: the epoch best in validation, or the last."""

    @model_validator(mode="after")
    def _ends_before_its_schedule(self) -> Self:
        if self.schedule_epochs is not None and self.epochs > self.schedule_epochs:
            raise ValueError(
                f"`epochs <= schedule_epochs` must hold, but got {self.epochs} and "
                f"{self.schedule_epochs}"
            )
        return self

    @model_validator(mode="after")
    def _rate_falls(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"`min_lr <= lr` must hold, but got {self.min_lr} and {self.lr}")
        scheduled = self.schedule_epochs or self.epochs
        if self.warmup + self.plateau >= scheduled:
            raise ValueError(
                f"`warmup + plateau` must be less than the {scheduled} epochs, but got "
                f"{self.warmup:g} and {self.plateau:g}"
            )
        return self


class Pretraining(Stage):
    """The first stage, without labels."""

    dataset: DatasetConfig | None = None
    """Frames to pretrain on, split like the others; those of the trial when left out."""


class Finetuning(Stage):
    """The second stage, on labels: energies and forces, or another number."""

    trainable: Literal["all", "readout"] | Annotated[int, Field(ge=1, le=64)] = "all"
    """Weights that learn: all, the readout alone on features as pretraining left them, or the
    readout and so many of the last layers."""
    schedule_epochs: None = None
    """Finetunings share no epochs; early stopping is what shortens them."""

    @property
    def trainable_depth(self) -> int | None:
        """Layers next to the readout that learn with it; none if all weights learn."""
        if isinstance(self.trainable, int):
            return self.trainable
        return 0 if self.trainable == "readout" else None
