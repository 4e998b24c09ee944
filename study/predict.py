# PYTHON_ARGCOMPLETE_OK
"""What a study's models predict of structures: `python -m study.predict MODEL [structure.extxyz]`.

MODEL is a study's folder, for its best trial by validation, or the folder of one trial in `work`:
energies, forces and stresses (of periodic structures, if forces are the gradient of the energy;
with ASE's sign and order), or the number that it learned with `task: {name: scalar}`, in its unit.
Without structures, all completed trials of the study predict their test frames, into
`predictions.npz` beside their weights.
"""

from __future__ import annotations

import argparse
import sys

from study.commands.options import PredictOptions
from study.console.command_line import add_trust, parse
from study.core.errors import exit_code
from study.core.paths import data_of, path_of
from study.inference.structures import read_structures


def main(arguments: list[str] | None = None) -> int:
    """Predict; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    options = PredictOptions(**vars(parse(parser(), arguments)))
    return exit_code(lambda: _run(options))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.predict",
        description=__doc__,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted. In Python, "
        "`study.inference.ase_calculator.StudyCalculator` is an ASE calculator.",
    )
    add = made.add_argument
    add("model", type=path_of, help="runs/studies/NAME, or runs/work/trial-…")
    add("structures", type=data_of, nargs="?", help="a file that ASE reads: extxyz, cif, POSCAR, …")
    add("--out", type=path_of, help="write structures with what is predicted, in extxyz")
    add(
        "--export",
        type=path_of,
        help="write the model as a torch.export program (conservative ones)",
    )
    add("--log", action="store_true", help="log the model to its run in MLflow")
    add("--register", metavar="NAME", help="log it, as a new version of this registered model")
    add("--tracking-uri", metavar="URI", help="MLflow for --log; default: as the study records it")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add(
        "--precision",
        choices=["float32", "float64"],
        default="float32",
        help="default: float32, as in training",
    )
    add("--json", action="store_true", help="print one JSON line per structure")
    add_trust(made)
    return made


def _run(options: PredictOptions) -> None:
    options.check()
    structures = read_structures(options.structures) if options.structures else None
    # Help, and what is wrong with files, appear without what this imports.
    from study.commands.predict import predict

    predict(options, structures)


if __name__ == "__main__":
    sys.exit(main())
