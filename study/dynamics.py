# PYTHON_ARGCOMPLETE_OK
"""Dynamics at constant energy with a study's model: `python -m study.dynamics MODEL water.extxyz`.

How well the total energy stays what it was tells whether the forces are its gradient, and whether
the timestep is short enough. `python -m analysis.dynamics nve.csv` draws the energies.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.console.command_line import parse
from study.console.progress_bar import progress_display
from study.core.errors import UserError, exit_code
from study.inference.nve import (
    EnergySample,
    fit_energy_drift,
    run_nve,
    temperature_of,
    thermalize,
)

if TYPE_CHECKING:
    from study.inference.trained_model import TrainedTrial

# Nothing heavy is imported before it is needed, so that help appears at once.

MOST_ROWS = 5000
"""Of a long run only so many moments are kept, equally spaced."""


def main(arguments: list[str] | None = None) -> int:
    """Run the dynamics; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = parse(parser(), arguments)
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
    from study.inference.structures import read_structures

    atoms = read_structures(chosen.structure)[0]
    if len(atoms) < 2:
        raise UserError(f"{chosen.structure}: must hold at least two atoms, but holds one")
    from study.inference.ase_calculator import StudyCalculator

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
        for step, moment in enumerate(run_nve(atoms, chosen.timestep, steps)):
            if not math.isfinite(moment.total):
                raise UserError(
                    f"{chosen.structure}: the energy is not finite any more after {moment.time:g} "
                    "ps; take a shorter --timestep, or a model that knows such structures"
                )
            if step % every == 0:
                moments.append(moment)
                progress(step, steps)
    _write(chosen.out, moments, len(atoms))
    fit, mean = (
        fit_energy_drift(moments, len(atoms)),
        sum(m.kinetic for m in moments) / len(moments),
    )
    sys.stdout.write(
        f"{moments[-1].time:g} ps of {len(atoms)} atoms in steps of {chosen.timestep:g} fs: total "
        f"energy drifts by {fit.drift:.3g} meV/atom/ps and fluctuates by "
        f"{fit.fluctuation:.3g} meV/atom; mean temperature {temperature_of(mean, len(atoms)):.0f}"
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


def _remark(trained: TrainedTrial) -> str:
    """What dynamics with this model leave out."""
    from study.datasets.config import TIP3PWater

    dataset = trained.job.trial.dataset
    if not isinstance(dataset, TIP3PWater) or dataset.flexible:
        return ""
    return (
        "warning: the labels of rigid water hold no forces within molecules, which fall apart "
        "without constraints; train on `flexible: true` for dynamics\n"
    )


def _write(path: Path, moments: Sequence[EnergySample], atoms: int) -> None:
    """A row per moment: ps, eV, eV per atom, K."""
    from study.core.atomic_io import write_bytes

    lines = ["time,total,kinetic,potential,total_per_atom,temperature"]
    for moment in moments:
        values = (moment.time, moment.total, moment.kinetic, moment.potential)
        derived = (moment.total / atoms, temperature_of(moment.kinetic, atoms))
        lines.append(",".join(repr(float(value)) for value in (*values, *derived)))
    write_bytes(path, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
