"""Models as the user names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from study.core.config import Own, any_of
from study.models.base_config import ModelConfig, ModelCost, NearestNeighborsConfig

__all__ = [
    "EGNN",
    "GNS",
    "AnyModel",
    "ForceNet",
    "ModelConfig",
    "ModelCost",
    "NearestNeighborsConfig",
    "packages",
]


class MaskableConfig(NearestNeighborsConfig):
    """What the networks of arXiv:2402.15921 have in common."""

    mask_init: Literal["zeros", "normal"] = "zeros"
    """Initial mask embeddings: zeros, which change nothing until they are learned, or standard
    normal ones as in the released code of arXiv:2402.15921."""


class EGNN(MaskableConfig):
    """E(n)-equivariant network (arXiv:2102.09844) whose forces are the energy gradient."""

    implementation = "study.models.egnn:EGNN"
    cost = ModelCost(step_time=1.0, channel_bytes=145, layer_squares=7.3)

    name: Literal["egnn"]
    radial: Literal["bessel", "squared"] = "bessel"
    """What an edge knows of its length: a Bessel basis, or r² alone as in the paper."""
    basis: int = Field(default=16, ge=1, le=256)
    """Number of Bessel functions."""
    envelope: Literal["smooth", "hard"] = "smooth"
    """Edges fade out at the cutoff, or end abruptly there as in the paper."""
    vector_output: Literal["gradient", "displacement"] = "gradient"
    """Per-atom vectors of pretext tasks: −∂E/∂x as in the paper, or moved coordinates."""
    final_norm: bool = False
    """Layer norm before the readout, as in the released code of arXiv:2402.15921, not its text."""
    coordinate_norm: Literal["smooth", "detached"] = "smooth"
    """Atoms move along d / (|d| + 1), or along d / |d| with |d| a constant to gradients: the
    `normalize` of the authors' code and of the released codes of arXiv:2402.15921 and 2303.02216,
    with which forces are not the gradient of the energy."""
    mean: Literal["smooth", "count"] = "smooth"
    """Moves are averaged over Σ envelope + 1 neighbours, or over the number of neighbours as in
    these codes, with which energies jump where an atom crosses the cutoff."""
    rewrap: bool = False
    """Wrap edge vectors to their nearest image in each layer, as the released code of
    arXiv:2402.15921 does: other edges, and energies that jump, in cells thinner than twice the
    cutoff, and in wider ones where moves carry a pair past half the cell."""


class GNS(MaskableConfig):
    """Encode-process-decode network (arXiv:2002.09405) with forces of its own, not equivariant."""

    implementation = "study.models.gns:GNS"
    cost = ModelCost(step_time=0.45, channel_bytes=58, layer_squares=10.8)
    gives_stress = False

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


class ForceNet(MaskableConfig):
    """Filter-convolution network (arXiv:2103.01436) with forces of its own, not equivariant."""

    implementation = "study.models.forcenet:ForceNet"
    cost = ModelCost(step_time=0.5, channel_bytes=50, layer_squares=7.5)
    gives_stress = False

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
    energy_bias: Literal["atom", "frame"] = "atom"
    """The bias of the readout counts once an atom, or once a frame as in the released code."""
    lengths: Literal["signed", "clamped"] = "signed"
    """Lengths of edges less the radii of their atoms may be negative, or are at least 0.001 of the
    cutoff as in the authors' code."""
    init: Literal["torch", "xavier"] = "torch"
    """Initial weights: torch's default, or Xavier without biases as the authors draw them."""


class SchNet(NearestNeighborsConfig):
    """Continuous-filter network (arXiv:1706.08566) of torch-geometric; forces are a gradient."""

    implementation = "study.models.schnet:SchNet"
    cost = ModelCost(step_time=0.65, channel_bytes=105, layer_squares=4.2)

    name: Literal["schnet"]
    basis: int = Field(default=50, ge=2, le=256)
    """Number of Gaussians of each length of an edge."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or as in torch-geometric, with one."""


class PaiNN(NearestNeighborsConfig):
    """Polarizable atom interaction network (arXiv:2102.03150); forces are a gradient."""

    implementation = "study.models.painn:PaiNN"
    cost = ModelCost(step_time=2.6, channel_bytes=340, layer_squares=11)

    name: Literal["painn"]
    basis: int = Field(default=20, ge=1, le=256)
    """Number of Bessel functions."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or as in the paper, with one."""


class AttentionNetwork(NearestNeighborsConfig):
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

    implementation = "study.models.visnet:ViSNet"
    cost = ModelCost(step_time=4.5, channel_bytes=720, layer_squares=16.5)

    name: Literal["visnet"]
    degrees: int = Field(default=1, ge=1, le=2)
    """Highest degree of the spherical harmonics, lmax."""


class EquivariantTransformer(AttentionNetwork):
    """Equivariant transformer of TorchMD-NET (arXiv:2202.02541); forces are a gradient."""

    implementation = "study.models.equivariant_transformer:EquivariantTransformer"
    cost = ModelCost(step_time=2.7, channel_bytes=510, layer_squares=12.5)

    name: Literal["equivariant_transformer"]
    force_input: bool = False
    """Take forces as input where a task gives them: `denoising` with `given: forces`."""
    vector_output: Literal["gradient", "head"] = "gradient"
    """Per-atom vectors of pretext tasks: −∂E/∂x, or an equivariant head as in arXiv:2206.00133."""


class SE3Transformer(NearestNeighborsConfig):
    """SE(3)-Transformer (arXiv:2006.10503); forces are a gradient."""

    implementation = "study.models.se3_transformer:SE3Transformer"
    cost = ModelCost(step_time=20.0, channel_bytes=2200, layer_squares=255)

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


# After those above, so that lists and the schema begin with these.
from study.models.packages import config as packages  # noqa: E402


class OwnModel(Own, ModelConfig):
    """A model of one's own: a class derived from `study.plugins.ModelConfig`, with its settings."""

    model_config = ConfigDict(extra="allow")


if TYPE_CHECKING:
    AnyModel = ModelConfig
else:
    AnyModel = any_of(ModelConfig, OwnModel)
"""Settings of any model, shipped or the user's own."""
