"""Models of other packages as the user names them; their keys are those of the packages."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from study.core.quantities.elements import atomic_number
from study.models.base_config import ModelConfig, ModelCost, NearestNeighborsConfig

Interaction = Literal[
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
]


class MACE(ModelConfig):
    """MACE (arXiv:2206.07697) of mace-torch, its `ScaleShiftMACE`; forces are a gradient.

    Defaults are those of `mace_run_train`, where `hidden` is `num_channels`, `layers` is
    `num_interactions` and `cutoff` is `r_max`.
    """

    implementation = "study.models.packages.mace:MACE"
    package = "mace-torch"
    extra = "mace"
    depends = ("e3nn",)
    cost = ModelCost(step_time=40, channel_bytes=3000, layer_squares=41)

    name: Literal["mace"]
    elements: list[str] = Field(default=["H", "C", "N", "O"], min_length=1)
    """Symbols of the elements that the data hold; each has weights of its own."""
    hidden: int = Field(default=128, ge=1, le=1024)
    """Channels of each degree, `num_channels`."""
    max_L: int = Field(default=1, ge=0, le=3)  # noqa: N815 - the package's word
    """Highest degree of the messages: `hidden_irreps` is `hidden`x0e + `hidden`x1o + … up to it."""
    layers: int = Field(default=2, ge=1, le=8)
    """Interactions, `num_interactions`."""
    cutoff: float = Field(default=5.0, gt=0, le=50)
    """Neighbours lie within this distance, Å, `r_max`."""
    correlation: int = Field(default=3, ge=1, le=4)
    """Neighbours that one message couples."""
    max_ell: int = Field(default=3, ge=0, le=6)
    """Highest degree of the spherical harmonics."""
    num_radial_basis: int = Field(default=8, ge=1, le=128)
    """Radial functions of an edge."""
    num_cutoff_basis: int = Field(default=5, ge=2, le=20)
    """Power of the envelope with which edges fade out."""
    radial_type: Literal["bessel", "gaussian", "chebyshev"] = "bessel"
    """Kind of the radial functions."""
    radial_MLP: list[int] = Field(default=[64, 64, 64], min_length=1)  # noqa: N815
    """Widths of the network that makes filters of them."""
    distance_transform: Literal["None", "Agnesi", "Soft"] = "None"
    """What lengths pass through before the radial functions."""
    pair_repulsion: bool = False
    """Add the screened repulsion of nuclei by Ziegler, Biersack and Littmark."""
    interaction: Interaction = "RealAgnosticResidualInteractionBlock"
    """Block of each layer but the first."""
    interaction_first: Interaction = "RealAgnosticInteractionBlock"
    """Block of the first layer."""
    MLP_irreps: str = Field(default="16x0e", pattern=r"^[1-9]\d*x0e$")
    """Width of the last readout."""
    gate: Literal["silu", "tanh", "abs", "None"] = "silu"
    """Nonlinearity of the last readout."""
    use_reduced_cg: bool = False
    """Use a smaller basis of couplings."""
    use_so3: bool = False
    """Leave out parity."""
    use_agnostic_product: bool = False
    """Give all elements the same products."""
    use_last_readout_only: bool = False
    """Read energies from the last layer alone."""
    avg_num_neighbors: float | None = Field(default=None, gt=0)
    """By which messages are divided; left out, as many as 0.1 atoms per Å³ would be."""

    @field_validator("elements")
    @classmethod
    def _sorted_elements(cls, symbols: list[str]) -> list[str]:
        return sorted(dict.fromkeys(symbols), key=atomic_number)

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers of `elements`."""
        return tuple(map(atomic_number, self.elements))

    @model_validator(mode="after")
    def _something_is_read(self) -> Self:
        if self.use_last_readout_only and self.layers < 2:
            raise ValueError("`layers` must be at least 2 with `use_last_readout_only`")
        return self


