# PYTHON_ARGCOMPLETE_OK
"""What a study's models predict of structures: `python -m study.predict MODEL [structure.extxyz]`.

MODEL is a study's folder, for its best trial by validation, or the folder of one trial in `work`:
energies and forces, or the number that it learned with `task: {name: scalar}`, in its unit.
Without structures, all completed trials of the study predict their test frames, into
`predictions.npz` beside their weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.console.command_line import parse
from study.core.errors import UserError, exit_code
from study.core.paths import real_path
from study.inference.structures import read_structures

if TYPE_CHECKING:
    from ase import Atoms

    from study.inference.predictor import TrainedPotential
    from study.inference.trained_model import TrainedTrial

# Nothing heavy is imported before it is needed, so that help appears at once.


def main(arguments: list[str] | None = None) -> int:
    """Predict; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = parse(parser(), arguments)
    return exit_code(lambda: _run(chosen))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.predict",
        description=__doc__,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted. In Python, "
        "`study.inference.ase_calculator.StudyCalculator` is an ASE calculator.",
    )
    add = made.add_argument
    add("model", type=Path, help="runs/studies/NAME, or runs/work/trial-…")
    add("structures", type=Path, nargs="?", help="a file that ASE reads: extxyz, cif, POSCAR, …")
    add("--out", type=Path, help="write structures with what is predicted, in extxyz")
    add("--export", type=Path, help="write the model as a torch.export program (conservative ones)")
    add("--log", action="store_true", help="log the model to its run in MLflow")
    add("--register", metavar="NAME", help="log it, as a new version of this registered model")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add(
        "--precision",
        choices=["float32", "float64"],
        default="float32",
        help="default: float32, as in training",
    )
    add("--json", action="store_true", help="print one JSON line per structure")
    return made


def _run(chosen: argparse.Namespace) -> None:
    if chosen.log or chosen.register:
        _log(chosen)
    if chosen.structures is None and not (chosen.log or chosen.register):
        _predict_test_frames(chosen)
    if chosen.structures is not None:
        _predict_structures(chosen)


def _predict_test_frames(chosen: argparse.Namespace) -> None:
    from study.inference.test_predictions import predict_study

    paths = predict_study(chosen.model, chosen.device)
    sys.stdout.write(f"predictions of {len(paths)} trials\n")


def _log(chosen: argparse.Namespace) -> None:
    from study.inference.trained_model import resolve_trained_model
    from study.planning.study_dir import StudyDir

    folder = real_path(chosen.model)
    if not (folder / "study.json").exists():
        raise UserError(f"{chosen.model}: --log and --register take the folder of a study")
    trained = resolve_trained_model(folder)
    from study.tracking.model_registry import log_model

    uri = log_model(trained, StudyDir(folder.parent.parent, folder.name), chosen.register)
    sys.stdout.write(f"{trained.label}\nmlflow.pyfunc.load_model({uri!r})\n")


def _predict_structures(chosen: argparse.Namespace) -> None:
    for option, path in (("--out", chosen.out), ("--export", chosen.export)):
        if path and path.exists():
            raise UserError(f"{option} {path}: must not exist yet; remove it, or name another file")
    structures = read_structures(chosen.structures)
    from study.inference.predictor import TrainedPotential
    from study.inference.trained_model import resolve_trained_model

    trained = resolve_trained_model(chosen.model)
    sys.stderr.write(f"model: {trained.label}\n")
    if trained.outdated:
        sys.stderr.write(
            "warning: trained by another version of the code or of torch; predictions may differ "
            "from those tested\n"
        )
    if trained.job.trial.finetune.task.name == "scalar":
        _predict_scalars(chosen, trained, structures)
        return
    potential = TrainedPotential(trained, chosen.device, chosen.precision)
    rows = _rows(potential, structures)
    if chosen.export:
        from study.inference.torch_export import export

        export(potential, structures[0], chosen.export)
    if chosen.out:
        _write(chosen.out, structures, rows)
    if chosen.json:
        _print_lines(rows)
    else:
        _show(rows, structures)


