"""Dynamics at constant energy with a study's model: `python -m study.dynamics MODEL water.extxyz`.

How well the total energy stays what it was tells whether the forces are its gradient, and whether
the timestep is short enough. `python -m analysis.dynamics nve.csv` draws the energies.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import UserError, exit_code
from study.progress import progress_display

if TYPE_CHECKING:
    from ase import Atoms

    from study.trained import Trained

# Nothing heavy is imported before it is needed, so that help appears at once.

MOST_ROWS = 5000
"""Of a long run only so many moments are kept, equally spaced."""


@dataclass(frozen=True)
class Moment:
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
class Steadiness:
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


def nve(atoms: Atoms, timestep: float, steps: int) -> Iterator[Moment]:
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
        yield Moment(step * timestep / 1000, float(potential), float(kinetic))


def steadiness(moments: Sequence[Moment], atoms: int) -> Steadiness:
    """Of the total energy of so many atoms, from two moments or more."""
    import numpy as np

    times = np.array([moment.time for moment in moments])
    totals = 1000 * np.array([moment.total for moment in moments]) / atoms
    times, totals = times - times.mean(), totals - totals.mean()
    slope = times @ totals / (times @ times)
    return Steadiness(float(slope), float(np.sqrt(np.mean((totals - slope * times) ** 2))))


def main(arguments: list[str] | None = None) -> int:
    """Run the dynamics; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = parser().parse_args(arguments)
    return exit_code(lambda: _run(chosen))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.dynamics",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted.",
    )
    add = made.add_argument
    add("model", type=Path, help="runs/studies/NAME, or runs/work/trial-…")
    add("structure", type=Path, help="a file that ASE reads, of which the first structure moves")
    add("--out", type=Path, default=Path("nve.csv"), help="energies; must not exist yet")
    add("--picoseconds", type=float, default=2.0, help="length of the run")
    add("--timestep", type=float, default=0.5, help="fs")
    add("--temperature", type=float, default=300.0, help="of the first velocities, K")
    add("--seed", type=int, default=0, help="of the first velocities")
    add("--device", default="cpu", help="cpu or cuda")
    return made


def _run(chosen: argparse.Namespace) -> None:
    steps = _steps(chosen)
    if chosen.out.exists():
        raise UserError(f"--out {chosen.out}: must not exist yet; remove it, or name another file")
    from study.predict import read_structures

    atoms = read_structures(chosen.structure)[0]
    if len(atoms) < 2:
        raise UserError(f"{chosen.structure}: must hold at least two atoms, but holds one")
    from study.calculator import StudyCalculator

    calculator = StudyCalculator(chosen.model, chosen.device)
    trained = calculator.potential.trained
    if not calculator.potential.model.conservative:
        raise UserError(
            f"{trained.label}: its forces are no gradient of its energy, so that dynamics conserve "
            "nothing; take a conservative model, such as egnn"
        )
    sys.stderr.write(f"model: {trained.label}\n{_remark(trained)}")
    atoms.calc = calculator
    thermalize(atoms, chosen.temperature, chosen.seed)
    moments = []
    every = math.ceil(steps / MOST_ROWS)
    with progress_display("dynamics", "steps", sys.stderr) as progress:
        for step, moment in enumerate(nve(atoms, chosen.timestep, steps)):
            if not math.isfinite(moment.total):
                raise UserError(
                    f"{chosen.structure}: the energy is not finite any more after {moment.time:g} "
                    "ps; take a shorter --timestep, or a model that knows such structures"
                )
            if step % every == 0:
                moments.append(moment)
                progress(step, steps)
    _write(chosen.out, moments, len(atoms))
    found, mean = steadiness(moments, len(atoms)), sum(m.kinetic for m in moments) / len(moments)
    sys.stdout.write(
        f"{moments[-1].time:g} ps of {len(atoms)} atoms in steps of {chosen.timestep:g} fs: total "
        f"energy drifts by {found.drift:.3g} meV/atom/ps and fluctuates by "
        f"{found.fluctuation:.3g} meV/atom; mean temperature {temperature_of(mean, len(atoms)):.0f}"
        f" K\npython -m analysis.dynamics {chosen.out}\n"
    )


def _steps(chosen: argparse.Namespace) -> int:
    for name in ("picoseconds", "timestep", "temperature"):
        value = getattr(chosen, name)
        if not 0 < value < math.inf:
            raise UserError(f"--{name}: must be above 0, but got {value}")
    if chosen.seed < 0:
        raise UserError(f"--seed: must be at least 0, but got {chosen.seed}")
    steps: int = round(1000 * chosen.picoseconds / chosen.timestep)
    if steps < 2:
        raise UserError(
            f"--picoseconds: must be at least two steps of --timestep {chosen.timestep:g} fs, but "
            f"got {chosen.picoseconds:g}"
        )
    return steps


def _remark(trained: Trained) -> str:
    """What dynamics with this model leave out."""
    from study.trial import TIP3PWater

    dataset = trained.work.trial.dataset
    if not isinstance(dataset, TIP3PWater) or dataset.flexible:
        return ""
    return (
        "warning: the labels of rigid water hold no forces within molecules, which fall apart "
        "without constraints; train on `flexible: true` for dynamics\n"
    )


def _write(path: Path, moments: Sequence[Moment], atoms: int) -> None:
    """A row per moment: ps, eV, eV per atom, K."""
    from study.durable import write_bytes

    lines = ["time,total,kinetic,potential,total_per_atom,temperature"]
    for moment in moments:
        values = (moment.time, moment.total, moment.kinetic, moment.potential)
        derived = (moment.total / atoms, temperature_of(moment.kinetic, atoms))
        lines.append(",".join(repr(float(value)) for value in (*values, *derived)))
    write_bytes(path, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
