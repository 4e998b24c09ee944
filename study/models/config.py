"""Models as the user names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Discriminator, Field, model_validator

from study.core.config import OWN, SHIPPED, Config, Own, Plugin, whose

if TYPE_CHECKING:
    from study.models.potential import Potential


class Network(Config):
    """What every model has: estimates and data preparation read it."""

    hidden: int = Field(default=128, ge=1, le=4096)
    """Width of node and edge features."""
    layers: int = Field(default=5, ge=1, le=64)
    """Message-passing steps or interaction blocks."""
    cutoff: float = Field(default=3.4, gt=0, le=50)
    """Neighbours lie within this distance, Å."""
    max_neighbors: int | None = Field(default=None, ge=1)
    """Neighbours that an atom sees, the nearest ones; all within the cutoff when left out. Where
    two neighbours change places, energies jump."""


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
    force_input: bool = False
    """Take forces as input where a task gives them: `denoising` with `given: forces`."""
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
    """Initial weights: Xavier without biases, or torch's default, with which training is slower;
    tailored activations need weights of their own."""
    activation: Literal["relu", "tailored"] = "relu"
    """ReLU with layer norms as in the paper, or leaky ReLU tailored to the depth, without norms:
    GNS-TAT of arXiv:2206.00133."""

    @model_validator(mode="after")
    def _tailored_edges_keep_their_size(self) -> Self:
        if self.activation == "tailored" and self.edge_update == "legacy":
            raise ValueError(
                "`edge_update` must be residual with tailored activations, but got legacy"
            )
        return self


class ForceNet(Network):
    """Filter-convolution network (arXiv:2103.01436) with forces of its own, not equivariant."""

    name: Literal["forcenet"]
    force_input: bool = False
    """Take forces as input where a task gives them: `denoising` with `given: forces`."""
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


class SchNet(Network):
    """Continuous-filter network (arXiv:1706.08566) of torch-geometric; forces are a gradient."""

    name: Literal["schnet"]
    basis: int = Field(default=50, ge=2, le=256)
    """Number of Gaussians of each length of an edge."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or as in torch-geometric, with one."""


class AttentionNetwork(Network):
    """What networks with attention have: their width is shared by heads."""

    heads: int = Field(default=8, ge=1, le=64)
    """Attention heads; a divisor of `hidden`."""
    basis: int = Field(default=32, ge=2, le=256)
    """Number of Gaussians of exp(−length) of an edge."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or as in the paper, with one."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        _require_divisible(self.hidden, self.heads)
        return self


class ViSNet(AttentionNetwork):
    """Vector-scalar network (arXiv:2210.16518) of torch-geometric; forces are a gradient."""

    name: Literal["visnet"]
    degrees: int = Field(default=1, ge=1, le=2)
    """Highest degree of the spherical harmonics, lmax."""


class EquivariantTransformer(AttentionNetwork):
    """Equivariant transformer of TorchMD-NET (arXiv:2202.02541); forces are a gradient."""

    name: Literal["equivariant_transformer"]
    force_input: bool = False
    """Take forces as input where a task gives them: `denoising` with `given: forces`."""
    vector_output: Literal["gradient", "head"] = "gradient"
    """Per-atom vectors of pretext tasks: −∂E/∂x, or an equivariant head as in arXiv:2206.00133."""


class SE3Transformer(Network):
    """SE(3)-Transformer (arXiv:2006.10503); forces are a gradient."""

    name: Literal["se3_transformer"]
    force_input: bool = False
    """Take forces as input where a task gives them: `denoising` with `given: forces`."""
    hidden: int = Field(default=16, ge=1, le=512)
    """Channels of each degree; the cost grows with their square."""
    layers: int = Field(default=3, ge=1, le=64)
    """Attention layers."""
    degrees: int = Field(default=2, ge=1, le=5)
    """Degrees of the features, l = 0 … degrees - 1; arXiv:2303.02216 takes four."""
    heads: int = Field(default=2, ge=1, le=64)
    """Attention heads; a divisor of `hidden`."""
    basis: int = Field(default=8, ge=1, le=256)
    """Number of Bessel functions."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or with one."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        _require_divisible(self.hidden, self.heads)
        return self


def _require_divisible(hidden: int, heads: int) -> None:
    if hidden % heads:
        raise ValueError(f"`hidden` must be divisible by `heads`, but got {hidden} and {heads}")


class OwnModel(Network, Own):
    """A model of one's own: a class derived from `study.plugins.Model`, with its settings."""


Shipped = Annotated[
    EGNN | GNS | ForceNet | SchNet | ViSNet | EquivariantTransformer | SE3Transformer,
    Field(discriminator="name"),
]

ModelConfig = Annotated[
    Annotated[Shipped, SHIPPED] | Annotated[OwnModel, OWN], Discriminator(whose)
]


class Model(Network, Plugin):
    """Settings of a model; `cutoff`, `hidden`, `layers` and `max_neighbors` are there already."""

    name: str

    def build(self) -> Potential:
        """A model with initial weights drawn from torch's generator.

        Returns:
            A `ConservativePotential` or `DirectPotential` (`study.models.potential`).
        """
        raise NotImplementedError
