"""ASE calculators that label structures: those with a name here, and the user's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from study.core.errors import UserError

XTB = ("GFN2-xTB", "GFN1-xTB")
"""Teachers with a name: extended tight binding (doi:10.1021/acs.jctc.8b01176) through tblite."""


def make_calculator(teacher: str) -> Any:
    """A new ASE calculator.

    Raises:
        UserError: if it cannot be made.
    """
    if teacher in XTB:
        try:
            return import_module("tblite.ase").TBLite(method=teacher, verbosity=0)
        except ImportError as problem:
            raise UserError(
                f"{teacher} is computed by tblite ({problem}); pip install tblite"
            ) from None
    try:
        return _factory(teacher)()
    # Whatever the user's code raises.
    except Exception as problem:
        raise UserError(
            f"--calculator: must be {' or '.join(XTB)}, or MODULE:FACTORY or FILE.py:FACTORY, a "
            f"function that makes an ASE calculator, but {teacher!r} gives "
            f"{type(problem).__name__}: {problem}"
        ) from None


def _factory(teacher: str) -> Callable[[], Any]:
    place, _, name = teacher.rpartition(":")
    if not place.endswith(".py"):
        return getattr(import_module(place), name)  # type: ignore[no-any-return]
    specification = spec_from_file_location("teacher", place)
    if specification is None or specification.loader is None:
        raise ImportError(f"no such file: {place}")
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]


def source_of(teacher: str) -> str:
    """The file of a teacher of the user's own: when it changes, its pieces are made again."""
    place = teacher.rpartition(":")[0]
    return Path(place).read_text() if place.endswith(".py") else ""
