"""Tasks as the user names them; those without labels are in `pretext_config`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from study.core.config import Own, any_of
from study.core.quantities.metrics import METRICS
from study.core.quantities.properties import PROPERTIES, TARGETS
from study.tasks.base_config import MetricConfig
from study.tasks.base_config import TaskConfig as TaskConfig
from study.tasks.pretext_config import Denoising as Denoising
from study.tasks.pretext_config import Masking as Masking
from study.tasks.pretext_config import Mixed as Mixed
from study.tasks.pretext_config import MixedPart, OwnTask
from study.tasks.pretext_config import NoiseLevel as NoiseLevel

ENERGY_FORCES_ERRORS = (
    "force_rmse",
    "force_mae",
    "energy_rmse",
    "energy_mae",
    "frame_energy_rmse",
)

STRESS_ERRORS = ("stress_rmse", "stress_mae")

ENERGY_ERRORS = ("energy_rmse", "energy_mae", "frame_energy_rmse", "frame_energy_mae")

SCALAR_ERRORS = (
    *ENERGY_ERRORS,
    *(f"{target}_{kind}" for target in TARGETS for kind in ("rmse", "mae")),
)
"""Names of the errors that tasks with labels measure, without `val_` and `test_`."""


class OwnMetric(Own, MetricConfig):
    """An error of one's own: a class derived from `study.plugins.MetricConfig`, with its settings.

    It is measured on validation and test frames, and lower is better.
    """

    model_config = ConfigDict(extra="allow")


METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")

TAKEN = {name.partition("_")[2] for name in METRICS} | {"hash"}
"""Names after `val_` and `test_` that tables have already."""


class LabelledConfig(TaskConfig):
    """What the tasks that learn from labels have in common."""

    supervised = True

    mask_embedding: Literal["zeros", "none"] = "zeros"
    """Atoms get the embedding of unmasked atoms, as in pretraining, or none."""
    auxiliary: MixedPart | None = None
    """A pretext task that goes on while finetuning, on copies of the same frames; denoising makes
    it Noisy Nodes (arXiv:2106.07971)."""
    labels_from: Literal["clean", "noised"] = "clean"
    """Labels are predicted from the frames as they are, or in training from the copies that an
    `auxiliary` denoising has noised, without a mask embedding of their own: Noisy Nodes as in the
    released code of arXiv:2206.00133."""

    metrics: list[OwnMetric] = Field(default=[], max_length=20, exclude_if=lambda given: not given)
    """Errors of your own, measured beside the others; `val_` and its name is the `metric` of a
    study that is to rank by one."""

    @model_validator(mode="after")
    def _metrics_have_names(self) -> Self:
        names = [metric.name for metric in self.metrics]
        wrong = [name for name in names if not METRIC_NAME.fullmatch(name) or name in TAKEN]
        wrong += [name for name in names if names.count(name) > 1]
        if wrong:
            raise ValueError(
                "`metrics` must have names of letters, digits and `_` that differ, also from "
                f"those of shipped ones, but got {wrong[0]}"
            )
        return self

    @property
    def own_errors(self) -> tuple[str, ...]:
        """Names of the errors of the user's own."""
        return tuple(metric.name for metric in self.metrics)

    @model_validator(mode="after")
    def _noised_copies_exist(self) -> Self:
        if self.labels_from == "noised":
            task = self.auxiliary.task.name if self.auxiliary else "no auxiliary"
            if task != "denoising":
                raise ValueError(
                    f"`labels_from: noised` needs an auxiliary denoising, but got {task}"
                )
        return self

    @property
    def label(self) -> str:
        """The task in a few words, with the one beside it."""
        of_noised = " of noised frames" * (self.labels_from == "noised")
        beside = f" + {self.auxiliary.task.label}" if self.auxiliary else ""
        return self.learned + of_noised + beside

    @property
    def embeds_mask(self) -> bool:
        """As in pretraining, unless there is to be no embedding."""
        return self.mask_embedding == "zeros"

    @property
    def learned(self) -> str:
        """What it learns, in a few words."""
        raise NotImplementedError

    def pretexts(self, place: str) -> list[tuple[str, TaskConfig]]:
        """The task beside it."""
        return [(f"{place}.auxiliary.task", self.auxiliary.task)] if self.auxiliary else []


