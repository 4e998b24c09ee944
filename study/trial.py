"""A trial as the user writes it: one data set, one model, pretraining or none, finetuning.

Nothing here imports torch, so that a bad space is answered at once. The classes that do the work
(`study.datasets`, `study.models`, `study.tasks`) take these settings and read their attributes.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from study.config import Config
from study.dataset_settings import (
    QM9XYZ,
    ANI1File,
    ANI1xFile,
    ASEFile,
    Dataset,
    DeePMDFolder,
    DimerFile,
    GAMDFolder,
    ISO17Other,
    ISO17Within,
    MD17Files,
    N2P2File,
    OwnDataset,
    RPBEWater,
    SDFile,
    SPICEFile,
    Split,
    Stored,
    TIP3PWater,
)
from study.model_settings import (
    EGNN,
    GNS,
    EquivariantTransformer,
    ForceNet,
    Model,
    Network,
    OwnModel,
    SchNet,
    SE3Transformer,
    ViSNet,
)
from study.sizes import Sizes
from study.task_settings import (
    Denoising,
    EnergyForces,
    Masking,
    Mixed,
    MixedPart,
    OwnTask,
    Scalar,
    Task,
)

__all__ = [
    "EGNN",
    "GNS",
    "QM9XYZ",
    "ANI1File",
    "ANI1xFile",
    "ASEFile",
    "Dataset",
    "DeePMDFolder",
    "Denoising",
    "DimerFile",
    "EnergyForces",
    "EquivariantTransformer",
    "Finetuning",
    "ForceNet",
    "GAMDFolder",
    "ISO17Other",
    "ISO17Within",
    "MD17Files",
    "Masking",
    "Mixed",
    "MixedPart",
    "Model",
    "N2P2File",
    "Network",
    "OwnDataset",
    "OwnModel",
    "OwnTask",
    "Pretrained",
    "Pretraining",
    "RPBEWater",
    "SDFile",
    "SE3Transformer",
    "SPICEFile",
    "Scalar",
    "SchNet",
    "Split",
    "Stage",
    "Stored",
    "TIP3PWater",
    "Trial",
    "ViSNet",
]


LABELLED = (EnergyForces, Scalar)
"""Tasks that learn from labels."""


class Stage(Config):
    """One training of the model on one task; pretraining and finetuning are both a stage."""

    task: Task
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

    dataset: Dataset | None = None
    """Frames to pretrain on, split like the others; those of the trial when left out."""


class Pretrained(Config):
    """A first stage that was done before, perhaps elsewhere; what it cost is not counted."""

    model_config = ConfigDict(serialize_by_alias=True)

    place: str = Field(alias="from", min_length=1)
    """Folder of finished work of this program, `work/pretrain-…` or `work/trial-…`, relative to
    the current folder; every worker must see it."""
    sha256: str | None = None
    """Of its weights; filled in when left out."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return PurePath(self.place).name


def _first_stage(value: Any) -> str:
    """Tag of the class that a block of settings is of."""
    done = "from" in value if isinstance(value, dict) else isinstance(value, Pretrained)
    return "<Pretrained>" if done else "<Pretraining>"


FirstStage = Annotated[
    Annotated[Pretraining, Tag("<Pretraining>")] | Annotated[Pretrained, Tag("<Pretrained>")],
    Discriminator(_first_stage),
]


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


