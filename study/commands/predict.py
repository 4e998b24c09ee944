"""What `python -m study.predict` predicts, writes and shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from study.commands.options import PredictOptions
from study.console.command_line import may_run
from study.console.formatting import counted, relative_to_cwd
from study.core.atomic_io import write_with
from study.core.errors import UserError
from study.core.paths import follow_links, real_path
from study.datasets.parsing.stress import TO_VOIGT, VOIGT
from study.inference.overlap import overlap_warning
from study.inference.predictor import TrainedPotential, TrainedScalar, unlabelled
from study.inference.test_predictions import predict_study
from study.inference.torch_export import export
from study.inference.trained_model import TrainedTrial, resolve_trained_model
from study.planning.study_dir import StudyDir
from study.space.plugin_configs import accept_code
from study.tracking.model_registry import log_model

MOST_LINES = 10
"""Of structures that are shown if a file has all."""


def predict(options: PredictOptions, structures: list[Atoms] | None) -> None:
    """Log the model, or predict structures or, without them, the trials' test frames.

    Args:
        options: the command line.
        structures: what its file holds.

    Raises:
        UserError: if there is no such model, or it does not know such structures.
    """
    logged = options.log or bool(options.register)
    if logged:
        _log(options)
    if structures is not None:
        _predict_structures(options, structures)
    elif not logged:
        paths = predict_study(options.model, options.device, may_run(trust=options.trust))
        places = relative_to_cwd(paths[0].parent.parent) / "trial-*" / paths[0].name
        sys.stdout.write(f"predictions of {counted(len(paths), 'trial')}: {places}\n")


def _log(options: PredictOptions) -> None:
    folder = real_path(options.model)
    if not (folder / "study.json").exists():
        raise UserError(f"{options.model}: --log and --register take the folder of a study")
    trained = _accepted(folder, options)
    study = StudyDir(folder.parent.parent, folder.name)
    uri = log_model(trained, study, options.register, options.tracking_uri)
    sys.stdout.write(f"{trained.label}\nmlflow.pyfunc.load_model({uri!r})\n")


def _accepted(model: Path, options: PredictOptions) -> TrainedTrial:
    """The trained model, whose code may run."""
    trained = resolve_trained_model(model)
    accept_code(trained.job.to_json(), trained.root, may_run(trust=options.trust))
    return trained


def _predict_structures(options: PredictOptions, structures: list[Atoms]) -> None:
    trained = _accepted(options.model, options)
    sys.stderr.write(f"model: {trained.label}\n")
    if trained.outdated:
        sys.stderr.write(
            "warning: trained by another version of the code or of torch; predictions may differ "
            "from those tested\n"
        )
    if told := overlap_warning(trained, unlabelled(structures)):
        sys.stderr.write(f"{told}\n")
    if not trained.job.trial.finetune.task.trains_potential:
        _predict_scalars(options, trained, structures)
    else:
        _predict_forces(options, trained, structures)


def _predict_forces(
    options: PredictOptions, trained: TrainedTrial, structures: list[Atoms]
) -> None:
    """Predict energies, forces and stresses, in eV, eV/Å and eV/Å³."""
    potential = TrainedPotential(trained, options.device, options.precision)
    rows = [
        {"frame": number, "energy": each.energy, "forces": each.forces.tolist()}
        | ({} if each.stress is None else {"stress": each.stress[TO_VOIGT].tolist()})
        for number, each in enumerate(potential.predict(structures))
    ]
    _say_what_has_no_stress(potential, rows)
    if options.export:
        export(potential, structures[0], options.export)
    if options.out:
        _write(options.out, structures, rows)
    if options.json:
        _print_lines(rows)
    else:
        _show(rows, structures, options.out)


def _say_what_has_no_stress(potential: TrainedPotential, rows: list[dict[str, Any]]) -> None:
    absent = sum("stress" not in row for row in rows)
    if not potential.model.gives_stress:
        name = potential.trained.job.trial.model.name
        sys.stderr.write(f"no stress: forces of {name} are not the gradient of its energy\n")
    elif absent:
        sys.stderr.write(
            f"no stress of {absent} of {len(rows)} structures, which are not periodic along all "
            "three vectors\n"
        )


def _predict_scalars(
    options: PredictOptions, trained: TrainedTrial, structures: list[Atoms]
) -> None:
    """Predict a number of each structure; its name and unit stand with it."""
    if options.export:
        raise UserError("--export: takes models of energies and forces; leave it out")
    model = TrainedScalar(trained, options.device, options.precision)
    name, values = model.settings.target, list(model.predict(structures))
    if options.out:
        _write_scalars(options.out, structures, name, values, model.unit)
    if options.json:
        rows = [{"frame": n, name: value, "unit": model.unit} for n, value in enumerate(values)]
        _print_lines(rows)
    else:
        _show_scalars(structures, name, values, model.unit, options.out)


def _print_lines(rows: list[dict[str, Any]]) -> None:
    sys.stdout.write("".join(f"{json.dumps(row)}\n" for row in rows))


def _write(path: Path, structures: list[Atoms], rows: list[dict[str, Any]]) -> None:
    names = ("energy", "forces", "stress")
    labels = [{name: row[name] for name in names if name in row} for row in rows]
    _write_extxyz(path, [_labelled(*each) for each in zip(structures, labels, strict=True)])


def _write_scalars(
    path: Path, structures: list[Atoms], name: str, values: list[float], unit: str
) -> None:
    """A property beside the frame, where `ase_file` reads it; the energy as ASE's own label."""
    written = []
    for atoms, value in zip(structures, values, strict=True):
        made = _labelled(atoms, {"energy": value} if name == "energy" else {})
        made.info |= {f"{name}_unit": unit} | ({} if name == "energy" else {name: value})
        written.append(made)
    _write_extxyz(path, written)


