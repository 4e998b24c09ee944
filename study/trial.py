"""A trial as the user writes it: one data set, one model, pretraining or none, finetuning.

Nothing here imports torch, so that a bad space is answered at once. The classes that do the work
(`study.datasets`, `study.models`, `study.tasks`) take these settings and read their attributes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from study.config import Config
from study.sizes import Sizes


class TIP3PWater(Config):
    """TIP3P water, simulated here with OpenMM as in arXiv:2402.15921."""

    name: Literal["tip3p_water"]
    molecules: int = Field(default=258, ge=8, le=100_000)
    """Water molecules in the box; 258 fill the 20 Å box of the paper, others its density."""
    trajectories: int = Field(default=10, ge=1, le=1000)
    """Independent simulations, each with its own seed."""
    frames: int = Field(default=1000, ge=1, le=1_000_000)
    """Frames kept of each simulation, 0.1 ps apart."""
    temperature: float = Field(default=300.0, gt=0, le=1000)
    """Thermostat, K."""
    flexible: bool = False
    """Bonds and angles swing, in steps of 0.5 fs; the paper's molecules are rigid, 2 fs."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return (
            f"{'flexible ' * self.flexible}TIP3P water, "
            f"{self.trajectories} × {self.frames} frames of {self.molecules} molecules"
            + (f" at {self.temperature:g} K" if self.temperature != 300 else "")
        )

    @property
    def sizes(self) -> Sizes:
        """How much it holds."""
        return Sizes(
            groups=((self.frames, self.trajectories),),
            copies=((1, self.trajectories * self.frames),),
            atoms=3.0 * self.molecules,
            waters=self.molecules,
            density=3 * 258 / 20.0**3,
        )


class RPBEWater(Config):
    """RPBE-D3 water and ice of Morawietz et al. 2016, the paper's other data set."""

    name: Literal["rpbe_water"]
    path: str | None = Field(default=None, min_length=1)
    """Its n2p2 file, relative to the current folder; the one that `python -m study.data fetch rpbe`
    brought when left out."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return "RPBE-D3 water" + (f" from {self.path}" if self.path else "")

    @property
    def sizes(self) -> None:
        """Not known before the file is read."""


class N2P2File(Config):
    """Any `input.data` of RuNNer or n2p2, plain or gzipped."""

    name: Literal["n2p2_file"]
    path: str = Field(min_length=1)
    """The file, relative to the current folder."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return self.path

    @property
    def sizes(self) -> None:
        """Not known before the file is read."""


class ASEFile(Config):
    """Any file that ASE reads with energies and forces: extxyz, database, trajectory."""

    name: Literal["ase_file"]
    path: str = Field(min_length=1)
    """The file, relative to the current folder; `.gz` is unpacked."""

    @property
    def label(self) -> str:
        """The data set in a few words."""
        return self.path

    @property
    def sizes(self) -> None:
        """Not known before the file is read."""


Dataset = Annotated[TIP3PWater | RPBEWater | N2P2File | ASEFile, Field(discriminator="name")]


class Split(Config):
    """Which frames train, validate and test."""

    by: Literal["trajectory", "frame"] = "trajectory"
    """Keep whole trajectories together (no leak between correlated frames), or draw frames. Of a
    file a trajectory is what it says belongs together: n2p2's `src=` in the comment, extxyz's
    `group` or `config_type`; equal frames always stay together."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of all groups or frames held out for the final test."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the rest that picks the best epoch."""

    def counts(self, units: int) -> tuple[int, int, int]:
        """Trajectories or frames for training, validation and test; one at least of the latter."""
        test = max(1, round(self.test * units))
        validation = max(1, round(self.validation * (units - test)))
        return units - test - validation, validation, test


class Network(Config):
    """What every model has: estimates and data preparation read it."""

    hidden: int = Field(default=128, ge=1, le=4096)
    """Width of node and edge features."""
    layers: int = Field(default=5, ge=1, le=64)
    """Message-passing steps or interaction blocks."""
    cutoff: float = Field(default=3.4, gt=0, le=50)
    """Neighbours lie within this distance, Å."""


class EGNN(Network):
    """E(n)-equivariant network (arXiv:2102.09844) whose forces are the energy gradient."""

    name: Literal["egnn"]
    radial: Literal["bessel", "squared"] = "bessel"
    """What an edge knows of its length: a Bessel basis, or r² alone as in the paper."""
    basis: int = Field(default=16, ge=1, le=256)
    """Number of Bessel functions."""
    envelope: Literal["smooth", "hard"] = "smooth"
    """Edges fade out at the cutoff, or end abruptly there as in the paper."""
    vector_output: Literal["gradient", "displacement"] = "gradient"
    """Per-atom vectors of pretext tasks: −∂E/∂x as in the paper, or moved coordinates."""


