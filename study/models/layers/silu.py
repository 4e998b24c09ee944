"""SiLU for networks whose gradient is differentiated again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


class SiLU(nn.Module):
    """x σ(x); two derivatives, as forces and their loss need.

    Torch's own is taken apart into elementary operations whenever a graph of the gradient is
    built; here each derivative is written out.
    """

    def forward(self, values: Tensor) -> Tensor:
        """The same shape as `values`."""
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
        """By `gradient` the slope again; by x: outer · gradient · σ (1 − σ) (2 + x (1 − 2σ))."""
        gradient, values = ctx.saved_tensors
        sigmoid = torch.sigmoid(values)
        curvature = torch.addcmul(2 + values, values, sigmoid, value=-2)
        curvature *= torch.addcmul(sigmoid, sigmoid, sigmoid, value=-1)
        curvature *= gradient
        curvature *= outer
        return aten.silu_backward(outer, values), curvature