def _labelled(atoms: Atoms, labels: dict[str, Any]) -> Atoms:
    """A copy with these labels and no others."""
    made: Atoms = atoms.copy()  # type: ignore[no-untyped-call]
    if labels:
        made.calc = SinglePointCalculator(made, **labels)  # type: ignore[no-untyped-call]
    return made


def _write_extxyz(path: Path, content: list[Atoms]) -> None:
    write_with(follow_links(path), lambda temporary: write(temporary, content, format="extxyz"))


def _show_lines(lines: list[str], out: Path | None) -> None:
    """All of them, or the first ones and where the file is that has all."""
    shown = lines if out is None else lines[:MOST_LINES]
    sys.stdout.write("".join(shown))
    if len(lines) > len(shown):
        sys.stdout.write(f"and {len(lines) - len(shown)} more\n")
    if out is not None:
        sys.stdout.write(f"written: {relative_to_cwd(out)}\n")


def _show_scalars(
    structures: list[Atoms], name: str, values: list[float], unit: str, out: Path | None
) -> None:
    """A line per structure; the errors too, if the file has the same number."""
    width = max(18, len(f"{name} {unit}") + 2)
    sys.stdout.write(f"{'frame':>6}{'atoms':>7}{f'{name} {unit}':>{width}}\n")
    lines = [
        f"{number:>6}{len(atoms):>7}{value:>{width}.6f}\n"
        for number, (atoms, value) in enumerate(zip(structures, values, strict=True))
    ]
    _show_lines(lines, out)
    labels = [_label(atoms, name) for atoms in structures]
    if not np.isfinite(labels).all():
        return
    off = np.array(values) - labels
    sys.stdout.write(
        f"against the file's labels: {name} MAE {np.abs(off).mean():.4g} {unit}, RMSE "
        f"{_rms(off):.4g} {unit}\n"
    )


def _label(atoms: Atoms, name: str) -> float:
    """What the file says of a structure; NaN if it does not."""
    labels = atoms.calc.results if name == "energy" and atoms.calc else atoms.info
    value = labels.get(name)
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _show(rows: list[dict[str, Any]], structures: list[Atoms], out: Path | None) -> None:
    """A line per structure; the errors too, of what the file has of energies and forces."""
    sys.stdout.write(f"{'frame':>6}{'atoms':>7}{'energy eV':>18}{'largest force eV/Å':>20}\n")
    largest = [np.linalg.norm(row["forces"], axis=1).max() for row in rows]
    lines = [
        f"{row['frame']:>6}{len(atoms):>7}{row['energy']:>18.6f}{force:>20.4f}\n"
        for row, atoms, force in zip(rows, structures, largest, strict=True)
    ]
    _show_lines(lines, out)
    errors = [
        f"{name} {1000 * _rms(np.hstack(off)):.4g} {unit}{_of_some(len(off), len(rows))}"
        for name, unit, off in _deviations(rows, structures)
        if off
    ]
    if errors:
        sys.stdout.write(f"against the file's labels: {', '.join(errors)}\n")


def _deviations(
    rows: list[dict[str, Any]], structures: list[Atoms]
) -> list[tuple[str, str, list[Any]]]:
    """What is off, by label with its unit: a deviation for each structure that the file labels."""
    labels = [atoms.calc.results if atoms.calc else {} for atoms in structures]
    pairs = list(zip(rows, labels, structures, strict=True))
    forces = [
        np.ravel(row["forces"] - known["forces"]) for row, known, _ in pairs if "forces" in known
    ]
    energies = [
        (row["energy"] - known["energy"]) / len(atoms)
        for row, known, atoms in pairs
        if "energy" in known
    ]
    # Of all nine components of the matrix, as in training.
    stresses = [
        (row["stress"] - known["stress"])[VOIGT]
        for row, known, _ in pairs
        if "stress" in row and "stress" in known
    ]
    return [
        ("force RMSE", "meV/Å", forces),
        ("energy RMSE", "meV/atom", energies),
        ("stress RMSE", "meV/Å³", stresses),
    ]


def _of_some(known: int, all_: int) -> str:
    return "" if known == all_ else f" of {known} of {all_} frames"


def _rms(values: Any) -> float:
    return float((values**2).mean() ** 0.5)
