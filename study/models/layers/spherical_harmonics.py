"""Real spherical harmonics from recurrences."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def legendre(z: Tensor, degrees: int) -> dict[tuple[int, int], Tensor]:
    """Associated Legendre functions P_l^m(z) / (1 − z²)^(m/2), without the sign (−1)^m.

    Args:
        z: (E,) cosines.
        degrees: l runs from 0 to degrees − 1, m from 0 to l.

    Returns:
        (E,) values by (l, m), from the three-term recurrence (Abramowitz & Stegun 8.5.3).
    """
    values = {(0, 0): torch.ones_like(z)}
    for degree in range(1, degrees):
        values[degree, degree] = (2 * degree - 1) * values[degree - 1, degree - 1]
        for order in range(degree):
            below = (2 * degree - 1) * z * values[degree - 1, order]
            if order < degree - 1:
                below = below - (degree + order - 1) * values[degree - 2, order]
            values[degree, order] = below / (degree - order)
    return values


def spherical_harmonics(directions: Tensor, degrees: int) -> Tensor:
    """Real orthonormal spherical harmonics, sin(|m|φ) for m < 0 and cos(mφ) for m ≥ 0.

    Args:
        directions: (E, 3) unit vectors.
        degrees: l runs from 0 to degrees − 1.

    Returns:
        (E, degrees²) ordered by l, then by m from −l to l.
    """
    x, y, z = directions.unbind(-1)
    sine, cosine = [torch.zeros_like(x)], [torch.ones_like(x)]
    for _ in range(1, degrees):
        sine, cosine = (
            [*sine, x * sine[-1] + y * cosine[-1]],
            [*cosine, x * cosine[-1] - y * sine[-1]],
        )
    polar = legendre(z, degrees)
    columns = []
    for degree in range(degrees):
        for order in range(-degree, degree + 1):
            m = abs(order)
            ratio = math.factorial(degree - m) / math.factorial(degree + m)
            norm = math.sqrt((2 * degree + 1) / (4 * math.pi) * ratio * (2 if m else 1))
            columns.append(norm * polar[degree, m] * (sine if order < 0 else cosine)[m])
    return torch.stack(columns, dim=-1)
