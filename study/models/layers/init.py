"""Initial weights other than torch's own."""

from __future__ import annotations

from torch import nn


def initialize(module: nn.Module, kind: str) -> None:
    """Draw the weights of all linear layers anew, or leave them as torch has drawn them.

    Xavier weights have three times the variance of torch's, and no bias goes with them. Where
    layer norms follow three-layer networks, as in GNS, torch's biases otherwise outweigh what
    enters; where sums over neighbours are not normalized, as in ForceNet, smaller weights are the
    better start.

    Args:
        module: a whole model.
        kind: `xavier`; `fan_in` for normal weights that keep the variance of what enters; or
            `torch` to change nothing.
    """
    if kind == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            if kind == "fan_in":
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
