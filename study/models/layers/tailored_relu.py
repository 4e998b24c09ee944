"""Tailored leaky ReLU (arXiv:2203.08120), with which deep networks train without normalization."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

CorrelationMap = Callable[[float], float]
"""Cosine similarity of two inputs → of the outputs, in the limit of infinite width."""

TARGET = 0.9
"""Value at 0 of the correlation map of the whole network: η of the paper, as in its code."""


class TailoredReLU(nn.Module):
    """√(2 / (1 + α²)) · leaky ReLU with negative slope α, which keeps the variance."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope, self.gain = slope, math.sqrt(2 / (1 + slope**2))

    def forward(self, values: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        return self.gain * leaky_relu(values, self.slope)


def correlation_map(slope: float) -> CorrelationMap:
    """Local C map of one layer with a leaky ReLU of this negative slope (ibid.)."""
    factor = (1 - slope) ** 2 / (math.pi * (1 + slope**2))

    def mapped(cosine: float) -> float:
        c = min(cosine, 1.0)
        return c + factor * (math.sqrt(1 - c * c) - c * math.acos(c))

    return mapped


def tailored_slope(network: Callable[[CorrelationMap], CorrelationMap]) -> float:
    """Find the negative slope with which a network maps a correlation of 0 to `TARGET`.

    Args:
        network: composes the correlation map of the network from that of one layer.

    Returns:
        The slope, by bisection; 0 (ReLU) for networks too shallow to reach `TARGET`.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = network(correlation_map(middle))(0.0)
        # A steeper negative side makes the network more linear, so it decorrelates less.
        low, high = (middle, high) if reached > TARGET else (low, middle)
    return high if high > 1e-12 else 0.0
