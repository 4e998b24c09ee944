"""What `python -m study.dynamics` computes, writes and shows."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from study.commands.options import DynamicsOptions
from study.console.command_line import may_run
from study.console.progress_bar import progress_display
from study.core.atomic_io import write_bytes
from study.core.errors import UserError
from study.core.paths import follow_links
from study.inference.ase_calculator import StudyCalculator
from study.inference.nve import (
    EnergySample,
    fit_energy_drift,
    run_nve,
    temperature_of,
    thermalize,
)
from study.inference.trained_model import TrainedTrial, resolve_trained_model
from study.space.plugin_configs import accept_code

MAX_ROWS = 5000
"""A long run keeps only so many moments, equally spaced."""


def move(atoms: Atoms, options: DynamicsOptions) -> None:
    """Run dynamics at constant energy, write its energies and show how well they are kept.

    Args:
        atoms: where they begin, at least two.
        options: the command line.

    Raises:
        UserError: if the model or structure admits no such dynamics.
    """
    atoms.calc = _conservative_calculator(options)
    trained = atoms.calc.potential.trained
    sys.stderr.write(f"model: {trained.label}\n{_remark(trained)}")
    thermalize(atoms, options.temperature, options.seed)
    moments = _run(atoms, options)
    _write(options.out, moments, len(atoms))
    _show(moments, len(atoms), options)


def _conservative_calculator(options: DynamicsOptions) -> StudyCalculator:
    trained = resolve_trained_model(options.model)
    accept_code(trained.job.to_json(), trained.root, may_run(trust=options.trust))
    calculator = StudyCalculator(options.model, options.device)
    if not calculator.potential.model.conservative:
        raise UserError(
            f"{calculator.potential.trained.label}: its forces are no gradient of its energy, so "
            "that dynamics conserve nothing; take a conservative model, such as egnn"
        )
    return calculator


def _run(atoms: Atoms, options: DynamicsOptions) -> list[EnergySample]:
    moments: list[EnergySample] = []
    every = math.ceil(options.steps / MAX_ROWS)
    with progress_display("dynamics", "steps", sys.stderr) as progress:
        for step, moment in enumerate(run_nve(atoms, options.timestep, options.steps)):
            if not math.isfinite(moment.total):
                raise UserError(
                    f"{options.structure}: the energy is not finite any more after "
                    f"{moment.time:g} ps; take a shorter --timestep, or a model that knows such "
                    "structures"
                )
            if step % every == 0:
                moments.append(moment)
                progress(step, options.steps)
    return moments


def _show(moments: Sequence[EnergySample], atoms: int, options: DynamicsOptions) -> None:
    fit = fit_energy_drift(moments, atoms)
    mean = sum(moment.kinetic for moment in moments) / len(moments)
    sys.stdout.write(
        f"{moments[-1].time:g} ps of {atoms} atoms in steps of {options.timestep:g} fs: total "
        f"energy drifts by {fit.drift:.3g} meV/atom/ps and fluctuates by "
        f"{fit.fluctuation:.3g} meV/atom; mean temperature {temperature_of(mean, atoms):.0f}"
        f" K\npython -m analysis.dynamics {options.out}\n"
    )


def _remark(trained: TrainedTrial) -> str:
    """What dynamics with this model leave out."""
    if not trained.job.trial.dataset.rigid:
        return ""
    return (
        "warning: the labels of rigid water hold no forces within molecules, which fall apart "
        "without constraints; train on `flexible: true` for dynamics\n"
    )


def _write(path: Path, moments: Sequence[EnergySample], atoms: int) -> None:
    """A row per moment: ps, eV, eV per atom, K."""
    lines = ["time,total,kinetic,potential,total_per_atom,temperature"]
    for moment in moments:
        values = (moment.time, moment.total, moment.kinetic, moment.potential)
        derived = (moment.total / atoms, temperature_of(moment.kinetic, atoms))
        lines.append(",".join(repr(float(value)) for value in (*values, *derived)))
    write_bytes(follow_links(path), ("\n".join(lines) + "\n").encode())
