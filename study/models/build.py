"""Models by the name that a space gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from study.models.egnn import EGNN
from study.models.equivariant_transformer import EquivariantTransformer
from study.models.forcenet import ForceNet
from study.models.gns import GNS
from study.models.potential import Potential
from study.models.schnet import SchNet
from study.models.se3_transformer import SE3Transformer
from study.models.visnet import ViSNet

if TYPE_CHECKING:
    from study.models.config import Model as OwnModel
    from study.models.config import ModelConfig

MODELS: dict[str, type[Potential]] = {
    "egnn": EGNN,
    "gns": GNS,
    "forcenet": ForceNet,
    "schnet": SchNet,
    "visnet": ViSNet,
    "equivariant_transformer": EquivariantTransformer,
    "se3_transformer": SE3Transformer,
}


def build_model(settings: ModelConfig | OwnModel, seed: int) -> Potential:
    """A new model; its initial weights are a function of the settings and the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if settings.name not in MODELS:
            made: Potential = settings.build()  # type: ignore[union-attr]
            made.settings = settings
            return made
        return MODELS[settings.name](settings)  # type: ignore[call-arg]
