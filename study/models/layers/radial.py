"""Radial basis functions and cutoff envelopes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

DISTANCE_EPSILON = 1e-12
"""Added to r², Å², so that the distance of coinciding atoms has a gradient."""


class CutoffSettings(Protocol):
    """The settings of a model that decide the weights of edges."""

    @property
    def cutoff(self) -> float:
        """Cutoff radius, Å."""
        ...

    @property
    def envelope(self) -> str:
        """The `kind` of `cutoff_envelope`."""
        ...

    @property
    def max_neighbors(self) -> int | None:
        """Most neighbours of an atom; None for no limit."""
        ...


def distances(vectors: Tensor) -> Tensor:
    """Compute the lengths (E, 1) of vectors (E, 3), with a gradient everywhere."""
    return (vectors.square().sum(dim=-1, keepdim=True) + DISTANCE_EPSILON).sqrt()


def lengths(vectors: Tensor, axis: int) -> Tensor:
    """Compute the norm along an axis, with a gradient everywhere."""
    return (vectors.square().sum(dim=axis) + DISTANCE_EPSILON).sqrt()


def bessel_basis(distance: Tensor, cutoff: float, size: int) -> Tensor:
    """Radial Bessel functions √(2/c)·sin(nπr/c)/r (arXiv:2003.03123, eq. 7).

    Args:
        distance: (E, 1) Å.
        cutoff: c, Å.
        size: largest n.

    Returns:
        (E, size).
    """
    order = torch.arange(1, size + 1, dtype=distance.dtype, device=distance.device)
    return math.sqrt(2 / cutoff) * torch.sin(order * (math.pi / cutoff) * distance) / distance


def exponential_basis(distance: Tensor, cutoff: float, size: int) -> Tensor:
    """Gaussians of exp(−r), with the initial centres and width of TorchMD-Net, not trained.

    Args:
        distance: (E, 1) Å.
        cutoff: Å; the centres lie evenly between exp(−cutoff) and 1.
        size: number of functions, K.

    Returns:
        (E, K).
    """
    last = math.exp(-cutoff)
    centres = torch.linspace(last, 1, size, dtype=distance.dtype, device=distance.device)
    return torch.exp(-((size / (2 * (1 - last)) * (torch.exp(-distance) - centres)) ** 2))


def cutoff_envelope(distance: Tensor, cutoff: float, kind: str) -> Tensor:
    """Weight of an edge by its length, which ends at the cutoff.

    Args:
        distance: (E, 1) Å.
        cutoff: Å.
        kind: `smooth` falls from 1 to 0 with two vanishing derivatives (arXiv:2003.03123, eq. 8,
            p = 6); `raised_cosine` is half a wave, with curvature at the cutoff; `cosine` a quarter
            of a wave, with a slope there; `hard` is 1 all the way.

    Returns:
        (E, 1).
    """
    x = (distance / cutoff).clamp(max=1)
    match kind:
        case "smooth":
            return 1 - x**6 * (28 - 48 * x + 21 * x**2)
        case "raised_cosine":
            return (1 + torch.cos(math.pi * x)) / 2
        case "cosine":
            return torch.cos(math.pi / 2 * x)
        case _:
            return torch.ones_like(distance)


class Envelope(nn.Module):
    """`cutoff_envelope` in place of another package's cosine cutoff, whose curvature jumps."""

    def __init__(self, cutoff: float, kind: str) -> None:
        super().__init__()
        self.cutoff, self.kind = cutoff, kind

    def forward(self, distance: Tensor) -> Tensor:
        """Compute the weights (E,) of edges from their lengths (E,) Å."""
        return cutoff_envelope(distance, self.cutoff, self.kind)


def nearest_neighbor_mask(target: Tensor, distance: Tensor, limit: int) -> Tensor:
    """Mask of the `limit` shortest edges of each target: 1 for these, 0 for the others.

    Args:
        target: (E,) atom each edge ends at.
        distance: (E, 1) Å.
        limit: largest number of edges per target.

    Returns:
        (E, 1).
    """
    by_distance = torch.argsort(distance.detach().squeeze(-1), stable=True)
    order = by_distance[torch.argsort(target[by_distance], stable=True)]
    grouped = target[order]
    rank = torch.arange(order.shape[0], device=order.device) - torch.searchsorted(grouped, grouped)
    mask = (rank < limit).to(distance.dtype)
    return torch.zeros_like(distance).index_copy(0, order, mask[:, None])


def edge_weights(distance: Tensor, target: Tensor, settings: CutoffSettings) -> Tensor:
    """Weight of each edge: its envelope, or 0 beyond the nearest `max_neighbors` of its target.

    Args:
        distance: (E, 1) Å.
        target: (E,) atom each edge ends at.
        settings: cutoff, envelope and largest number of neighbours.

    Returns:
        (E, 1).
    """
    weight = cutoff_envelope(distance, settings.cutoff, settings.envelope)
    if settings.max_neighbors is None:
        return weight
    return weight * nearest_neighbor_mask(target, distance, settings.max_neighbors)
