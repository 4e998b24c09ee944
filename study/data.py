# PYTHON_ARGCOMPLETE_OK
"""Make, fetch, import, look at, verify, split or export data: `python -m study.data inspect SET`.

SET is a folder of OUT/data, where a study with the same --out finds it, or a file or folder that
can be read: input.data of n2p2, extxyz or what else ASE reads, DeePMD npy systems, npz files of
GAMD or MD17, HDF5 files of ANI-1x or SPICE.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from study.commands import reading_options
from study.commands.data_options import (
    DataOptions,
    ExportOptions,
    FetchOptions,
    ImportOptions,
    InspectOptions,
    LabelOptions,
    SampleOptions,
    SimulateOptions,
    SplitOptions,
    VerifyOptions,
)
from study.console.command_line import parse
from study.core.errors import exit_code
from study.core.paths import data_of, path_of, root_of
from study.core.provenance import cores
from study.datasets.sizes import SplitBy
from study.datasets.sources.catalog import SETS


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = vars(parse(parser(), arguments))
    options: DataOptions = chosen.pop("options")(**chosen)
    interrupted = "interrupted; run again to go on from what is there\n"
    return exit_code(lambda: _run(options), interrupted)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m study.data", description=__doc__)
    commands = made.add_subparsers(required=True)
    _add_tip3p(commands.add_parser("tip3p", help="simulate TIP3P water with OpenMM"))
    _add_fetch_and_import(commands)
    _add_label_and_sample(commands)
    _add_inspect_and_verify(commands)
    _add_split(commands.add_parser("split", help="write train, validation and test as extxyz"))
    _add_export(commands.add_parser("export", help="write a set as extxyz"))
    return made


def _add_tip3p(tip3p: argparse.ArgumentParser) -> None:
    tip3p.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    tip3p.set_defaults(options=SimulateOptions)
    tip3p.add_argument("--molecules", type=int, default=258, help="at the paper's density")
    tip3p.add_argument("--trajectories", type=int, default=10, help="independent simulations")
    tip3p.add_argument("--frames", type=int, default=1000, help="of each, 0.1 ps apart")
    tip3p.add_argument("--temperature", type=float, default=300.0, help="K")
    tip3p.add_argument("--flexible", action="store_true", help="bonds and angles swing")
    tip3p.add_argument("--seed", type=int, default=0, help="another one makes an independent set")
    tip3p.add_argument("--out", type=root_of, default=Path("runs"), help="made in OUT/data")
    tip3p.add_argument("--workers", type=int, default=cores(), help="cores to use")


def _add_fetch_and_import(commands: Any) -> None:
    fetch = commands.add_parser("fetch", help="download a published data set")
    fetch.set_defaults(options=FetchOptions)
    fetch.add_argument("name", metavar="NAME", help=f"rpbe, {', '.join(SETS)}")
    bring = commands.add_parser("import", help="read files of n2p2, ASE, DeePMD, GAMD, MD17, SPICE")
    bring.set_defaults(options=ImportOptions)
    bring.add_argument(
        "file",
        type=data_of,
        help="*.data of n2p2, *.npz, *.h5, a folder of them, or what ASE reads",
    )
    for command in (fetch, bring):
        command.add_argument("--out", type=root_of, default=Path("runs"), help="default: runs")
    bring.add_argument("--workers", type=int, default=cores(), help="cores that read large files")
    reading_options.add_options(bring)


def _add_label_and_sample(commands: Any) -> None:
    """Add `label` and `sample` to the commands of a parser."""
    label = commands.add_parser("label", help="label a set with an ASE calculator")
    sample = commands.add_parser("sample", help="make frames by dynamics with an ASE calculator")
    for command in (label, sample):
        command.formatter_class = argparse.ArgumentDefaultsHelpFormatter
        command.add_argument("set", type=data_of, metavar="SET", help="or g2, ASE's molecules")
        command.add_argument(
            "--calculator",
            required=True,
            help="GFN2-xTB, GFN1-xTB, or MODULE:FACTORY or FILE.py:FACTORY of an ASE calculator",
        )
        command.add_argument(
            "--out", type=path_of, required=True, help="*.extxyz; must not exist yet"
        )
        command.add_argument("--atoms", default="1-1000000", help="only structures of this size")
        command.add_argument("--elements", help="only of these elements, such as H,C,N,O")
        command.add_argument("--workers", type=int, default=cores(), help="cores to use")
    label.set_defaults(options=LabelOptions)
    sample.set_defaults(options=SampleOptions)
    sample.add_argument("--frames", type=int, default=20, help="of each structure; 1 relaxes it")
    sample.add_argument("--temperature", type=float, default=300.0, help="K")
    sample.add_argument("--spacing", type=float, default=25.0, help="fs between frames")
    sample.add_argument("--seed", type=int, default=0, help="of velocities and heat bath")


def _add_inspect_and_verify(commands: Any) -> None:
    inspect = commands.add_parser("inspect", help="what a data set holds, and what looks wrong")
    inspect.set_defaults(options=InspectOptions)
    inspect.add_argument("set", type=data_of, metavar="SET")
    reading_options.add_options(inspect)
    verify = commands.add_parser("verify", help="check every stored set, or those named")
    verify.set_defaults(options=VerifyOptions)
    verify.add_argument("set", type=data_of, nargs="*")
    verify.add_argument("--out", type=root_of, default=Path("runs"), help="default: runs")


def _add_split(divide: argparse.ArgumentParser) -> None:
    divide.set_defaults(options=SplitOptions)
    divide.add_argument("set", type=data_of, metavar="SET")
    reading_options.add_options(divide)
    divide.add_argument("folder", type=path_of, help="for the three files; must not exist yet")
    divide.add_argument("--by", choices=get_args(SplitBy), default="trajectory")
    divide.add_argument(
        "--test", type=portion, default=0.1, help="fraction, or number (default: 0.1)"
    )
    divide.add_argument(
        "--validation", type=portion, default=0.1, help="of the rest, or number (default: 0.1)"
    )
    divide.add_argument("--seed", type=int, default=0, help="that of a trial gives its split")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.set_defaults(options=ExportOptions)
    export.add_argument("set", type=data_of, metavar="SET")
    reading_options.add_options(export)
    export.add_argument("file", type=path_of, help="*.extxyz; must not exist yet")
    export.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th frame")


def portion(text: str) -> float:
    """A fraction, or a whole number as such."""
    return int(text) if text.isdecimal() else float(text)


def _run(options: DataOptions) -> None:
    # Help appears without what this imports.
    from study.commands.data import run

    run(options)


if __name__ == "__main__":
    sys.exit(main())
