"""A trained potential as one `torch.export` file, which runs without this package.

The program takes z (N,), pos (N, 3) Å, edge_index (2, E) and shift (E, 3) Å, as
`study.graphs.graph_set`
defines them, of one structure with any number of atoms and edges, and gives its total energy
(eV, float64) and forces (N, 3) eV/Å:

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
from study.inference.predictor import TrainedPotential, cell_of

if TYPE_CHECKING:
    from ase import Atoms

DISTINCT = 5
"""Atoms and edges that are no fixed size of some tensor."""
INPUTS = ("z", "pos", "edge_index", "shift")


class _Flat(nn.Module):
    """The potential as a function of tensors."""

    def __init__(self, potential: TrainedPotential) -> None:
        super().__init__()
        self.potential = potential
        self.model = potential.model.requires_grad_(requires_grad=False)

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        graph = Data(z=z, pos=pos, edge_index=edge_index, shift=shift, batch=torch.zeros_like(z))
        self.potential.mark(graph)
        predicted = self.model(graph)
        return predicted.energy.double() + self.model.reference_energy(graph), predicted.forces


def export(potential: TrainedPotential, example: Atoms, path: Path) -> None:
    """Write the program to `path`.

    The gradient inside is traced into plain operations first, because `torch.export` alone does
    not see through it.

    Args:
        potential: what to export.
        example: a structure to trace it on; others may have more or fewer atoms.
        path: usually *.pt2.

    Raises:
        UserError: if its forces are no gradient: such models choose neighbours by data.
    """
    if not potential.model.conservative:
        raise UserError(
            f"--export: works for conservative models, but got "
            f"{potential.trained.work.trial.model.name}; use the ASE calculator"
        )
    inputs = _inputs(potential, example)
    traced = make_fx(_Flat(potential), tracing_mode="symbolic", _allow_non_fake_inputs=True)(
        *inputs
    )
    atoms, edges = torch.export.Dim("atoms", min=2), torch.export.Dim("edges", min=2)
    shapes = ({0: atoms}, {0: atoms}, {1: edges}, {0: edges})
    program = torch.export.export(traced, inputs, dynamic_shapes=shapes)
    write_with(path, lambda temporary: _save(program, temporary))


def _inputs(potential: TrainedPotential, example: Atoms) -> tuple[Tensor, ...]:
    """The example as tensors to trace on.

    Sizes that happen to be equal, of other tensors too, would be taken for the same, so the example
    is repeated, and gets edges without meaning.
    """
    copies = math.ceil(DISTINCT / len(example))
    boxed = example.copy()  # type: ignore[no-untyped-call]
    boxed.cell, boxed.pbc = cell_of(example), True
    graph = potential.graph([boxed.repeat((copies, 1, 1))])
    z, pos, edge_index, shift = (graph[name] for name in INPUTS)
    more = max(1, DISTINCT - len(shift))
    more += len(shift) + more == len(z)
    edge = torch.tensor([[0], [1]], device=z.device)
    edge_index = torch.cat([edge_index, edge.expand(2, more)], dim=1)
    return z, pos, edge_index, torch.cat([shift, shift.new_zeros(more, 3)])


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    with path.open("wb") as opened:
        torch.export.save(program, opened)
