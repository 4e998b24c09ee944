"""Tasks without labels as the user names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from study.core.config import Config, Own, any_of
from study.tasks.base_config import PretextConfig, TaskConfig

if TYPE_CHECKING:
    from study.datasets.sizes import Sizes


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
    loss: Literal["cosine", "distance"] = "cosine"
    """What deviates: the cosine of the angle to the hidden atom as in the paper and its released
    code, whatever the length of the vector; or, as the paper argues against, the vector itself, by
    the square of its distance from the displacement to the hidden atom, Å²."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        what = f"masking {self.masking_ratio:g}" + " bonds" * (self.within == "bonds")
        what += f" {self.atom}" * (self.atom != "hydrogen")
        what += " by distance" * (self.loss == "distance")
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
    """Subtract each frame's mean push, so that the noise moves no frame as a whole; none of the
    released codes of arXiv:2206.00133, 2303.02216 and 2402.15921 does."""
    target: Literal["negative_noise", "noise"] = "negative_noise"
    """What is predicted: the way back, which for vectors that are −∂E/∂x puts the clean structure
    at a minimum of the energy; or the noise as all three released codes have it, which puts it at a
    maximum. For vectors of their own head the two are the same up to the sign of a weight."""
    target_unit: Literal["noise_scale", "angstrom"] = "noise_scale"
    """Unit of what is predicted: each frame's noise scale, as the released code of arXiv:2206.00133
    but for rounding (it divides by a running deviation); or Å as those of arXiv:2303.02216 and
    2402.15921, with losses smaller by the square of the scale."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        scale = f"{self.noise_scale:g}"
        if self.lowest_scale is not None:
            scale = f"{self.lowest_scale:g}–{scale}" + " conditioned" * self.conditioned
        if self.corrupted < 1:
            scale += f" of {self.corrupted:g} of the atoms"
        told = " given forces" * (self.given == "forces")
        told += " predicting the noise" * (self.target == "noise")
        told += " in Å" * (self.target_unit == "angstrom")
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
        if self.conditioned and self.target_unit == "angstrom":
            raise ValueError("`target_unit` must be noise_scale if `conditioned`, but got angstrom")
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