class GNS(Network):
    """Encode-process-decode network (arXiv:2002.09405) with forces of its own, not equivariant."""

    name: Literal["gns"]
    layers: int = Field(default=10, ge=1, le=64)
    """Message-passing steps."""
    radial: Literal["distance", "bessel"] = "distance"
    """What an edge knows: its vector and length as in the paper, or its direction and a Bessel
    basis of the length, with which training is faster."""
    basis: int = Field(default=16, ge=1, le=256)
    """Number of Bessel functions."""
    envelope: Literal["smooth", "hard"] = "smooth"
    """Messages fade out at the cutoff, or end abruptly there as in the paper."""
    edge_update: Literal["residual", "legacy"] = "residual"
    """Edge states gain their message at every step, or just double as in the released code."""
    init: Literal["xavier", "torch"] = "xavier"
    """Initial weights: Xavier without biases, or torch's default, with which training is slower."""


class ForceNet(Network):
    """Filter-convolution network (arXiv:2103.01436) with forces of its own, not equivariant."""

    name: Literal["forcenet"]
    max_n: int = Field(default=3, ge=1, le=8)
    """Degrees of the spherical harmonics, counted as in the authors' code: l = 0 … max_n - 1."""
    frequencies: int = Field(default=50, ge=1, le=128)
    """Sines of each length of an edge."""
    max_neighbors: int | None = Field(default=50, ge=1)
    """Neighbours that an atom sees, the nearest ones; all within the cutoff when null."""
    envelope: Literal["smooth", "cosine", "hard"] = "smooth"
    """Edges fade out at the cutoff, fade as cos(πr/2c) as in the paper, or end abruptly there."""
    norm: Literal["batch", "layer", "none"] = "batch"
    """Normalization of node features in blocks and force head; `batch` as in the paper."""
    species_blind: bool = False
    """Take every atom for oxygen, as a bug of the released code of arXiv:2402.15921 does."""
    energy_offset: Literal["atom", "channels"] = "atom"
    """The reference energy is added to what the readout gives for an atom, or, as in the released
    code, to each of the channels that the readout takes."""
    init: Literal["torch", "xavier"] = "torch"
    """Initial weights: torch's default, or Xavier without biases as the authors draw them."""


Model = Annotated[EGNN | GNS | ForceNet, Field(discriminator="name")]


class Masking(Config):
    """Predict the directions to a hidden hydrogen of some molecules (arXiv:2402.15921)."""

    name: Literal["masking"]
    masking_ratio: float = Field(gt=0, le=1)
    """Fraction of the molecules that lose one hydrogen."""
    atom: Literal["hydrogen", "oxygen"] = "hydrogen"
    """What is hidden; oxygens are the paper's negative result."""
    placebo: bool = False
    """Random directions instead of the true ones: same compute, nothing to learn."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        what = f"masking {self.masking_ratio:g}" + " oxygen" * (self.atom == "oxygen")
        return what + " placebo" * self.placebo


class Denoising(Config):
    """Push every atom by Gaussian noise and predict the way back (arXiv:2206.00133)."""

    name: Literal["denoising"]
    noise_scale: float = Field(default=0.5, gt=0, le=10)
    """Standard deviation of the noise per component, Å."""
    center: bool = False
    """Subtract each frame's mean push, as arXiv:2206.00133 does."""
    placebo: bool = False
    """Random targets instead of the true ones: same compute, nothing to learn."""

    @property
    def label(self) -> str:
        """The task in a few words."""
        return f"denoising {self.noise_scale:g}" + " placebo" * self.placebo


