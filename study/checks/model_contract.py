"""Invariants that every model must satisfy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from study.checks import training_contract
from study.checks.finding import run_check
from study.checks.model_under_test import ModelUnderTest, difference, generator
from study.checks.structures import Structure, water_box
from study.core.user_traceback import described
from study.models.config import ModelConfig
from study.models.potential import Potential


def _shapes(subject: ModelUnderTest) -> str:
    energy, forces, vectors = subject.predict(subject.water, subject.water)
    atoms = 2 * len(subject.water.numbers)
    shapes, expected = (
        [tuple(t.shape) for t in (energy, forces, vectors)],
        [(2,), (atoms, 3), (atoms, 3)],
    )
    if shapes == expected:
        return ""
    return f"energies, forces and vectors must be {expected}, but got {shapes}"


def _finite(subject: ModelUnderTest) -> str:
    cell = 20 * np.eye(3)
    for places in ([[0, 0, 0]], [[0, 0, 0], [9, 9, 9]], [[1, 1, 1], [1, 1, 1], [1, 1, 2]]):
        structure = Structure(np.full(len(places), 8, np.uint8), np.array(places, float), cell)
        if not all(output.isfinite().all() for output in subject.predict(structure)):
            return f"outputs must be finite, but are not for oxygens at {places}"
    return ""


def _gradient(subject: ModelUnderTest) -> str:
    graph = subject.graph(subject.water)
    forces = subject.model(graph).forces.detach()
    move = torch.randn(graph.pos.shape, generator=generator(), dtype=torch.float64)

    def energy(step: float) -> float:
        moved = graph.clone()
        moved.pos = graph.pos + step * move
        return float(subject.model(moved).energy.sum().detach())

    slope = _slope(energy, 2e-4)
    work = float((forces * move).sum())
    if abs(work + slope) <= 1e-5 * max(1.0, abs(slope)):
        return ""
    return f"along a line the energy falls by {-slope:.6g} eV/Å, but the forces say {work:.6g}"


def _strain(subject: ModelUnderTest) -> str:
    graph = subject.graph(subject.water)
    stress = subject.model.with_stress(graph).stress
    assert stress is not None
    strain = torch.randn(3, 3, generator=generator(), dtype=torch.float64)
    strain = (strain + strain.T) / 2

    def energy(step: float) -> float:
        moved = graph.clone()
        moved.pos = graph.pos + step * graph.pos @ strain
        moved.shift = graph.shift + step * graph.shift @ strain
        return float(subject.model(moved).energy.sum().detach())

    slope = _slope(energy, 2e-5)
    work = float((stress[0].detach() * strain).sum() * torch.linalg.det(graph.cell[0]).abs())
    wrong = f"under strain the energy rises by {slope:.6g} eV, but the stress says {work:.6g}"
    return "" if abs(work - slope) <= 1e-5 * max(1.0, abs(slope)) else wrong


def _slope(energy: Callable[[float], float], h: float) -> float:
    """Central difference of fourth order at 0."""
    return (8 * (energy(h) - energy(-h)) - (energy(2 * h) - energy(-2 * h))) / (12 * h)


def _translations(subject: ModelUnderTest) -> str:
    water = subject.water
    moved = Structure(water.numbers, water.positions + np.array([0.7, -11.3, 2.9]), water.cell)
    return difference(subject.predict(moved), subject.predict(water), "moving all atoms")


def _images(subject: ModelUnderTest) -> str:
    water = subject.water
    jumps = np.random.default_rng(0).integers(-3, 4, water.positions.shape)
    moved = Structure(water.numbers, water.positions + jumps @ water.cell, water.cell)
    what = "moving atoms by lattice vectors"
    return difference(subject.predict(moved), subject.predict(water), what)


def _permutations(subject: ModelUnderTest) -> str:
    water = subject.water
    order = np.random.default_rng(1).permutation(len(water.numbers))
    energy, forces, vectors = subject.predict(water)
    got = subject.predict(Structure(water.numbers[order], water.positions[order], water.cell))
    return difference(got, (energy, forces[order], vectors[order]), "another order of atoms")


def _rotations(subject: ModelUnderTest) -> str:
    water = subject.water
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    energy, forces, vectors = subject.predict(water)
    got = subject.predict(Structure(water.numbers, water.positions @ turn, water.cell @ turn))
    matrix = torch.tensor(turn)
    return difference(got, (energy, forces @ matrix, vectors @ matrix), "rotation")


def _supercell(subject: ModelUnderTest) -> str:
    water = subject.water
    images = np.array(list(itertools.product((0, 1), repeat=3))) @ water.cell
    positions = (images[:, None] + water.positions).reshape(-1, 3)
    large = Structure(np.tile(water.numbers, 8), positions, 2 * water.cell)
    energy, forces, vectors = subject.predict(water)
    expected = (8 * energy, forces.repeat(8, 1), vectors.repeat(8, 1))
    return difference(subject.predict(large), expected, "a supercell of eight")


def _batches(subject: ModelUnderTest) -> str:
    other = water_box(seed=2)
    alone = [subject.predict(structure) for structure in (subject.water, other)]
    together = subject.predict(subject.water, other)
    energy, forces, vectors = (torch.cat(parts) for parts in zip(*alone, strict=True))
    return difference(together, (energy, forces, vectors), "another frame in the batch")


def _species(subject: ModelUnderTest) -> str:
    water = subject.water
    numbers = water.numbers.copy()
    numbers[[0, 1]] = numbers[[1, 0]]
    swapped = Structure(numbers, water.positions, water.cell)
    change = (subject.predict(swapped)[0] - subject.predict(water)[0]).abs().item()
    return "" if change > 1e-6 else "an oxygen and a hydrogen that change places change no energy"


def _cutoff(subject: ModelUnderTest) -> str:
    reach, step = subject.settings.cutoff, 1e-7

    def at(distance: float) -> tuple[Tensor, Tensor]:
        # The distant atom has one neighbour, so nothing else changes.
        positions = np.array([[0, 0, 0], [-0.9, 0, 0], [distance, 0, 0]])
        numbers = np.array([8, 1, 8], np.uint8)
        return subject.predict(Structure(numbers, positions, 3 * reach * np.eye(3)))[:2]

    pairs = zip(at(reach - step), at(reach + step), strict=True)
    energy, force = (float((inside - outside).abs().max()) for inside, outside in pairs)
    if max(energy, force) < 1e-6:
        return ""
    return (
        f"an atom that crosses the cutoff changes the energy by {energy:.2g} eV and a force by "
        f"{force:.2g} eV/Å at once; multiply messages by "
        "`study.plugins.cutoff_envelope`"
    )


def _marks(subject: ModelUnderTest) -> str:
    graph = subject.graph(subject.water)
    plain = subject.model.vectors(graph).detach()
    graph.masked = (torch.arange(len(graph.z)) % 5 == 0).to(graph.pos.dtype)
    change = (subject.model.vectors(graph).detach() - plain).abs().max().item()
    if change > 1e-6:
        return ""
    return "`graph.masked` changes no vector; embed atoms with `study.models.layers.embedding`"


CHECKS: dict[str, Callable[[ModelUnderTest], str]] = {
    "shapes": _shapes,
    "finite for unusual structures": _finite,
    "forces are the negative gradient": _gradient,
    "the stress is the derivative by strain": _strain,
    "translations change nothing": _translations,
    "periodic images are the same atoms": _images,
    "the order of atoms does not matter": _permutations,
    "rotations turn forces and vectors": _rotations,
    "energies are extensive": _supercell,
    "frames of a batch do not mix": _batches,
    "elements are distinguished": _species,
    "smooth at the cutoff": _cutoff,
    "masked atoms are distinguished": _marks,
    **training_contract.CHECKS,
}

ONLY_IF = {
    "forces are the negative gradient": "conservative",
    "the stress is the derivative by strain": "gives_stress",
    "rotations turn forces and vectors": "equivariant",
    "no frame changes another in training": "independent_frames",
}
"""Checks of what a model may declare not to have."""


def examine(build: Callable[[], Potential], settings: ModelConfig) -> Iterator[tuple[str, str]]:
    """Run all checks of a model; yield the name and the problem of each, empty if it passed."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        try:
            subject = ModelUnderTest.of(build, settings, water_box(seed=1))
        # Whatever the user's code raises is the answer.
        except Exception as problem:
            yield "it can be built", described(problem)
            return
        for name, check in CHECKS.items():
            if getattr(subject.model, ONLY_IF.get(name, "heads")):
                yield name, run_check(check, subject)
