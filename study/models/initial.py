"""Initial weights of models that are sensitive to them."""

from __future__ import annotations

from torch import nn


def xavier(module: nn.Module) -> None:
    """Xavier weights and no bias, for every linear layer of a module.

    torch's own default is a third of the variance, and biases that outweigh what comes in after
    three layers; a layer norm behind them then leaves little of an edge's direction.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
