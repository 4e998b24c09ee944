# PYTHON_ARGCOMPLETE_OK
"""Does code of your own keep what studies rely on? `python -m study.check my_model.py`.

Every model, pretraining task, data set and sampler is checked that the file, or the installed
module, defines by a class derived from `ModelConfig`, `TaskConfig`, `DatasetConfig` or
`SamplerConfig` of `study.plugins`, whose settings all have defaults.
"""

from __future__ import annotations

import argparse
import sys

from study.console.command_line import parse
from study.core.errors import exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m study.check",
        description=__doc__,
        epilog="Exit codes: 0 all is well, 1 a check failed, 2 nothing to check.",
    )
    made.add_argument("code", help="a Python file, or the name of an installed module")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Check; 0 if all is well, 1 if something is not, 2 if there is nothing to check."""
    options = parse(parser(), arguments)
    return exit_code(lambda: _check(options.code))


def _check(code: str) -> int:
    # Help appears without what this imports.
    from study.commands.check import check

    return check(code)


if __name__ == "__main__":
    sys.exit(main())
