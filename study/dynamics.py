# PYTHON_ARGCOMPLETE_OK
"""Dynamics at constant energy with a study's model: `python -m study.dynamics MODEL water.extxyz`.

How well the total energy stays what it was tells whether the forces are its gradient, and whether
the timestep is short enough. `python -m analysis.dynamics nve.csv` draws the energies.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.commands.options import DynamicsOptions
from study.console.command_line import add_trust, parse
from study.core.errors import UserError, exit_code
from study.core.paths import data_of, path_of
from study.inference.structures import read_structures


def main(arguments: list[str] | None = None) -> int:
    """Run the dynamics; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    options = DynamicsOptions(**vars(parse(parser(), arguments)))
    return exit_code(lambda: _run(options))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.dynamics",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted.",
    )
    add = made.add_argument
    add("model", type=path_of, help="runs/studies/NAME, or runs/work/trial-…")
    add("structure", type=data_of, help="a file that ASE reads, of which the first structure moves")
    add("--out", type=path_of, default=Path("nve.csv"), help="energies; must not exist yet")
    add("--picoseconds", type=float, default=2.0, help="length of the run")
    add("--timestep", type=float, default=0.5, help="fs")
    add("--temperature", type=float, default=300.0, help="of the first velocities, K")
    add("--seed", type=int, default=0, help="of the first velocities")
    add("--device", default="cpu", help="cpu or cuda")
    add_trust(made)
    return made


def _run(options: DynamicsOptions) -> None:
    options.check()
    atoms = read_structures(options.structure)[0]
    if len(atoms) < 2:
        raise UserError(f"{options.structure}: must hold at least two atoms, but holds one")
    # Help, and what is wrong with options and file, appear without what this imports.
    from study.commands.dynamics import move

    move(atoms, options)


if __name__ == "__main__":
    sys.exit(main())
