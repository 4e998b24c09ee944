"""A trial as the user writes it: one data set, one model, pretraining or none, finetuning.

Nothing here imports torch, so that a bad space is answered at once. The classes that do the work
(`study.datasets`, `study.models`, `study.tasks`) take these settings and read their attributes.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from study.core.config import Config, shipped
from study.datasets.config import AnyDataset, DatasetConfig
from study.datasets.sizes import Sizes
from study.datasets.split_config import Split
from study.models.config import AnyModel
from study.space.trial_checks import (
    PLURALS,
    check_elements,
    check_labels,
    check_published,
    check_split,
    check_tasks,
)
from study.tasks.config import TaskConfig
from study.training.config import Finetuning, Pretraining, Stage


class Pretrained(Config):
    """A first stage that was done before, perhaps elsewhere; what it cost is not counted."""

    model_config = ConfigDict(serialize_by_alias=True)

    place: str = Field(alias="from", min_length=1)
    """Folder of finished work of this program, `work/pretrain-…` or `work/trial-…`, relative to
    the space's folder; every worker must see it."""
    sha256: str | None = None
    """Of its weights; filled in when left out."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return PurePath(self.place).name

    @property
    def label(self) -> str:
        """Of arms that start from it."""
        return f"from {self.name}"


class Foundation(Pretrained):
    """A foundation model that another package trained on labels, with its own data."""

    place: str = Field(alias="from", min_length=1)
    """A file that `python -m study.foundation` made, relative to the space's folder; settings of
    the model that the space leaves out are those of the file."""
    package: Literal["mace"]
    """That made it."""
    energies: Literal["refit", "keep"] = "refit"
    """Reference energies of the elements: fitted to the frames to train on, with what a readout
    that is kept adds to them, or those of the file, if the labels are of its method."""
    trained_on: str = ""
    """What records and reports are to say of its training data; filled in from the file."""

    @property
    def name(self) -> str:
        """Of the file."""
        return PurePath(self.place).stem

    @property
    def label(self) -> str:
        """Of arms that start from it."""
        return f"foundation {self.name}"


def _first_stage(value: Any) -> str:
    """Tag of the class that a block of settings is of."""
    if isinstance(value, dict):
        done = "from" in value
        return f"<{'Foundation' if done and 'package' in value else STARTS[done]}>"
    return f"<{type(value).__name__}>"


STARTS = {True: "Pretrained", False: "Pretraining"}
"""Classes of first stages, by whether they were done before."""


"""What a split deals out, by its `by`."""

FirstStage = Annotated[
    Annotated[Pretraining, Tag("<Pretraining>")]
    | Annotated[Pretrained, Tag("<Pretrained>")]
    | Annotated[Foundation, Tag("<Foundation>")],
    Discriminator(_first_stage),
]


class Trial(Config):
    """Everything that decides the result of one two-stage training."""

    dataset: AnyDataset
    split: Split = Split()
    model: AnyModel
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
        if first and first.task.supervised and first.dataset is None:
            raise ValueError(
                "`pretrain.task` must work without labels, or have other ones to learn in "
                f"`pretrain.dataset`, but got {first.task.name} and no dataset"
            )
        second = self.finetune.task
        if not second.supervised:
            kinds = shipped(TaskConfig).items()
            names = " or ".join(name for name, kind in kinds if kind.supervised)
            raise ValueError(f"`finetune.task` must be {names}, but got {second.name}")
        return self

    @model_validator(mode="after")
    def _energies_are_learned_on(self) -> Self:
        start, task = self.foundation, self.finetune.task.name
        if start and task != "energy_forces":
            kept = "`transfer` must be body" * (self.transfer == "all")
            kept = kept or "`pretrain.energies` must be refit" * (start.energies == "keep")
            if kept:
                raise ValueError(f"{kept} where `finetune.task` learns no energies, but {task}")
        return self

    @model_validator(mode="after")
    def _given_forces_are_taken(self) -> Self:
        tasks = self.finetune.task.pretexts("finetune.task")
        tasks += self.pretraining.task.pretexts("pretrain.task") if self.pretraining else []
        for place, task in tasks:
            if task.gives_forces and not getattr(self.model, "force_input", False):
                raise ValueError(
                    f"`{place}.given` must be nothing, or the model one with `force_input: true`, "
                    f"but got forces and {self.model.name}"
                )
        return self

    @model_validator(mode="after")
    def _stresses_are_given(self) -> Self:
        stages = {"finetune": self.finetune, "pretrain": self.pretraining}
        for name, stage in stages.items():
            if stage and "stress" in stage.task.labels and not self.model.gives_stress:
                raise ValueError(
                    f"`{name}.task.stress_weight` must be 0 with a model whose forces are not the "
                    f"gradient of its energy, but got {self.model.name}"
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
    def foundation(self) -> Foundation | None:
        """The foundation model that it starts from, if it does."""
        return self.pretrain if isinstance(self.pretrain, Foundation) else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is to be done."""
        return (self.finetune, *([self.pretraining] if self.pretraining else []))

    @property
    def datasets(self) -> tuple[DatasetConfig, ...]:
        """What it trains on: one data set, or one for each stage."""
        own = self.pretraining.dataset if self.pretraining else None
        named = (self.dataset,) if own is None else (self.dataset, own)
        return tuple(dataset.of_trial(self.seed) for dataset in named)

    def dataset_of(self, stage: Stage) -> DatasetConfig:
        """What one of its stages trains on."""
        own = stage.dataset if isinstance(stage, Pretraining) else None
        return (own or self.dataset).of_trial(self.seed)

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
        check_elements(self.model.known_elements, place, sizes)
        check_tasks(name, stage, sizes)
        check_labels(name, stage, place, sizes)
        # Only the set that is tested on must have been published with a split.
        by = sizes.suited(self.split.by) if place == "pretrain.dataset" else self.split.by
        if by == "published":
            check_published(name, stage, place, sizes.published)
            return
        units = sizes.units(by)
        if self.split.folds and units < self.split.folds:
            raise ValueError(
                f"`split.folds` must be <= {units}, the number of {PLURALS[by]} in `{place}`, but "
                f"got {self.split.folds}"
            )
        check_split(self.split, place, by, units)
        train = self.split.counts(units)[0]
        available = sizes.fewest_frames(by, train)
        if stage.frames and stage.frames > available:
            raise ValueError(
                f"`{name}.frames` must be <= {available}, the frames left to train on, but "
                f"got {stage.frames}"
            )
