# PYTHON_ARGCOMPLETE_OK
"""Does code of your own keep what studies rely on? `python -m study.check my_model.py`.

Every model, pretraining task and data set is checked that the file, or the installed module,
defines by a class derived from `study.plugins.Model`, `study.plugins.Task` or
`study.plugins.DataSet`, whose settings all have defaults.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from study.console.command_line import parse
from study.core.errors import UserError, exit_code

if TYPE_CHECKING:
    from study.core.config import Plugin

# Nothing heavy is imported before it is needed, so that help appears at once.

SMALL = {"hidden": 8, "layers": 2}
"""Settings of a checked model, so that all checks take seconds."""


def subjects(code: str) -> list[Plugin]:
    """What a file or module defines, with small settings.

    Raises:
        UserError: if it cannot be run, defines nothing, or a setting has no default.
    """
    from pydantic import ValidationError

    from study.core import user_code
    from study.models.config import Model
    from study.space.plugin_configs import SHIPPED

    found = []
    for kind in user_code.classes(user_code.load(code)[0]):
        name = user_code.name_of(kind, code, SHIPPED)
        small = SMALL if issubclass(kind, Model) else {}
        try:
            found.append(kind.model_validate(small | {"name": name}))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{code}: {kind.__name__}.{place}: {first['msg']}; give a default"
            ) from None
    if not found:
        raise UserError(
            f"{code}: must define a class derived from `study.plugins.Model`, `study.plugins.Task` "
            "or `study.plugins.DataSet`, but has none"
        )
    return found


def examine(subject: Plugin) -> Iterator[tuple[str, str]]:
    """Name of every check, and what is wrong; empty if nothing is."""
    from study.checks import dataset_contract, model_contract, task_contract
    from study.datasets.config import DataSet
    from study.models.config import Model
    from study.tasks.config import Task

    match subject:
        case Model():
            return model_contract.examine(subject.build, subject)
        case Task():
            return task_contract.examine(subject.build)
        case DataSet():
            return dataset_contract.examine(subject.build)
        case _:
            raise TypeError(f"{subject!r} is no model, task or data set")


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
    chosen = parse(parser(), arguments)
    return exit_code(lambda: int(sum(map(_check, subjects(chosen.code))) > 0))


def _check(subject: Plugin) -> int:
    """Show what the checks say; how many failed."""
    from study.datasets.config import DataSet

    failed = 0
    for name, problem in examine(subject):
        failed += bool(problem)
        sys.stdout.write(f"{'failed' if problem else 'ok':<7} {name}\n")
        sys.stdout.write(f"        {problem}\n" if problem else "")
    if isinstance(subject, DataSet) and not failed:
        from study.datasets.diagnostics import warnings

        for line in warnings(subject.build()):
            sys.stdout.write(f"warning {line}\n")
    kind = type(subject).__name__
    sys.stdout.write(f"{kind}: {failed} failed\n" if failed else f"{kind}: ok\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
