"""Draw the energies of dynamics: `python -m analysis.dynamics nve.csv`.

Beside the table of `python -m study.dynamics` comes its figure as SVG and PDF.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures.style import COLOURS, INK, Drawing, files, slug, styled
from analysis.formatting import number
from study.core.atomic_io import write_bytes
from study.core.errors import UserError, exit_code
from study.core.paths import follow_links, path_of

COLUMNS = ("time", "total", "kinetic", "potential", "total_per_atom")
"""ps, eV, eV, eV, eV per atom."""
MOST_POINTS = 1000
"""More along a line cannot be seen."""


def read(path: Path) -> pd.DataFrame:
    """The table of a run.

    Raises:
        UserError: if it is none.
    """
    try:
        table = pd.read_csv(path)
    except OSError as problem:
        raise UserError(
            f"{path}: {problem.strerror}; name a table that `python -m study.dynamics` wrote"
        ) from None
    except (ValueError, UnicodeDecodeError) as problem:
        what = " ".join(str(problem).split())
        raise UserError(f"{path}: not a table that `study.dynamics` wrote: {what}") from None
    wrong = [
        name
        for name in COLUMNS
        if name not in table or not np.isfinite(pd.to_numeric(table[name], errors="coerce")).all()
    ]
    if wrong or len(table) < 2:
        raise UserError(
            f"{path}: must have two rows or more with numbers as {', '.join(COLUMNS)}; run "
            "`python -m study.dynamics` again"
        )
    return table


def drawing(table: pd.DataFrame, name: str) -> Drawing:
    """Changes of kinetic, potential and total energy, per atom.

    Args:
        table: as `read` gives.
        name: of the figure's files.
    """
    atoms = round(float((table.total / table.total_per_atom).median()))
    parts = ("potential", "kinetic", "total")
    shown = pd.DataFrame({"time": table.time}).assign(
        **{part: 1000 * (table[part] - table[part].iloc[0]) / atoms for part in parts}
    )
    drift = float(np.polyfit(shown.time, shown.total, 1)[0])
    with styled() as (figure, axes):
        thinned = shown.iloc[:: -(-len(shown) // MOST_POINTS)]
        for part, colour in zip(parts, (*COLOURS[:2], INK), strict=True):
            axes.plot(thinned.time, thinned[part], color=colour, label=part, linewidth=1.2)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(parts))
        axes.set(xlabel="Time (ps)", ylabel="Change of energy (meV/atom)")
    summary = (
        f"the total drifts by {number(drift)} meV/atom/ps, while the kinetic energy varies by "
        f"{number(float(np.ptp(shown.kinetic)))} meV/atom"
    )
    return Drawing(
        name=name,
        title="Energy in dynamics at constant energy",
        caption=f"Changes since the start, {atoms} atoms; {summary}.",
        alt=f"Potential, kinetic and total energy against time: {summary}.",
        figure=figure,
        shown=shown,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 0 is success, 2 an error that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m analysis.dynamics", description=__doc__)
    parser.add_argument("table", type=path_of, help="*.csv of `python -m study.dynamics`")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _draw(options.table))


def _draw(table: Path) -> None:
    """Write the figure beside its table."""
    made = drawing(read(table), slug(table.stem))
    content = files(made)
    for ending in ("pdf", "svg"):
        write_bytes(follow_links(table).with_suffix(f".{ending}"), content[ending])
    sys.stdout.write(f"{made.caption}\n{table.with_suffix('.svg')}\n")


if __name__ == "__main__":
    sys.exit(main())
