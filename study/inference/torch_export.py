"""Export of a trained potential as one `torch.export` file, which runs without this package.

The program takes z (N,), pos (N, 3) Å, edge_index (2, E) and shift (E, 3) Å of one structure with
any number of atoms and edges, as `study.graphs.graph_set` defines them, and returns its total
energy (eV, float64) and forces (N, 3) eV/Å:

    energy, forces = torch.export.load("model.pt2").module()(z, pos, edge_index, shift)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Data

from study.core.atomic_io import write_with
from study.core.errors import UserError
from study.core.paths import follow_links
from study.inference.predictor import TrainedPotential

if TYPE_CHECKING:
    from ase import Atoms

MIN_EXAMPLE_SIZE = 5
"""Fewest atoms and edges of the example, so that they differ from static sizes such as 3."""
INPUTS = ("z", "pos", "edge_index", "shift")


class _TensorPotential(nn.Module):
    """Wraps the potential as a function of tensors."""

    def __init__(self, potential: TrainedPotential) -> None:
        super().__init__()
        self.potential = potential
        self.model = potential.model.requires_grad_(requires_grad=False)

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        graph = Data(z=z, pos=pos, edge_index=edge_index, shift=shift, batch=torch.zeros_like(z))
        self.potential.add_mask(graph)
        predicted = self.model(graph)
        return predicted.energy.double() + self.model.reference_energy(graph), predicted.forces


def export(potential: TrainedPotential, example: Atoms, path: Path) -> None:
    """Export a potential to a file.

    Forces are first traced into plain operations, because `torch.export` cannot trace autograd.

    Args:
        potential: the potential to export.
        example: a structure for tracing; others may have more or fewer atoms.
        path: file to write, usually *.pt2.

    Raises:
        UserError: if it is not conservative, as such models select neighbours by data, or needs
            cells, which a program is not given.
    """
    if not potential.model.conservative or potential.model.needs_cell:
        without = " without `rewrap`" * potential.model.needs_cell
        raise UserError(
            f"--export: works for conservative models{without}, but got "
            f"{potential.trained.job.trial.model.name}; use the ASE calculator"
        )
    inputs = _inputs(potential, example)
    traced = make_fx(
        _TensorPotential(potential), tracing_mode="symbolic", _allow_non_fake_inputs=True
    )(*inputs)
    atoms, edges = torch.export.Dim("atoms", min=2), torch.export.Dim("edges", min=2)
    shapes = ({0: atoms}, {0: atoms}, {1: edges}, {0: edges})
    program = torch.export.export(traced, inputs, dynamic_shapes=shapes)
    write_with(follow_links(path), lambda temporary: _save(program, temporary))


def _inputs(potential: TrainedPotential, example: Atoms) -> tuple[Tensor, ...]:
    """Convert the example to tensors for tracing.

    Tracing identifies sizes that happen to be equal, also of other tensors, so the example is
    repeated and padded with edges until all sizes differ.
    """
    copies = math.ceil(MIN_EXAMPLE_SIZE / len(example))
    # A batch of copies is traced as one structure of parts without edges between them.
    graph = potential.graph([example] * copies)
    z, pos, edge_index, shift = (graph[name] for name in INPUTS)
    padding = max(1, MIN_EXAMPLE_SIZE - len(shift))
    padding += len(shift) + padding == len(z)
    edge = torch.tensor([[0], [1]], device=z.device)
    edge_index = torch.cat([edge_index, edge.expand(2, padding)], dim=1)
    return z, pos, edge_index, torch.cat([shift, shift.new_zeros(padding, 3)])


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    with path.open("wb") as opened:
        torch.export.save(program, opened)