class EnergyForces(LabelledConfig):
    """Predict energy and forces; errors are measured in standard deviations of the labels."""

    implementation = "study.tasks.energy_forces:EnergyForces"
    trains_potential = True

    name: Literal["energy_forces"]
    energy_weight: float = Field(default=0.001, ge=0)
    """Weight of the energy error, in units of the labels' standard deviation."""
    force_weight: float = Field(default=1.0, ge=0)
    """Weight of the force error, in units of the labels' root mean square."""
    stress_weight: float = Field(default=0.0, ge=0)
    """Weight of the stress error, in units of the labels' root mean square; only for models whose
    forces are the gradient of the energy, and for data with stresses."""
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Penalty of a deviation."""
    criterion: Literal["force_rmse", "energy_rmse"] = "force_rmse"
    """Validation metric that picks the best epoch."""
    error_unit: Literal["own", "energy"] = "own"
    """Energies and forces are measured each in the unit of its labels, or both in that of the
    energies as in the released code, which has L1 with the weights 1 and 500."""
    energy_reference: Literal["per_atom", "per_element", "per_frame", "frame_and_atoms", "none"] = (
        "per_atom"
    )
    """Energies are predicted about the training mean per atom, or about energies of the elements
    fitted to the training frames, which sets of different molecules need. The released code takes
    the mean off once per frame, and its EGNN and ForceNet also add it, times the deviation, to
    every atom, `frame_and_atoms`; its GNS learns what is left of the totals, `per_frame`."""
    energy_statistics: Literal["per_atom", "per_frame"] = "per_atom"
    """Mean and deviation that the two readings of the released code take: of energies per atom as
    it does for RPBE water, or of frames' energies as for TIP3P."""
    energy_unit: Literal["eV", "kJ/mol", "Hartree"] = "eV"
    """Unit in which they multiply deviations with means and themselves: the released code's labels
    are in kJ/mol for TIP3P and in Hartree for RPBE."""
    output_scale: Literal["force_rms", "energy_std", "energy_variance", "one"] = "force_rms"
    """Unit of what the network puts out, of the training labels. The released code takes the
    standard deviation of the energies in finetuning, for EGNN and ForceNet twice, in the model and
    in the label (`energy_variance`), and one in pretraining."""
    divergence: float | None = Field(default=2.0, gt=0)
    """A trial has diverged if after a tenth of its epochs the validation force error exceeds this
    many times the root mean square of the training forces; never when null."""

    @model_validator(mode="after")
    def _readings_of_the_released_code_go_together(self) -> Self:
        released = self.energy_reference in ("per_frame", "frame_and_atoms")
        if self.energy_statistics != "per_atom" and not released:
            raise ValueError(
                "`energy_reference` must be per_frame or frame_and_atoms for `energy_statistics`, "
                f"but got {self.energy_reference}"
            )
        products = (
            self.energy_reference == "frame_and_atoms" or self.output_scale == "energy_variance"
        )
        if self.energy_unit != "eV" and not products:
            raise ValueError(
                "`energy_unit` needs `output_scale: energy_variance` or `energy_reference: "
                f"frame_and_atoms`, but got {self.output_scale} and {self.energy_reference}"
            )
        return self

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of what it measures."""
        shipped = ENERGY_FORCES_ERRORS + (STRESS_ERRORS if self.stress_weight else ())
        return shipped + self.own_errors

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames must be labelled with."""
        return ("energy", "forces", "stress") if self.stress_weight else ("energy", "forces")

    @property
    def learned(self) -> str:
        """All of them."""
        return "energy, forces and stress" if self.stress_weight else "energy and forces"


class Scalar(LabelledConfig):
    """Predict a number of each structure: a property, or the energy alone."""

    implementation = "study.tasks.scalar:Scalar"

    name: Literal["scalar"]
    target: Literal[
        "energy", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298",
        "cv", "interaction_energy",
    ]  # fmt: skip
    """What: the total energy, one of QM9's twelve targets, the interaction of a dimer."""
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Penalty of a deviation, in standard deviations of the training frames."""
    criterion: Literal["mae", "rmse"] = "mae"
    """Validation error that picks the best epoch."""
    readout: Literal["sum", "mean"] | None = None
    """Atoms' numbers are summed, about energies of the elements, or averaged, about the mean; when
    left out, as the property is extensive or not."""

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of what it measures."""
        own = (f"{self.target}_rmse", f"{self.target}_mae")
        return (ENERGY_ERRORS if self.target == "energy" else own) + self.own_errors

    @property
    def extensive(self) -> bool:
        """Whether atoms' numbers are summed."""
        if self.readout is not None:
            return self.readout == "sum"
        return self.target == "energy" or PROPERTIES[self.target].extensive

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames must be labelled with."""
        return (self.target,)

    @property
    def learned(self) -> str:
        """The property."""
        return self.target


if TYPE_CHECKING:
    AnyTask = TaskConfig
else:
    AnyTask = any_of(TaskConfig, OwnTask)
"""Settings of any task, shipped or the user's own."""
