"""Spherical harmonics against SciPy's."""

from __future__ import annotations

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from scipy.special import sph_harm_y
from torch import Tensor

from study.models.layers.spherical_harmonics import spherical_harmonics

DEGREES = 8


def directions(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    return torch.cat([axes, random / random.norm(dim=1, keepdim=True)])


def test_spherical_harmonics_are_the_real_forms_of_scipys() -> None:
    vectors = directions(50)
    x, y, z = vectors.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    expected = []
    for degree in range(DEGREES):
        for order in range(-degree, degree + 1):
            # Scipy's sign (-1)^m is not part of ours.
            value = (-1) ** order * sph_harm_y(degree, abs(order), polar, azimuth)
            part = value.imag if order < 0 else value.real
            expected.append(part * (np.sqrt(2) if order else 1))
    actual = spherical_harmonics(vectors, DEGREES)
    np.testing.assert_allclose(actual, np.stack(expected, axis=1), atol=1e-12)


def test_spherical_harmonics_are_orthonormal() -> None:
    points, weights = lebedev_rule(17)
    values = spherical_harmonics(torch.tensor(points.T), DEGREES).numpy()
    gram = values.T @ (weights[:, None] * values)
    np.testing.assert_allclose(gram, np.eye(DEGREES**2), atol=1e-10)
