"""What finetuning takes over from a foundation model besides its weights: scale and zero of energy.

Labels of another method have another zero, and a readout that is kept puts out eV already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from study.graphs.element_counts import ElementCounts
from study.models.potential import Potential, sum_per_graph

if TYPE_CHECKING:
    from study.graphs.graph_set import GraphSet
    from study.space.trial import Foundation

BATCH = 16
"""Frames that are predicted at once."""


def set_energies(
    model: Potential,
    start: Foundation,
    own: Tensor,
    graphs: GraphSet,
    train: Tensor,
    *,
    with_heads: bool,
) -> None:
    """Set output scale and reference energies of a model that starts from a foundation model.

    Args:
        model: with its weights, and the scale and reference that the labels suggest.
        start: whether the reference is refitted or kept.
        own: (elements,) reference energies of the foundation model, eV.
        graphs: all frames.
        train: (M,) those to train on.
        with_heads: whether its readout is kept.
    """
    if with_heads:
        model.scale.fill_(1.0)
    if start.energies == "keep":
        model.reference.copy_(own)
        model.frame_reference.zero_()
    elif with_heads:
        model.reference.copy_(own)
        model.frame_reference.zero_()
        _refit(model, graphs, train)


@torch.no_grad()
def _refit(model: Potential, graphs: GraphSet, train: Tensor) -> None:
    """Add to the reference of each element what the model lacks to the labels, least squares."""
    train = train[~graphs.energy[train].isnan().cpu()]
    missing = torch.cat([_missing(model, graphs, some) for some in train.split(BATCH)])
    counts = ElementCounts.of(graphs, train)
    mean = (missing / counts.sizes).mean()
    shifts = mean + counts.fit(missing - mean * counts.sizes)
    seen = counts.elements[counts.counts.any(dim=0)]
    model.reference[seen] += shifts[seen].to(model.reference.device)


def _missing(model: Potential, graphs: GraphSet, frames: Tensor) -> Tensor:
    """Energies (G,) eV of frames, float64, less what the model predicts."""
    batch = graphs.gather(frames)
    predicted = sum_per_graph(model.scale * model.scalars(batch), batch).double()
    return (batch.energy - model.reference_energy(batch) - predicted).cpu()
