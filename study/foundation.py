# PYTHON_ARGCOMPLETE_OK
"""Convert a foundation model that mace-torch saved: `python -m study.foundation FILE.model`.

A `.model` file is a pickle, which can run any code when it is read; this command reads it once, if
you trust it, and writes weights and settings as safetensors, which can run none. A space starts
from that file with `pretrain: {from: FILE.safetensors, package: mace}`.
"""

from __future__ import annotations

import argparse
import sys

from study.commands.foundation import FoundationOptions, convert
from study.console.command_line import add_trust, may_run, parse
from study.core.errors import exit_code
from study.core.paths import path_of


def main(arguments: list[str] | None = None) -> int:
    """Convert; 0 is success, 2 something the user can mend, 130 Ctrl-C."""
    chosen = vars(parse(parser(), arguments))
    out = chosen.pop("out") or chosen["file"].with_suffix(".safetensors")
    options = FoundationOptions(out=out, **chosen)
    return exit_code(lambda: convert(options, may_run(trust=options.trust)))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.foundation",
        description=__doc__,
        epilog="Exit codes: 0 done, 2 bad input, 130 interrupted.",
    )
    add = made.add_argument
    add("file", type=path_of, help="as `mace_run_train` saves it")
    add("--out", type=path_of, help="default: FILE.safetensors; must not exist yet")
    add(
        "--trained-on",
        default="",
        metavar="TEXT",
        help="what it learned, which reports repeat, such as a data set with its number of frames",
    )
    add("--head", metavar="NAME", help="which head to keep, if it has several")
    add_trust(made)
    return made


if __name__ == "__main__":
    sys.exit(main())
