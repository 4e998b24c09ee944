"""Tasks as the user names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from study.core.config import Component, Config, Own, any_of
from study.core.properties import PROPERTIES, TARGETS

if TYPE_CHECKING:
    from study.datasets.sizes import Sizes
    from study.graphs.graph_set import GraphSet
    from study.tasks.task import Task


class TaskConfig(Component):
    """Settings of a task; derive from it for a pretraining task of your own."""

    supervised: ClassVar[bool] = False
    """Learns from labels; finetuning does, pretraining may on another data set."""
    trains_potential: ClassVar[bool] = False
    """What it trains predicts energies with forces."""

    def build(self, graphs: GraphSet) -> Task:
        """The task over all frames of `graphs`; see `study.tasks.task`."""
        made: Task = super().build(graphs)
        return made

    @property
    def label(self) -> str:
        """The task in a few words."""
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames must be labelled with."""
        return ()

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of what it measures on labels."""
        return ()

    @property
    def embeds_mask(self) -> bool:
        """Whether its atoms get a mask embedding, be they masked or not."""
        return False

    @property
    def gives_forces(self) -> bool:
        """Whether it tells the network forces, which the model has to take as input."""
        return False

    def pretexts(self, place: str) -> list[tuple[str, TaskConfig]]:
        """Every task without labels that it consists of, with its place.

        Args:
            place: of this task, as dotted keys.
        """
        return [(place, self)]

    def check_frames(self, place: str, sizes: Sizes) -> None:
        """Refuse a data set that the task cannot work on.

        Args:
            place: of this task, as dotted keys.
            sizes: of the data set.

        Raises:
            ValueError: naming the key to change.
        """


class PretextConfig(TaskConfig):
    """What the shipped tasks without labels have in common: each has a placebo."""

    placebo: bool = False
    """Random targets instead of the true ones: same compute, nothing to learn."""


class Masking(PretextConfig):
    """Predict the directions to a hidden hydrogen of some molecules (arXiv:2402.15921)."""

    implementation = "study.tasks.masking:Masking"

    name: Literal["masking"]
    masking_ratio: float = Field(gt=0, le=1)
    """Fraction of the molecules, or of the bonded neighbourhoods, that lose one atom."""
    within: Literal["water", "bonds"] = "water"
    """What loses an atom: a water molecule as in the paper, or, in any structure, an atom with all
    that is bonded to it alone, by covalent radii."""
    atom: Literal["hydrogen", "oxygen", "any"] = "hydrogen"
    """What is hidden; oxygens are the paper's negative result, `any` element goes with `bonds`."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        what = f"masking {self.masking_ratio:g}" + " bonds" * (self.within == "bonds")
        what += f" {self.atom}" * (self.atom != "hydrogen")
        return what + " placebo" * self.placebo

    def check_frames(self, place: str, sizes: Sizes) -> None:
        """Masking needs water enough to hide an atom in every frame, or bonds."""
        if self.within != "water":
            return
        if sizes.waters == 0:
            raise ValueError(
                f"`{place}` must have frames of nothing but water to mask; elsewhere mask "
                "`within: bonds`"
            )
        if int(self.masking_ratio * sizes.waters) < 1:
            raise ValueError(
                f"`{place}.masking_ratio` must hide an atom in every frame, but "
                f"int({self.masking_ratio} * {sizes.waters} molecules) is 0; raise it"
            )

    @model_validator(mode="after")
    def _water_has_no_other_atoms(self) -> Self:
        if self.within == "water" and self.atom == "any":
            raise ValueError("`atom` must be hydrogen or oxygen within water, but got any")
        return self


