"""Figures of the user's own: a Python file whose function `figure` takes a study's tables.

What the user names is run. What lies beside results, which may be somebody else's, is run only if
this user has named that very content before; see `study.core.trust`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from analysis.comparisons.arms import arms
from analysis.comparisons.error_tables import final_errors
from analysis.figures.style import STYLE, Drawing, slug
from analysis.records.study_tables import Study
from study.core.errors import UserError
from study.core.hashing import file_hash
from study.core.trust import is_accepted
from study.core.user_code import load
from study.core.user_traceback import described

BESIDE = "figures.py"
"""The file beside a study that each of its reports draws."""


@dataclass(frozen=True)
class Tables:
    """What a figure is drawn from.

    Args:
        name: of the study.
        trials: a row per trial: `arm`, every setting, final errors, status.
        curves: a row per epoch and metric: `arm`, key, run_id, stage, epoch, metric, value.
        changes: a row per error and arm: mean, std, and its change against its reference with the
            interval and verdict of the report.
        units: of the columns of `trials` that have one; energies in eV, lengths in Å.
    """

    name: str
    trials: pd.DataFrame
    curves: pd.DataFrame
    changes: pd.DataFrame
    units: dict[str, str]


def tables_of(study: Study) -> Tables:
    """The tables of a study, as copies that may be changed."""
    trials = arms(study)
    by_run = trials.set_index("run_id").arm
    curves = study.curves.assign(arm=study.curves.run_id.map(by_run))
    return Tables(study.name, trials.copy(), curves, final_errors(study).copy(), dict(study.units))


def own_drawings(study: Study, files: Sequence[Path]) -> list[Drawing]:
    """The figures of files that the user names.

    Raises:
        UserError: naming the file and line of what goes wrong in one.
    """
    return [_drawing(file, study) for file in files]


def drawings_beside(study: Study, folder: Path) -> list[Drawing]:
    """The figure of `BESIDE` in the folder of a study, if this user has named such a file before.

    A report is made without it, too: what goes wrong is one line on the standard error.
    """
    file = folder / BESIDE
    if not file.is_file():
        return []
    try:
        _require_accepted(file)
        return own_drawings(study, [file])
    except UserError as problem:
        sys.stderr.write(f"not drawn: {problem}\n")
        return []


def _require_accepted(file: Path) -> None:
    if not is_accepted(file_hash(file)):
        raise UserError(
            f"{file}: is code beside results, and would run with your rights; read it, then name "
            f"it once: --figure {file}"
        )


def _drawing(file: Path, study: Study) -> Drawing:
    if file.suffix != ".py":
        raise UserError(f"--figure {file}: must be a Python file, *.py")
    module, _ = load(str(file))
    function = getattr(module, "figure", None)
    if not callable(function):
        raise UserError(f"{file}: must define `figure(tables)`, which returns a matplotlib figure")
    try:
        with mpl.rc_context(STYLE):
            made = function(tables_of(study))
    # Whatever the user's function raises is the answer, an exit included.
    except (Exception, SystemExit) as problem:
        raise UserError(f"{file}: {described(problem)}") from None
    if not isinstance(made, Figure):
        kind = type(made).__name__
        raise UserError(f"{file}: `figure` must return a matplotlib figure, but returned {kind}")
    title, _, caption = (getdoc(function) or file.stem).partition("\n")
    words = " ".join(caption.split())
    name = f"own_{slug(file.stem)}"
    return Drawing(name, title, words, f"{title} {words}", made, pd.DataFrame())
