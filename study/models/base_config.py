"""What all models have in common as the user names them, shipped ones and the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from study.core.config import Component

if TYPE_CHECKING:
    from study.models.potential import Potential


@dataclass(frozen=True)
class ModelCost:
    """What a model takes, measured on one core, for estimates of what a study will take.

    Args:
        step_time: of a training step, in units of an EGNN with the same width and layers: mean
            over 32 × 3 and 128 × 5, 4 and 16 frames of 81 atoms; between these it differs by up
            to a half.
        channel_bytes: memory of a step for each edge, layer and feature, at its peak.
        layer_squares: weights of a layer, in squares of its width.
    """

    step_time: float = 1.0
    channel_bytes: float = 300
    layer_squares: float = 10


class ModelConfig(Component):
    """Settings of a model; derive from it for a model of your own.

    `cutoff`, `hidden` and `layers` are there already: estimates, data preparation and transfer read
    them.
    """

    cost: ClassVar[ModelCost] = ModelCost()
    """What it takes, as far as it was measured."""
    gives_stress: ClassVar[bool] = True
    """Whether its class can give stresses, because forces are the gradient of its energy."""
    package: ClassVar[str] = ""
    """The package that it is made of, such as "mace-torch", if that is an extra of this one."""
    extra: ClassVar[str] = ""
    """Name of that extra."""
    depends: ClassVar[tuple[str, ...]] = ()
    """Other packages whose version can change its numbers."""

    hidden: int = Field(default=128, ge=1, le=4096)
    """Width of node and edge features."""
    layers: int = Field(default=5, ge=1, le=64)
    """Message-passing steps or interaction blocks."""
    cutoff: float = Field(default=3.4, gt=0, le=50)
    """Neighbours lie within this distance, Å."""

    def build(self) -> Potential:
        """A model with initial weights drawn from torch's generator.

        Returns:
            A `ConservativePotential` or `DirectPotential` (`study.models.potential`).
        """
        made: Potential = super().build()
        return made

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers that it has weights for; none if it takes all elements."""
        return ()

    @classmethod
    def package_version(cls) -> str:
        """Version of `package`; empty if it needs none, or it is not installed."""
        try:
            return version(cls.package) if cls.package else ""
        except PackageNotFoundError:
            return ""


class NearestNeighborsConfig(ModelConfig):
    """Settings of a model that sees a limited number of neighbours, as `edge_weights` makes it."""

    max_neighbors: int | None = Field(default=None, ge=1)
    """Neighbours that an atom sees, the nearest ones; all within the cutoff when left out. Where
    two neighbours change places, energies jump."""
