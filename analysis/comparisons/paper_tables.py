"""Tables in the papers' layouts: models by data sets, and error against the number of labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.comparisons.error_tables import final_errors
from analysis.comparisons.labels import LABELS
from analysis.comparisons.outcomes import compared, ended
from analysis.comparisons.quantities import FORCE, lead, quantities
from analysis.comparisons.selection import column
from analysis.records.study_tables import Study
from analysis.statistics.change import LEVEL


def table1(study: Study) -> pd.DataFrame:
    """Table 1 of arXiv:2402.15921: a row per model, data set and pretrained arm.

    Empty for a study of one model and data set, or without forces. Columns: model, dataset, task,
    n, and for force and energy (of a whole frame, as the paper) the mean and s.d. of scratch and
    pretrained in meV/Å and meV, change in %, low, high, verdict.
    """
    trials = compared(study).drop_duplicates("arm").set_index("arm")
    if FORCE not in quantities(study) or len(trials[["model", "data"]].drop_duplicates()) < 2:
        return pd.DataFrame()
    errors = final_errors(study)
    tables = {name: rows.set_index("arm") for name, rows in errors.groupby("quantity")}
    rows = []
    for arm in trials.index[~trials.scratch & ~trials.placebo]:
        row = {"arm": arm, "task": trials.task[arm]}
        row |= {"model": trials.model[arm], "dataset": trials.data[arm]}
        for short, name in (("force", "force_rmse"), ("energy", "frame_energy_rmse")):
            of = tables[name]
            if arm not in of.index or not isinstance(of.reference[arm], str):
                break
            for label, which in (("scratch", of.reference[arm]), ("pretrained", arm)):
                row |= {
                    f"{short}_{label}": of["mean"][which],
                    f"{short}_{label}_std": of["std"][which],
                }
            row |= {f"{short}_{x}": of[x][arm] for x in ("change", "low", "high", "verdict")}
            row["n"] = of.pairs[arm]
        else:
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(["dataset", "model"], kind="stable") if len(table) else table


def data_efficiency(study: Study) -> pd.DataFrame:
    """Test error against the number of labelled frames: a row per task and number.

    Columns: task, labels, n, mean, std, change against scratch with the same labels (as
    `final_errors`), and the slope of ln error over ln labels with its 95 % ends, of all seeds.
    """
    trials = ended(study)
    labels = pd.to_numeric(column(trials, LABELS)).astype(float)
    seen = labels.fillna(trials.train_frames.astype(float))
    if seen.nunique() < 2:
        return pd.DataFrame()
    of_arm = seen.groupby(trials.arm).max()
    errors, quantity = final_errors(study), lead(study)
    table = errors[errors.quantity == quantity.name].assign(
        labels=lambda rows: rows.arm.map(of_arm)
    )
    values = trials.assign(labels=seen, value=trials[f"test_{quantity.name}"] * quantity.scale)
    finite = values.value.map(np.isfinite).to_numpy(dtype=bool)
    slopes = {task: _slope(group[finite[group.index]]) for task, group in values.groupby("task")}
    for place, name in enumerate(("slope", "slope_low", "slope_high")):
        table[name] = [slopes[task][place] for task in table.task]
    return table.sort_values(["task", "labels"], kind="stable").reset_index(drop=True)


def _slope(trials: pd.DataFrame) -> tuple[float, float, float]:
    if trials.labels.nunique() < 2 or len(trials) < 3:
        return (np.nan,) * 3
    fit = stats.linregress(np.log(trials.labels), np.log(trials.value))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(trials) - 2)) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)
