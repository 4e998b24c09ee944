"""Settings of models: defaults and combinations that are refused."""

from __future__ import annotations

import pytest
import torch

from study.models.build import build_model
from study.models.config import (
    GNS,
    ForceNet,
    ViSNet,
)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [(GNS(name="gns"), (128, 10, 3.4)), (ForceNet(name="forcenet"), (128, 5, 3.4))],
)
def test_default_sizes_are_the_papers(
    settings: GNS | ForceNet, sizes: tuple[int, int, float]
) -> None:
    assert (settings.hidden, settings.layers, settings.cutoff) == sizes


def test_tailored_activations_come_without_norms_and_refuse_legacy_edges() -> None:
    settings = GNS(name="gns", hidden=8, layers=2, activation="tailored")
    modules = build_model(settings, seed=0).modules()
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in modules)
    with pytest.raises(ValueError, match="`edge_update` must be residual"):
        GNS(name="gns", activation="tailored", edge_update="legacy")


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ValueError, match="`hidden` must be divisible by `heads`"):
        ViSNet(name="visnet", hidden=9, heads=2)
