"""Weight initialization other than torch's default."""

from __future__ import annotations

from torch import nn


def initialize(module: nn.Module, kind: str) -> None:
    """Reinitialize the weights of all linear layers and zero their biases.

    Xavier weights have three times the variance of torch's default. Where layer norms follow
    three-layer networks, as in GNS, torch's random biases would outweigh the inputs; where sums
    over neighbours are not normalized, as in ForceNet, the smaller default weights train better.

    Args:
        module: a whole model; it is changed in place.
        kind: `xavier`; `fan_in` for normal weights that keep the variance of the inputs; or
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
