"""Deviations of a model from rotation equivariance and momentum conservation."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch_geometric.data import Batch

from study.models.potential import Potential

ROTATIONS = 4
"""Number of random rotations to average over."""


def symmetry_errors(model: Potential, batch: Batch, generator: torch.Generator) -> dict[str, float]:
    """Measure the symmetry errors of a model that is not equivariant or not conservative.

    Args:
        model: in evaluation mode.
        batch: G graphs of N atoms each; it is not changed.
        generator: draws the rotations.

    Returns:
        rotation_error: RMS of F(Rx) − R·F(x) relative to the RMS of F, over random proper
            rotations R of atoms and cells; 0 for an equivariant model, about √2 for uncorrelated
            forces.
        energy_rotation_error: RMS of (E(Rx) − E(x)) / N, eV/atom.
        net_force: RMS over graphs of |ΣF| / N, eV/Å; 0 if momentum is conserved.
    """
    energy, forces = _predict(model, batch)
    sizes = batch.ptr.diff().to(energy.dtype)
    force_errors, energy_errors = [], []
    for _ in range(ROTATIONS):
        matrix = random_rotation(generator).to(batch.pos)
        turned_energy, turned_forces = _predict(model, rotate(batch, matrix))
        force_errors.append(turned_forces - forces @ matrix.T)
        energy_errors.append((turned_energy - energy) / sizes)
    net = forces.new_zeros(len(sizes), 3).index_add(0, batch.batch, forces).norm(dim=-1)
    size = _rms(forces).clamp(min=torch.finfo(forces.dtype).tiny)
    return {
        "rotation_error": float(_rms(torch.stack(force_errors)) / size),
        "energy_rotation_error": float(_rms(torch.stack(energy_errors))),
        "net_force": float(_rms(net / sizes)),
    }


def rotate(batch: Batch, matrix: Tensor) -> Batch:
    """Return a copy of the batch, rotated by a (3, 3) matrix."""
    turned = copy.copy(batch)
    turned.pos = batch.pos @ matrix.T
    turned.shift = batch.shift @ matrix.T
    turned.cell = batch.cell @ matrix.T
    return turned


def random_rotation(generator: torch.Generator) -> Tensor:
    """Draw a uniform proper rotation (3, 3), float64 (arXiv:math-ph/0609050, section 5)."""
    draw = torch.randn(3, 3, generator=generator, device=generator.device, dtype=torch.float64)
    matrix, triangular = torch.linalg.qr(draw)
    matrix = matrix * triangular.diagonal().sign()
    return matrix * matrix.det().sign()


def _predict(model: Potential, batch: Batch) -> tuple[Tensor, Tensor]:
    prediction = model(batch)
    return prediction.energy.detach(), prediction.forces.detach()


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
