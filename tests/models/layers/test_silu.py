"""SiLU and its derivatives against finite differences and torch's own."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck

from study.core.seeding import seeded
from study.models.layers.silu import SiLU

VALUES = torch.cat(
    [
        torch.tensor([0.0, -0.0, 40.0, -40.0, 800.0, -800.0], dtype=torch.float64),
        4 * torch.randn(20, generator=seeded(0), dtype=torch.float64),
    ]
)


def test_derivatives_are_those_of_finite_differences() -> None:
    values = VALUES.clone().requires_grad_()
    assert gradcheck(SiLU(), values)
    assert gradgradcheck(SiLU(), values)


def test_values_and_derivatives_are_those_of_torch() -> None:
    """Of a penalty on the gradient, as forces have."""
    results = []
    for activation in (SiLU(), nn.SiLU()):
        values = VALUES.clone().requires_grad_()
        activated = activation(values)
        (slope,) = grad(activated.square().sum(), values, create_graph=True)
        (curvature,) = grad(slope.square().sum(), values)
        results.append([activated, slope, curvature])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