class Trial(Config):
    """Everything that decides the result of one two-stage training."""

    dataset: Dataset
    split: Split = Split()
    model: Model
    pretrain: FirstStage | None = None
    """First stage, without labels, to be done or done before; none trains from scratch."""
    finetune: Finetuning
    """Second stage, on labels."""
    transfer: Literal["body", "all"] = "body"
    """Weights that finetuning takes over: all, or all but the readout, which starts at zero."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Split, initial weights, order of batches, masks."""

    @model_validator(mode="after")
    def _stages_have_their_tasks(self) -> Self:
        first = self.pretraining
        if first and isinstance(first.task, LABELLED) and first.dataset is None:
            raise ValueError(
                "`pretrain.task` must work without labels, or have other ones to learn in "
                f"`pretrain.dataset`, but got {first.task.name} and no dataset"
            )
        second = self.finetune.task
        if second.name not in ("energy_forces", "scalar"):
            raise ValueError(
                f"`finetune.task` must be energy_forces or scalar, but got {second.name}"
            )
        return self

    @model_validator(mode="after")
    def _given_forces_are_taken(self) -> Self:
        tasks = _pretexts("finetune", self.finetune)
        tasks += _pretexts("pretrain", self.pretraining) if self.pretraining else []
        for place, task in tasks:
            if _gives_forces(task) and not getattr(self.model, "force_input", False):
                raise ValueError(
                    f"`{place}.given` must be nothing, or the model one with `force_input: true`, "
                    f"but got forces and {self.model.name}"
                )
        return self

    @model_validator(mode="after")
    def _layers_that_learn_exist(self) -> Self:
        depth, layers = self.finetune.trainable_depth, self.model.layers
        if depth is not None and depth > layers:
            raise ValueError(
                f"`finetune.trainable` must be <= {layers}, the layers of the model, but got "
                f"{depth}"
            )
        return self

    @property
    def pretraining(self) -> Pretraining | None:
        """The first stage, if it is to be done."""
        return self.pretrain if isinstance(self.pretrain, Pretraining) else None

    @property
    def start(self) -> Pretrained | None:
        """The first stage, if it was done before."""
        return self.pretrain if isinstance(self.pretrain, Pretrained) else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is to be done."""
        return (self.finetune, *([self.pretraining] if self.pretraining else []))

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """What it trains on: one data set, or one for each stage."""
        own = self.pretraining.dataset if self.pretraining else None
        return (self.dataset,) if own is None else (self.dataset, own)

    def dataset_of(self, stage: Stage) -> Dataset:
        """What one of its stages trains on."""
        own = stage.dataset if isinstance(stage, Pretraining) else None
        return own or self.dataset

    @model_validator(mode="after")
    def _suits_its_dataset(self) -> Self:
        self.check_sizes(*(dataset.sizes for dataset in self.datasets))
        return self

    def check_sizes(self, sizes: Sizes | None, pretraining: Sizes | None = None) -> None:
        """Refuse data sets too small for this trial.

        Args:
            sizes: of `dataset`; none if not known yet.
            pretraining: the same of `pretrain.dataset`, if there is one.

        Raises:
            ValueError: naming the key to change.
        """
        if self.pretraining is not None:
            own = self.pretraining.dataset is not None
            place = "pretrain.dataset" if own else "dataset"
            self._check_stage("pretrain", self.pretraining, place, pretraining if own else sizes)
        self._check_stage("finetune", self.finetune, "dataset", sizes)

    def _check_stage(self, name: str, stage: Stage, place: str, sizes: Sizes | None) -> None:
        if sizes is None:
            return
        _check_masks(name, stage, sizes.waters)
        _check_labels(name, stage, place, sizes.labels)
        by = self.split.by
        if by == "published":
            _check_published(name, stage, place, sizes.published)
            return
        units = sizes.units(by)
        train = self.split.counts(units)[0]
        if train < 1:
            raise ValueError(
                f"`{place}` must leave a {by} to train on after validation and test, but has "
                f"{units}; take at least 3, a smaller `split.test` or `split.validation`, or "
                "`split: {by: frame}`"
            )
        available = sizes.fewest_frames(by, train)
        if stage.frames and stage.frames > available:
            raise ValueError(
                f"`{name}.frames` must be <= {available}, the frames left to train on, but "
                f"got {stage.frames}"
            )


def _check_published(name: str, stage: Stage, place: str, published: tuple[int, ...]) -> None:
    if not all(published):
        raise ValueError(
            f"`{place}` must have a published split with all three parts for `split: {{by: "
            f"published}}`, but has {list(published)} frames in them; split it by something else"
        )
    if stage.frames and stage.frames > published[0]:
        raise ValueError(
            f"`{name}.frames` must be <= {published[0]}, the frames published to train on, but got "
            f"{stage.frames}"
        )


def _check_labels(name: str, stage: Stage, place: str, labels: tuple[str, ...]) -> None:
    needed = stage.task.labels if isinstance(stage.task, LABELLED) else ()
    if any(_gives_forces(task) for _, task in _pretexts(name, stage)):
        needed = tuple(dict.fromkeys((*needed, "forces")))
    missing = [label for label in needed if label not in labels]
    if missing:
        raise ValueError(
            f"`{place}` must be labelled with {' and '.join(missing)} for `{name}.task`, but has "
            f"{', '.join(labels) or 'no labels'}"
        )


def _gives_forces(task: Denoising | Masking | OwnTask) -> bool:
    return isinstance(task, Denoising) and task.given == "forces"


def _check_masks(name: str, stage: Stage, waters: int) -> None:
    for place, masking in _pretexts(name, stage):
        if not isinstance(masking, Masking) or masking.within != "water":
            continue
        if waters == 0:
            raise ValueError(
                f"`{place}` must have frames of nothing but water to mask; elsewhere mask "
                "`within: bonds`"
            )
        if int(masking.masking_ratio * waters) < 1:
            raise ValueError(
                f"`{place}.masking_ratio` must hide an atom in every frame, but "
                f"int({masking.masking_ratio} * {waters} molecules) is 0; raise it"
            )


def _pretexts(name: str, stage: Stage) -> list[tuple[str, Denoising | Masking | OwnTask]]:
    """Every pretext task of a stage, with its place."""
    task, place = stage.task, f"{name}.task"
    match task:
        case Mixed():
            return [(place, part.task) for part in task.tasks]
        case EnergyForces() | Scalar():
            auxiliary = task.auxiliary
            return [(f"{place}.auxiliary.task", auxiliary.task)] if auxiliary else []
        case _:
            return [(place, task)]
