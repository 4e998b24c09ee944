"""Stages of training as the user names them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from study.core.config import Config
from study.datasets.config import AnyDataset
from study.tasks.config import AnyTask


class Stage(Config):
    """Training of the model on one task: pretraining and finetuning are both a stage."""

    task: AnyTask
    epochs: int = Field(ge=1, le=1_000_000)
    """Number of passes over the training frames."""
    schedule_epochs: int | None = Field(default=None, ge=1, le=1_000_000)
    """Epochs of the whole learning-rate schedule, at whose end it is `min_lr`; default: `epochs`.
    Pretrainings that differ only in `epochs` share the epochs that they have in common."""
    batch_size: int = Field(ge=1, le=100_000)
    """Frames per training step."""
    frames: int | None = Field(default=None, ge=1)
    """Number of training frames of this stage; all when left out."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam with L2 regularization as in the released pretraining code."""
    lr: float = Field(default=1e-4, gt=0, le=10)
    """Peak learning rate, at the start of the cosine decay."""
    min_lr: float = Field(default=1e-7, ge=0, le=10)
    """Learning rate at the end of the cosine decay, and at the start of the warmup."""
    warmup: float = Field(default=0, ge=0)
    """Epochs of linear learning-rate warmup; fractions are allowed."""
    plateau: float = Field(default=0, ge=0)
    """Epochs at the peak learning rate between warmup and decay."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Layer-wise learning-rate decay: factor between a layer and the next; heads have factor 1."""
    weight_decay: float = Field(default=1e-4, ge=0, le=10)
    """Weight decay of the optimizer."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradient clipping: largest norm; no clipping when left out."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated,
    kept and tested in their place; no average when left out."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Precision of matrix products in training steps; sums, weights and validation are always
    float32. tf32 needs a GPU, bf16 a GPU or a CPU that supports it."""
    compile: bool | Literal["if_possible"] | None = None
    """Compile the training step: always, never, or where the model and the machine can. When left
    out, stages of 10,000 steps or more are compiled if possible. One program, which takes a core
    one to three minutes, serves all trials of the same model, so that in a study of many short
    trials `if_possible` pays, too."""
    select: Literal["best", "last"] = "best"
    """Weights that the stage ends with: those of the best epoch in validation, or of the last."""

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

    dataset: AnyDataset | None = None
    """Data set to pretrain on, with the same split; that of the trial when left out."""


class Finetuning(Stage):
    """The second stage, on labels: energies and forces, or a scalar property."""

    trainable: Literal["all", "readout"] | Annotated[int, Field(ge=1, le=64)] = "all"
    """Trainable weights: all; only the readout, on frozen features; or the readout and this many of
    the last layers."""
    head_init: Literal["zero", "random"] = "zero"
    """Weights of heads that are not taken over: zero in their last layer, so that training starts
    at the reference energies without forces; or random as the released codes start."""
    schedule_epochs: None = None
    """Always left out: finetunings share no epochs and are shortened by early stopping."""

    @property
    def trainable_depth(self) -> int | None:
        """Number of trainable last layers beside the readout; None if all weights are trainable."""
        if isinstance(self.trainable, int):
            return self.trainable
        return 0 if self.trainable == "readout" else None
