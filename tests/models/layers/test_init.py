"""Initial weights of whole models."""

from __future__ import annotations

import pytest
import torch

from study.models.build import build_model
from study.models.config import GNS, ForceNet, ModelConfig


@pytest.mark.parametrize("init", ["torch", "xavier"])
@pytest.mark.parametrize(
    "settings", [GNS(name="gns"), ForceNet(name="forcenet")], ids=lambda value: value.name
)
def test_initial_weights_are_as_wide_as_asked_for(init: str, settings: ModelConfig) -> None:
    model = build_model(settings.model_copy(update={"init": init}), seed=0)
    weights, biases = model.layers[0].target.weight, model.layers[0].target.bias
    width = {"torch": 1 / 128, "xavier": 3 / 128}[init] ** 0.5
    assert weights.detach().abs().max().item() == pytest.approx(width, rel=1e-3)
    assert (torch.count_nonzero(biases) == 0) == (init == "xavier")