class TensorNet(NearestNeighborsConfig):
    """TensorNet (arXiv:2306.06482) of TorchMD-NET; forces are a gradient."""

    implementation = "study.models.packages.tensornet:TensorNet"
    cost = ModelCost(step_time=6, channel_bytes=790, layer_squares=14.6)
    package = "torchmd-net"
    extra = "torchmd-net"

    name: Literal["tensornet"]
    layers: int = Field(default=2, ge=1, le=64)
    """Interaction layers, `num_layers`."""
    cutoff: float = Field(default=4.5, gt=0, le=50)
    """Neighbours lie within this distance, Å, `cutoff_upper`."""
    num_rbf: int = Field(default=32, ge=2, le=256)
    """Radial functions of an edge."""
    equivariance_invariance_group: Literal["O(3)", "SO(3)"] = "O(3)"
    """Whether mirror images have the same energy by construction, or need not have."""
    envelope: Literal["smooth", "raised_cosine"] = "smooth"
    """Edges fade out with two vanishing derivatives, or as in the package, with one."""


class DimeNetPlusPlus(NearestNeighborsConfig):
    """DimeNet++ (arXiv:2011.14115) of torch-geometric; forces are a gradient."""

    implementation = "study.models.packages.dimenet:DimeNetPlusPlus"
    cost = ModelCost(step_time=10, channel_bytes=1450, layer_squares=26)

    name: Literal["dimenet_plus_plus"]
    layers: int = Field(default=4, ge=1, le=64)
    """Interaction blocks, `num_blocks`."""
    num_radial: int = Field(default=6, ge=1, le=64)
    """Radial functions of an edge, and of each degree."""
    num_spherical: int = Field(default=7, ge=2, le=16)
    """Degrees of the functions of angles, l = 0 … num_spherical - 1."""
    int_emb_size: int = Field(default=64, ge=1, le=4096)
    """Width of the messages between edges."""
    basis_emb_size: int = Field(default=8, ge=1, le=4096)
    """Width to which the functions of lengths and angles are narrowed."""
    out_emb_channels: int = Field(default=256, ge=1, le=4096)
    """Width of what output blocks make of an atom."""
    num_output_layers: int = Field(default=3, ge=0, le=16)
    """Layers of an output block."""
    envelope_exponent: int = Field(default=5, ge=2, le=20)
    """Power of the envelope with which edges fade out, less one."""


class NequIP(ModelConfig):
    """NequIP (arXiv:2101.03164) of the package nequip, its `NequIPGNNModel`; forces are a gradient.

    Defaults are those of the package, where `hidden` is `num_features`, `layers` is `num_layers`
    and `cutoff` is `r_max`.
    """

    implementation = "study.models.packages.nequip:NequIP"
    cost = ModelCost(step_time=6.4, channel_bytes=480, layer_squares=130)
    package = "nequip"
    extra = "nequip"
    depends = ("e3nn",)

    name: Literal["nequip"]
    hidden: int = Field(default=32, ge=1, le=1024)
    """Channels of each degree, `num_features`."""
    layers: int = Field(default=4, ge=1, le=16)
    """Interaction layers, `num_layers`."""
    cutoff: float = Field(default=5.0, gt=0, le=50)
    """Neighbours lie within this distance, Å, `r_max`."""
    l_max: int = Field(default=1, ge=0, le=6)
    """Highest degree of features and spherical harmonics."""
    parity: bool = True
    """Have features of both parities of each degree."""
    num_bessels: int = Field(default=8, ge=1, le=128)
    """Bessel functions of an edge."""
    polynomial_cutoff_p: int = Field(default=6, ge=3, le=20)
    """Power of the envelope with which edges fade out."""
    radial_mlp_depth: int = Field(default=1, ge=0, le=8)
    """Hidden layers of the network that makes filters of the Bessel functions."""
    radial_mlp_width: int = Field(default=128, ge=1, le=4096)
    """Width of these."""
    avg_num_neighbors: float | None = Field(default=None, gt=0)
    """By which messages are divided; left out, as many as 0.1 atoms per Å³ would be."""
