"""Dynamics at constant energy by velocity Verlet, and how steady it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class EnergySample:
    """Energies at one time.

    Args:
        time: ps.
        potential: eV.
        kinetic: eV.
    """

    time: float
    potential: float
    kinetic: float

    @property
    def total(self) -> float:
        """Their sum, eV."""
        return self.potential + self.kinetic


@dataclass(frozen=True)
class EnergyDrift:
    """How steady the total energy is; the drift is the slope of the line of least squares.

    Args:
        drift: meV per atom and ps.
        fluctuation: root mean square about that line, meV per atom.
    """

    drift: float
    fluctuation: float


def thermalize(atoms: Atoms, temperature: float, seed: int) -> None:
    """Draw Maxwell–Boltzmann velocities; the whole stays where it is.

    Args:
        atoms: at least two.
        temperature: K.
        seed: of the velocities.
    """
    import numpy as np
    from ase import units

    masses = atoms.get_masses()[:, None]
    drawn = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    momenta = drawn * np.sqrt(masses * units.kB * temperature)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())  # type: ignore[no-untyped-call]


def temperature_of(kinetic: float, atoms: int) -> float:
    """K, of a kinetic energy in eV, that of the centre of mass being zero: 2 E / (3 N - 3) k."""
    from ase import units

    return float(2 * kinetic / ((3 * atoms - 3) * units.kB))


def nve(atoms: Atoms, timestep: float, steps: int) -> Iterator[EnergySample]:
    """Move atoms by velocity Verlet (doi:10.1063/1.442716), from the velocities that they have.

    Args:
        atoms: with a calculator; they are moved.
        timestep: fs.
        steps: number of steps.

    Yields:
        The start, then the state after each step.
    """
    from ase import units
    from ase.md.verlet import VelocityVerlet

    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    for step, _ in enumerate(dynamics.irun(steps)):  # type: ignore[no-untyped-call]
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()  # type: ignore[no-untyped-call]
        yield EnergySample(step * timestep / 1000, float(potential), float(kinetic))


def steadiness(moments: Sequence[EnergySample], atoms: int) -> EnergyDrift:
    """Of the total energy of so many atoms, from two moments or more."""
    import numpy as np

    times = np.array([moment.time for moment in moments])
    totals = 1000 * np.array([moment.total for moment in moments]) / atoms
    times, totals = times - times.mean(), totals - totals.mean()
    slope = times @ totals / (times @ times)
    return EnergyDrift(float(slope), float(np.sqrt(np.mean((totals - slope * times) ** 2))))