class Denoising(PretextConfig):
    """Push every atom by Gaussian noise and predict the way back (arXiv:2206.00133)."""

    implementation = "study.tasks.denoising:Denoising"

    name: Literal["denoising"]
    noise_scale: float = Field(default=0.5, gt=0, le=10)
    """Standard deviation of the noise per component, Å."""
    lowest_scale: float | None = Field(default=None, gt=0, le=10)
    """Every frame draws its scale between this and `noise_scale`, uniformly in its logarithm; all
    have `noise_scale` when left out, Å."""
    conditioned: bool = False
    """Divide what the network puts out by the frame's scale over `noise_scale`
    (arXiv:2006.09011, technique 3), so that it need not guess how noisy a frame is."""
    corrupted: float = Field(default=1.0, gt=0, le=1)
    """Probability of an atom to be pushed; the others stay, and nothing is asked of them."""
    given: Literal["nothing", "forces"] = "nothing"
    """Tell the network the forces on the pushed atoms before the push, which name the structure
    to find if it is no equilibrium (arXiv:2403.09549); the model needs `force_input: true`."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of squares over a batch to its training loss; the sum as in the code of arXiv:2303.02216."""
    center: bool = False
    """Subtract each frame's mean push, as arXiv:2206.00133 does."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        scale = f"{self.noise_scale:g}"
        if self.lowest_scale is not None:
            scale = f"{self.lowest_scale:g}–{scale}" + " conditioned" * self.conditioned
        if self.corrupted < 1:
            scale += f" of {self.corrupted:g} of the atoms"
        told = " given forces" * (self.given == "forces")
        return f"denoising {scale}{told}" + " placebo" * self.placebo

    @property
    def labels(self) -> tuple[str, ...]:
        """The forces, if they are given."""
        return ("forces",) * self.gives_forces

    @property
    def gives_forces(self) -> bool:
        """Of the pushed atoms."""
        return self.given == "forces"

    @model_validator(mode="after")
    def _scales_are_in_order(self) -> Self:
        if self.lowest_scale is not None and self.lowest_scale >= self.noise_scale:
            raise ValueError(
                "`lowest_scale < noise_scale` must hold, but got "
                f"{self.lowest_scale} and {self.noise_scale}"
            )
        if self.center and self.corrupted < 1:
            raise ValueError("`center` pushes every atom, so `corrupted` must be 1")
        if self.conditioned and self.lowest_scale is None:
            raise ValueError("`conditioned` needs a `lowest_scale`, but got none")
        return self


class NoiseLevel(PretextConfig):
    """Add noise of a scale that each frame draws, and predict that scale (arXiv:2207.08824)."""

    implementation = "study.tasks.noise_level:NoiseLevel"

    name: Literal["noise_level"]
    noise_scale: float = Field(default=0.5, gt=0, le=10)
    """Largest standard deviation of the noise per component, Å."""
    lowest_scale: float = Field(default=0.02, gt=0, le=10)
    """Smallest one, Å; scales between the two are drawn uniformly in their logarithm."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        scales = f"{self.lowest_scale:g}–{self.noise_scale:g}"
        return f"noise level {scales}" + " placebo" * self.placebo

    @model_validator(mode="after")
    def _scales_are_in_order(self) -> Self:
        if self.lowest_scale >= self.noise_scale:
            raise ValueError(
                "`lowest_scale < noise_scale` must hold, but got "
                f"{self.lowest_scale} and {self.noise_scale}"
            )
        return self


class OwnTask(Own, TaskConfig):
    """A task of one's own: a class derived from `study.plugins.TaskConfig`, with its settings."""

    model_config = ConfigDict(extra="allow")


if TYPE_CHECKING:
    AnyPretext = TaskConfig
else:
    AnyPretext = any_of(PretextConfig, OwnTask)
"""Settings of any single task without labels, shipped or the user's own."""


class MixedPart(Config):
    """One of several tasks."""

    task: AnyPretext
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Of its loss."""


class Mixed(TaskConfig):
    """Several pretext tasks in one stage."""

    implementation = "study.tasks.multi_task:Mixed"

    name: Literal["mixed"]
    tasks: Annotated[list[MixedPart], Field(min_length=2, max_length=8)]
    """The tasks with their weights."""
    schedule: Literal["together", "alternating"] = "together"
    """Every step sums all losses, or takes the next task in turn."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        joint = " + " if self.schedule == "together" else " / "
        return joint.join(part.task.label for part in self.tasks)

    def pretexts(self, place: str) -> list[tuple[str, TaskConfig]]:
        """All of its tasks."""
        return [(place, part.task) for part in self.tasks]


ENERGY_FORCES_ERRORS = (
    "force_rmse",
    "force_mae",
    "energy_rmse",
    "energy_mae",
    "frame_energy_rmse",
)

ENERGY_ERRORS = ("energy_rmse", "energy_mae", "frame_energy_rmse", "frame_energy_mae")

SCALAR_ERRORS = (
    *ENERGY_ERRORS,
    *(f"{target}_{kind}" for target in TARGETS for kind in ("rmse", "mae")),
)
"""Names of the errors that tasks with labels measure, without `val_` and `test_`."""


class LabelledConfig(TaskConfig):
    """What the tasks that learn from labels have in common."""

    supervised = True

    mask_embedding: Literal["zeros", "none"] = "zeros"
    """Atoms get the embedding of unmasked atoms, as in pretraining, or none."""
    auxiliary: MixedPart | None = None
    """A pretext task that goes on while finetuning, on copies of the same frames; denoising makes
    it Noisy Nodes (arXiv:2106.07971)."""

    @property
    def label(self) -> str:
        """The task in a few words, with the one beside it."""
        return self.learned + (f" + {self.auxiliary.task.label}" if self.auxiliary else "")

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
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Penalty of a deviation."""
    criterion: Literal["force_rmse", "energy_rmse"] = "force_rmse"
    """Validation metric that picks the best epoch."""
    energy_reference: Literal["per_atom", "per_element", "per_frame", "none"] = "per_atom"
    """Energies are predicted about the training mean per atom, or about energies of the elements
    fitted to the training frames, which sets of different molecules need. The released code takes
    the mean per atom off once per frame and measures frames by the deviation per atom; its GNS
    learns the totals."""
    output_scale: Literal["force_rms", "energy_std", "one"] = "force_rms"
    """Unit of what the network puts out, of the training labels; the released code takes the
    standard deviation of the energies in finetuning, and one in pretraining."""
    divergence: float | None = Field(default=2.0, gt=0)
    """A trial has diverged if after a tenth of its epochs the validation force error exceeds this
    many times the root mean square of the training forces; never when null."""

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of what it measures."""
        return ENERGY_FORCES_ERRORS

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames must be labelled with."""
        return ("energy", "forces")

    @property
    def learned(self) -> str:
        """Both."""
        return "energy and forces"


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
        return ENERGY_ERRORS if self.target == "energy" else own

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
