"""Predictions against labels on test frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize

from analysis.comparisons.outcomes import compared
from analysis.comparisons.prediction_errors import parity
from analysis.figures.style import INK, Drawing, slug, styled
from analysis.formatting import number
from analysis.records.study_tables import Study

BINS = 60
MANY = 20
"""From this count on the colour scale is logarithmic."""


def drawings(study: Study) -> list[Drawing]:
    """Forces and energies of the best arm from scratch and the best pretrained one."""
    if study.predictions.empty:
        return []
    made = []
    trials = compared(study)
    for bare in (True, False):
        means = trials[trials.scratch == bare].groupby("arm").test_force_rmse.mean()
        if len(means):
            forces, energies = parity(study, str(means.idxmin()))
            made.append(_parity(forces, str(means.idxmin()), "force", "eV/Å"))
            made.append(_parity(energies, str(means.idxmin()), "energy", "meV/atom"))
    return [drawing for drawing in made if drawing is not None]


def _parity(rows: pd.DataFrame, arm: str, what: str, unit: str) -> Drawing | None:
    if rows.empty:
        return None
    if what == "energy":  # Totals say nothing; what varies between frames does.
        rows = 1000 * (rows - rows.label.mean())
    low, high = float(rows.min().min()), float(rows.max().max())
    counts, x, y = np.histogram2d(rows.label, rows.predicted, BINS, [(low, high), (low, high)])
    with styled() as (figure, axes):
        axes.plot([low, high], [low, high], color=INK, linewidth=0.8)
        shown = np.ma.masked_equal(counts.T, 0)
        norm = LogNorm(1, counts.max()) if counts.max() > MANY else Normalize(0, counts.max())
        mesh = axes.pcolormesh(x, y, shown, norm=norm, cmap="cividis", linewidth=0)
        bar = figure.colorbar(mesh, ax=axes, label="Count", format="%g")
        if bar.solids is not None:
            bar.solids.set_rasterized(False)  # The page shows no images.
        labelled = "energy minus mean" if what == "energy" else "force component"
        axes.set(xlabel=f"Labelled {labelled} ({unit})", ylabel=f"Predicted {labelled} ({unit})")
        axes.grid(visible=False)
    rmse = float(np.sqrt(((rows.predicted - rows.label) ** 2).mean()))
    scale = 1000 if what == "force" else 1
    error = f"RMSE {number(scale * rmse)} {'meV/Å' if what == 'force' else unit}"
    filled = np.argwhere(counts > 0)
    return Drawing(
        name=f"parity_{what}_{slug(arm)}",
        title=f"Predicted against labelled {what}, {arm}",
        caption=f"All test frames of all seeds, n = {len(rows)}; {error}. Predictions on the line"
        " are exact; colour: number of points.",
        alt=f"Parity plot of the {what} after training {arm}: {error}.",
        figure=figure,
        shown=pd.DataFrame(
            [
                {
                    "label": (x[i] + x[i + 1]) / 2,
                    "predicted": (y[j] + y[j + 1]) / 2,
                    "n": counts[i, j],
                }
                for i, j in filled
            ]
        ),
    )
