"""How many atoms of each element frames have, and sums over atoms that fit their labels best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from study.core.quantities.elements import SYMBOLS
from study.graphs.graph_set import GraphSet

NUMBERS = len(SYMBOLS) + 1
"""Rows of a table by atomic number."""


@dataclass(frozen=True)
class ElementCounts:
    """How many atoms of each element some frames have.

    Args:
        counts: (M, columns) float64, on the CPU.
        elements: (columns,) atomic number of each column.
    """

    counts: Tensor
    elements: Tensor

    @classmethod
    def of(cls, graphs: GraphSet, frames: Tensor) -> Self:
        """Count the atoms of the given frames (M,)."""
        elements, pieces = torch.arange(NUMBERS), graphs.pieces(frames)
        if pieces > 1:
            # A million frames with a column for each element would take a gigabyte.
            elements = torch.bincount(graphs.z).nonzero()[:, 0].cpu()
        column = torch.zeros(NUMBERS, dtype=torch.long)
        column[elements] = torch.arange(len(elements))
        counts = []
        for some in frames.tensor_split(pieces):
            rows, owner = graphs.atoms.rows(some)
            place = len(elements) * owner.cpu() + column[graphs.z[rows].cpu().long()]
            counted = torch.bincount(place, minlength=len(some) * len(elements))
            counts.append(counted.view(-1, len(elements)).double())
        return cls(torch.cat(counts), elements)

    @property
    def sizes(self) -> Tensor:
        """Number of atoms of each frame: (M,)."""
        return self.counts.sum(dim=1)

    def fit(self, values: Tensor) -> Tensor:
        """Fit a sum over atoms to values (M,) by least squares: by number (119,), of least norm."""
        fitted = torch.linalg.lstsq(self.counts, values, driver="gelsd").solution
        contributions = torch.zeros(NUMBERS, dtype=torch.float64)
        contributions[self.elements] = fitted
        return contributions

    def sum(self, contributions: Tensor) -> Tensor:
        """Sum (M,) over the atoms of each frame, to which each number contributes so much."""
        return self.counts @ contributions[self.elements]
