"""Divides the batch of a training step among the workers of a trial.

Every worker makes the whole batch, with all that is random in it, and then takes its frames. So
random numbers do not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.core.errors import UserError
from study.tasks.task import Term
from study.training.compiler import STATIC_TENSORS

ATOMS, EDGES, FRAMES, CONTEXT = "atoms", "edges", "frames", "context"

OWNERS = {
    **dict.fromkeys(("z", "pos", "force", "batch", "masked", "given_force"), ATOMS),
    **dict.fromkeys(("noise", "noised", "noise_scale"), ATOMS),
    **dict.fromkeys(("edge_index", "shift"), EDGES),
    **dict.fromkeys(("cell", "energy", "stress", "level", "y"), FRAMES),
    **dict.fromkeys(("context_atoms", "directions", "displacements"), CONTEXT),
}
"""What the rows of a tensor of a batch belong to; those of others are told by their number."""


def portion(term: Term, worker: int, workers: int) -> Term | None:
    """The part of a term that one worker computes; None if none of its frames is left for it.

    The weighted sum of all parts equals the weighted term, and so do their gradients.

    Raises:
        UserError: if it is not known how to divide the term.
    """
    if term.counts is None:
        raise UserError(
            f"`workers` must be 1 with the loss `{term.name}`, whose Term does not say by `counts` "
            "of how many values it is the mean; add that, or leave `workers` out"
        )
    part = _part(term.batch, worker, workers)
    if part is None:
        return None
    share = term.counts(part) / term.counts(term.batch)
    if isinstance(share, Tensor):
        share = share.to(part.pos.dtype)
        if share.dim():
            part.weights = part.weights * share
            return replace(term, batch=part)
    return replace(term, batch=part, weight=term.weight * share)


def _part(batch: Batch, worker: int, workers: int) -> Batch | None:
    """The frames of one worker; None if there are too few."""
    starts = batch.ptr.cpu().numpy()
    # Shares are of equal numbers of atoms, as far as whole frames can be.
    first, last = (
        int(np.abs(starts - edge * starts[-1] / workers).argmin()) for edge in (worker, worker + 1)
    )
    if first == last:
        return None
    atoms = slice(int(starts[first]), int(starts[last]))
    rows: dict[str, slice | Tensor] = {
        ATOMS: atoms,
        FRAMES: slice(first, last),
        EDGES: _rows_within(batch.edge_index[1], atoms),
    }
    if "context_atoms" in batch:
        rows[CONTEXT] = _rows_within(batch.context_atoms, atoms)
    counts = {ATOMS: len(batch.z), FRAMES: len(starts) - 1}
    begin = {"edge_index": atoms.start, "context_atoms": atoms.start, "batch": first}
    found = {"ptr": batch.ptr[first : last + 1] - atoms.start}
    for name, value in batch.to_dict().items():
        if name in STATIC_TENSORS:
            found[name] = value
        elif name != "ptr":
            owned = rows[OWNERS.get(name) or _owner(name, value, counts)]
            taken = value[:, owned] if name == "edge_index" else value[owned]
            found[name] = taken - begin[name] if name in begin else taken
    return Batch(**found)


def _rows_within(atoms: Tensor, some: slice) -> Tensor:
    """Rows of a list of atoms that are among some."""
    return torch.nonzero((atoms >= some.start) & (atoms < some.stop))[:, 0]


def _owner(name: str, value: Tensor, counts: dict[str, int]) -> str:
    """What the rows of a tensor of a user's own task belong to, by their number."""
    for owner, count in counts.items():
        if value.dim() and len(value) == count:
            return owner
    raise UserError(
        f"`workers` must be 1 with a task whose batch has `{name}` {tuple(value.shape)}, a row "
        "neither for each atom nor for each frame; change that, or leave `workers` out"
    )