class MixedPart(Config):
    """One of several tasks."""

    task: Annotated[Masking | Denoising, Field(discriminator="name")]
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Of its loss."""


class Mixed(Config):
    """Several pretext tasks in one stage."""

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


class EnergyForces(Config):
    """Predict energy and forces; errors are measured in standard deviations of the labels."""

    name: Literal["energy_forces"]
    energy_weight: float = Field(default=0.001, ge=0)
    """Weight of the energy error, in units of the labels' standard deviation."""
    force_weight: float = Field(default=1.0, ge=0)
    """Weight of the force error, in units of the labels' root mean square."""
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Penalty of a deviation."""
    criterion: Literal["force_rmse", "energy_rmse"] = "force_rmse"
    """Validation metric that picks the best epoch."""
    energy_reference: Literal["per_atom", "per_frame", "none"] = "per_atom"
    """Energies are predicted about the training mean per atom. The released code takes that mean
    off once per frame and measures frames by the deviation per atom; its GNS learns the totals."""
    output_scale: Literal["force_rms", "energy_std", "one"] = "force_rms"
    """Unit of what the network puts out, of the training labels; the released code takes the
    standard deviation of the energies in finetuning, and one in pretraining."""
    mask_embedding: Literal["zeros", "none"] = "zeros"
    """Atoms get the embedding of unmasked atoms, as in pretraining, or none."""
    divergence: float | None = Field(default=2.0, gt=0)
    """A trial has diverged if after a tenth of its epochs the validation force error exceeds this
    many times the root mean square of the training forces; never when null."""

    @property
    def label(self) -> str:
        """The task in two words."""
        return "energy and forces"


class Stage(Config):
    """One training of the model on one task; pretraining and finetuning are both a stage."""

    task: Annotated[Masking | Denoising | Mixed | EnergyForces, Field(discriminator="name")]
    epochs: int = Field(ge=1, le=1_000_000)
    """Passes over the training frames."""
    batch_size: int = Field(ge=1, le=100_000)
    """Frames per step."""
    frames: int | None = Field(default=None, ge=1)
    """Training frames this stage sees; all when left out."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """AdamW, or Adam with L2 as the released pretraining code."""
    lr: float = Field(default=1e-4, gt=0, le=10)
    """Learning rate at the start of the half cosine."""
    min_lr: float = Field(default=1e-7, ge=0, le=10)
    """Learning rate at its end."""
    weight_decay: float = Field(default=1e-4, ge=0, le=10)
    """Weight decay of the optimizer."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; unlimited when left out."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is then validated,
    kept and tested in their place; none when left out."""
    compile: bool | None = None
    """Run code compiled for the model; when left out, from 10,000 steps on."""
    select: Literal["best", "last"] = "best"
    """Weights to go on with: the epoch best in validation, or the last."""

    @model_validator(mode="after")
    def _rate_falls(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"`min_lr <= lr` must hold, but got {self.min_lr} and {self.lr}")
        return self


class Trial(Config):
    """Everything that decides the result of one two-stage training."""

    dataset: Dataset
    split: Split = Split()
    model: Model
    pretrain: Stage | None = None
    """First stage, without labels; none trains from scratch."""
    finetune: Stage
    """Second stage, on energies and forces."""
    transfer: Literal["body", "all"] = "body"
    """Weights that finetuning takes over: all, or all but the readout, which starts at zero."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Split, initial weights, order of batches, masks."""

    @model_validator(mode="after")
    def _stages_have_their_tasks(self) -> Self:
        if self.pretrain and self.pretrain.task.name == "energy_forces":
            raise ValueError("`pretrain.task` must work without labels, but got energy_forces")
        if self.finetune.task.name != "energy_forces":
            raise ValueError(
                f"`finetune.task` must be energy_forces, but got {self.finetune.task.name}"
            )
        return self

    @model_validator(mode="after")
    def _suits_its_dataset(self) -> Self:
        if self.dataset.sizes is not None:
            self.check_sizes(self.dataset.sizes)
        return self

    def check_sizes(self, sizes: Sizes) -> None:
        """Refuse a data set too small for this trial.

        Raises:
            ValueError: naming the key to change.
        """
        self._check_masks(sizes.waters)
        by, units = self.split.by, sizes.units(self.split.by)
        train = self.split.counts(units)[0]
        if train < 1:
            raise ValueError(
                f"`dataset` must leave a {by} to train on after validation and test, but has "
                f"{units}; take at least 3, smaller fractions, or `split: {{by: frame}}`"
            )
        available = sizes.fewest_frames(by, train)
        for name, stage in (("pretrain", self.pretrain), ("finetune", self.finetune)):
            if stage and stage.frames and stage.frames > available:
                raise ValueError(
                    f"`{name}.frames` must be <= {available}, the frames left to train on, but "
                    f"got {stage.frames}"
                )

    def _check_masks(self, waters: int) -> None:
        task = self.pretrain.task if self.pretrain else None
        parts = [part.task for part in task.tasks] if isinstance(task, Mixed) else [task]
        for masking in (part for part in parts if isinstance(part, Masking)):
            if waters == 0:
                raise ValueError("`pretrain.task` must have frames of nothing but water to mask")
            if int(masking.masking_ratio * waters) < 1:
                raise ValueError(
                    "`pretrain.task.masking_ratio` must hide an atom in every frame, but "
                    f"int({masking.masking_ratio} * {waters} molecules) is 0; raise it"
                )