def _predict_scalars(
    chosen: argparse.Namespace, trained: TrainedTrial, structures: list[Atoms]
) -> None:
    """The same for a number of each structure; its name and unit stand with it."""
    from study.inference.predictor import TrainedScalar

    if chosen.export:
        raise UserError("--export: takes models of energies and forces; leave it out")
    model = TrainedScalar(trained, chosen.device, chosen.precision)
    name, values = model.settings.target, list(model.predict(structures))
    if chosen.out:
        _write_scalars(chosen.out, structures, name, values, model.unit)
    if chosen.json:
        rows = [{"frame": n, name: value, "unit": model.unit} for n, value in enumerate(values)]
        _print_lines(rows)
    else:
        _show_scalars(structures, name, values, model.unit)


def _print_lines(rows: list[dict[str, Any]]) -> None:
    sys.stdout.write("".join(f"{json.dumps(row)}\n" for row in rows))


def _rows(potential: TrainedPotential, structures: list[Atoms]) -> list[dict[str, Any]]:
    """Predictions in eV and eV/Å."""
    return [
        {"frame": number, "energy": energy, "forces": forces.tolist()}
        for number, (energy, forces) in enumerate(potential.predict(structures))
    ]


def _write(path: Path, structures: list[Atoms], rows: list[dict[str, Any]]) -> None:
    labels = [{"energy": row["energy"], "forces": row["forces"]} for row in rows]
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
    from ase.calculators.singlepoint import SinglePointCalculator

    made: Atoms = atoms.copy()  # type: ignore[no-untyped-call]
    if labels:
        made.calc = SinglePointCalculator(made, **labels)  # type: ignore[no-untyped-call]
    return made


def _write_extxyz(path: Path, content: list[Atoms]) -> None:
    from ase.io import write

    from study.core.atomic_io import write_with

    write_with(path, lambda temporary: write(temporary, content, format="extxyz"))


def _show_scalars(structures: list[Atoms], name: str, values: list[float], unit: str) -> None:
    """A line per structure; the errors too, if the file has the same number."""
    import numpy as np

    width = max(18, len(f"{name} {unit}") + 2)
    sys.stdout.write(f"{'frame':>6}{'atoms':>7}{f'{name} {unit}':>{width}}\n")
    for number, (atoms, value) in enumerate(zip(structures, values, strict=True)):
        sys.stdout.write(f"{number:>6}{len(atoms):>7}{value:>{width}.6f}\n")
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
    import numpy as np

    labels = atoms.calc.results if name == "energy" and atoms.calc else atoms.info
    value = labels.get(name)
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _show(rows: list[dict[str, Any]], structures: list[Atoms]) -> None:
    """A line per structure; the errors too, of what the file has of energies and forces."""
    import numpy as np

    sys.stdout.write(f"{'frame':>6}{'atoms':>7}{'energy eV':>18}{'largest force eV/Å':>20}\n")
    for row, atoms in zip(rows, structures, strict=True):
        largest = np.linalg.norm(row["forces"], axis=1).max()
        sys.stdout.write(
            f"{row['frame']:>6}{len(atoms):>7}{row['energy']:>18.6f}{largest:>20.4f}\n"
        )
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
    found = {"force RMSE": (forces, "meV/Å"), "energy RMSE": (energies, "meV/atom")}
    errors = [
        f"{name} {1000 * _rms(np.hstack(off)):.4g} {unit}{_of_some(len(off), len(rows))}"
        for name, (off, unit) in found.items()
        if off
    ]
    if errors:
        sys.stdout.write(f"against the file's labels: {', '.join(errors)}\n")


def _of_some(known: int, all_: int) -> str:
    return "" if known == all_ else f" of {known} of {all_} frames"


def _rms(values: Any) -> float:
    return float((values**2).mean() ** 0.5)


if __name__ == "__main__":
    sys.exit(main())
