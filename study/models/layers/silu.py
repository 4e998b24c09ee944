"""SiLU with explicit first and second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


class SiLU(nn.Module):
    """x σ(x), differentiable twice, as needed to train on forces.

    Torch decomposes its own SiLU into elementary operations whenever the gradient is to be
    differentiated again; here each derivative is one fused expression.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Apply the activation elementwise."""
        activated: Tensor = _Value.apply(values)
        return activated


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return nn.functional.silu(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (values,) = ctx.saved_tensors
        return _Slope.apply(gradient, values)


class _Slope(torch.autograd.Function):
    """gradient · σ (1 + x (1 − σ))."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, values: Tensor) -> Any:
        ctx.save_for_backward(gradient, values)
        return aten.silu_backward(gradient, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        """Derivative by `gradient` as forward; by x: outer·gradient·σ (1 − σ) (2 + x (1 − 2σ))."""
        gradient, values = ctx.saved_tensors
        sigmoid = torch.sigmoid(values)
        curvature = torch.addcmul(2 + values, values, sigmoid, value=-2)
        curvature *= torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1)
        curvature *= gradient
        curvature *= outer
        return aten.silu_backward(outer, values), curvature
