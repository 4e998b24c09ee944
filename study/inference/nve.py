"""NVE molecular dynamics by velocity Verlet, and the drift of its total energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class EnergySample:
    """Energies at one step of a trajectory.

    Args:
        time: ps.
        potential: potential energy, eV.
        kinetic: kinetic energy, eV.
    """

    time: float
    potential: float
    kinetic: float

    @property
    def total(self) -> float:
        """Total energy, eV."""
        return self.potential + self.kinetic


@dataclass(frozen=True)
class EnergyDrift:
    """Linear drift of the total energy, fitted by least squares, and fluctuation about it.

    Args:
        drift: slope of the fit, meV/atom/ps.
        fluctuation: root mean square deviation from the fit, meV/atom.
    """

    drift: float
    fluctuation: float


def thermalize(atoms: Atoms, temperature: float, seed: int) -> None:
    """Draw Maxwell–Boltzmann velocities with zero total momentum.

    Args:
        atoms: at least two; their momenta are set.
        temperature: K.
        seed: seed of the random velocities.
    """
    import numpy as np
    from ase import units

    masses = atoms.get_masses()[:, None]
    normal = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    momenta = normal * np.sqrt(masses * units.kB * temperature)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())  # type: ignore[no-untyped-call]


def temperature_of(kinetic: float, atoms: int) -> float:
    """Temperature 2 E / ((3 N − 3) k), K, of a kinetic energy in eV at zero total momentum."""
    from ase import units

    return float(2 * kinetic / ((3 * atoms - 3) * units.kB))


def run_nve(atoms: Atoms, timestep: float, steps: int) -> Iterator[EnergySample]:
    """Run velocity Verlet dynamics (doi:10.1063/1.442716) from the current velocities.

    Args:
        atoms: with a calculator; they are moved in place.
        timestep: fs.
        steps: number of steps.

    Yields:
        Energies at the start, then after each step.
    """
    from ase import units
    from ase.md.verlet import VelocityVerlet

    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    for step, _ in enumerate(dynamics.irun(steps)):  # type: ignore[no-untyped-call]
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()  # type: ignore[no-untyped-call]
        yield EnergySample(step * timestep / 1000, float(potential), float(kinetic))


def fit_energy_drift(samples: Sequence[EnergySample], atoms: int) -> EnergyDrift:
    """Fit the drift of the total energy of `atoms` atoms, from two samples or more."""
    import numpy as np

    times = np.array([sample.time for sample in samples])
    totals = 1000 * np.array([sample.total for sample in samples]) / atoms
    times, totals = times - times.mean(), totals - totals.mean()
    slope = times @ totals / (times @ times)
    return EnergyDrift(float(slope), float(np.sqrt(np.mean((totals - slope * times) ** 2))))
