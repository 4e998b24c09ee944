"""One piece of a TIP3P trajectory in OpenMM, from a state to the next state.

OpenMM is imported when it is first needed; nothing else here is heavy.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.quantities.units import KJ_PER_MOL, KJ_PER_MOL_PER_NM, NANOMETRE
from study.core.seeding import seed_of

if TYPE_CHECKING:
    from study.datasets.config import TIP3PWater

TIMESTEPS = {"rigid": 0.002, "flexible": 0.0005}
"""ps; the O-H stretch of flexible molecules has a period of 10 fs."""
FRICTION = 1.0
"""Of the Langevin equilibration, and collision frequency of the Nosé-Hoover chain, 1/ps."""
SPACING = 0.1
"""ps from one frame to the next."""
PIECE = 50
"""Frames in a piece: what an interruption can cost."""
EQUILIBRATION_PIECES = 4
"""Pieces before the first frame is kept, 20 ps in all."""
PLATFORM = {"Threads": "1", "DeterministicForces": "true"}
"""Only these two together make OpenMM's CPU platform bitwise reproducible."""
MEASURED = ("positions", "forces", "energies", "temperatures")

Piece = dict[str, NDArray[Any]]
"""`state` after the last step, bytes of OpenMM's XML; unless it equilibrates also positions
(f, N, 3) Å, forces (f, N, 3) eV/Å, energies (f,) eV, temperatures (f,) K."""


def openmm() -> Any:
    """The OpenMM package.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module("openmm")
    except ImportError as problem:
        raise UserError(
            f"TIP3P water is simulated with OpenMM ({problem}); install it: pip install openmm"
        ) from None


def box_edge(molecules: int) -> float:
    """Edge of the cubic box at the paper's density, nm: 258 molecules in 2 nm."""
    return float(2.0 * (molecules / 258) ** (1 / 3))


def cutoff(molecules: int) -> float:
    """Of Lennard-Jones and direct Coulomb, nm: 1 nm, or half the box edge if that is less."""
    return min(1.0, box_edge(molecules) / 2)


def timestep(recipe: TIP3PWater) -> float:
    """Of the integrators, ps."""
    return TIMESTEPS["flexible" if recipe.flexible else "rigid"]


def interval(recipe: TIP3PWater) -> int:
    """Steps from one frame to the next."""
    return round(SPACING / timestep(recipe))


def build_box(molecules: int, *, flexible: bool = False) -> tuple[Any, NDArray[np.float64]]:
    """The OpenMM system and a first packing of water, not yet relaxed.

    OpenMM's solvent box grows until it holds enough; the surplus is dropped evenly, and the
    molecules are moved together into the right box.

    Returns:
        The `openmm.System`, and (N, 3) nm in the order O, H, H.
    """
    app, unit, vector = import_module("openmm.app"), openmm().unit, openmm().Vec3
    field, edge = app.ForceField("tip3p.xml"), box_edge(molecules)
    size, model = edge, _solvate(edge)
    while (count := model.topology.getNumResidues()) < molecules:
        size *= 1.01
        model = _solvate(size)
    kept = set(np.linspace(0, count - 1, molecules).round().astype(int).tolist())
    model.delete([water for water in model.topology.residues() if water.index not in kept])
    model.topology.setUnitCellDimensions(vector(edge, edge, edge))
    system = field.createSystem(
        model.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=cutoff(molecules),
        rigidWater=not flexible,
    )
    sites = np.array(model.positions.value_in_unit(unit.nanometer)).reshape(-1, 3, 3)
    return system, (sites + sites[:, :1] * (edge / size - 1)).reshape(-1, 3)


_box = cache(build_box)


def seed(recipe: TIP3PWater, trajectory: int, number: int) -> int:
    """Of an equilibration piece; from 1, because 0 asks OpenMM for a random seed."""
    if recipe.seed:
        return 1 + seed_of("tip3p_water", recipe.seed, trajectory, number) % (2**31 - 1)
    return 1 + trajectory * EQUILIBRATION_PIECES + number


def simulate(recipe: TIP3PWater, trajectory: int, number: int, state: str) -> Piece:
    """Run piece `number` of a trajectory in a context of its own.

    Args:
        recipe: what to simulate.
        trajectory: from 0.
        number: from 0; the first `EQUILIBRATION_PIECES` equilibrate.
        state: where the piece before it ended, OpenMM's XML; empty for the first.
    """
    producing, rows = number >= EQUILIBRATION_PIECES, []
    context = _context(recipe, trajectory, number, state)
    left = recipe.frames - PIECE * (number - EQUILIBRATION_PIECES)
    for _ in range(min(PIECE, left)):
        context.getIntegrator().step(interval(recipe))
        if producing:
            rows.append(_measure(context, recipe))
    columns = zip(*rows, strict=True)
    piece = {name: np.array(column) for name, column in zip(MEASURED, columns, strict=producing)}
    # The thermostat's part of the state is the chain; Langevin's would not fit the chain.
    end = context.getState(positions=True, velocities=True, integratorParameters=producing)
    xml = openmm().XmlSerializer.serialize(end).encode()
    return piece | {"state": np.frombuffer(xml, dtype=np.uint8)}


def _solvate(size: float) -> Any:
    app, unit, vector = import_module("openmm.app"), openmm().unit, openmm().Vec3
    model, box = app.Modeller(app.Topology(), []), vector(size, size, size) * unit.nanometer
    model.addSolvent(app.ForceField("tip3p.xml"), model="tip3p", neutralize=False, boxSize=box)
    return model


def _context(recipe: TIP3PWater, trajectory: int, number: int, state: str) -> Any:
    mm, (system, packing) = openmm(), _box(recipe.molecules, flexible=recipe.flexible)
    integrator = _integrator(recipe, trajectory, number)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("CPU"), PLATFORM)
    if state:
        context.setState(mm.XmlSerializer.deserialize(state))
    else:
        context.setPositions(packing)
        mm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
        context.setVelocitiesToTemperature(recipe.temperature, seed(recipe, trajectory, number))
    return context


def _integrator(recipe: TIP3PWater, trajectory: int, number: int) -> Any:
    settings = (recipe.temperature, FRICTION, timestep(recipe))
    if number >= EQUILIBRATION_PIECES:
        return openmm().NoseHooverIntegrator(*settings)
    integrator = openmm().LangevinMiddleIntegrator(*settings)
    integrator.setRandomNumberSeed(seed(recipe, trajectory, number))
    return integrator


def _measure(context: Any, recipe: TIP3PWater) -> tuple[NDArray[np.float64] | float, ...]:
    """Positions Å, forces eV/Å, energy eV, temperature K."""
    unit = openmm().unit
    state = context.getState(positions=True, forces=True, energy=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    # Six degrees of freedom per rigid molecule, nine per flexible one, less the centre of mass.
    per_kelvin = (
        ((9 if recipe.flexible else 6) * recipe.molecules - 3) * unit.MOLAR_GAS_CONSTANT_R / 2
    )
    force = unit.kilojoule_per_mole / unit.nanometer
    return (
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer) * NANOMETRE,
        state.getForces(asNumpy=True).value_in_unit(force) * KJ_PER_MOL_PER_NM,
        energy * KJ_PER_MOL,
        (state.getKineticEnergy() / per_kelvin).value_in_unit(unit.kelvin),
    )
