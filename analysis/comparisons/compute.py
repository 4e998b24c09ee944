"""Compute of trials, including their pretraining."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons.selection import column


def with_totals(trials: pd.DataFrame, pretrainings: pd.DataFrame) -> pd.DataFrame:
    """Add seconds, compute and steps of both stages to the trials."""
    clock = _clock(pd.concat([trials, pretrainings]))
    before = pretrainings.assign(
        seconds=pretrainings.seconds.astype(float),
        compute=_compute(pretrainings, "pretrain", clock),
        steps=_steps(pretrainings, "pretrain"),
    )
    by_key = before.drop_duplicates("key").set_index("key")
    own = {
        "seconds": trials.seconds.astype(float),
        "compute": _compute(trials, "finetune", clock),
        "steps": _steps(trials, "finetune"),
    }
    spent = {
        name: trials.pretraining.map(by_key[name]).astype(float).mask(trials.pretext == "", 0)
        for name in own
    }
    return trials.assign(
        total_seconds=own["seconds"] + spent["seconds"],
        pretrain_compute=spent["compute"],
        compute=own["compute"] + spent["compute"],
        steps=own["steps"] + spent["steps"],
    )


def _clock(work: pd.DataFrame) -> str:
    """Column that measures compute: CPU time if everything ran on CPUs, else wall time."""
    done = work[work.status == "completed"]
    on_cpu = len(done) and (done.device == "cpu").all() and done.cpu_seconds.notna().all()
    return "cpu_seconds" if on_cpu else "seconds"


def _compute(work: pd.DataFrame, stage: str, clock: str) -> pd.Series[float]:
    """Compute of a stage at the median pace of all runs that do the same in an epoch.

    The load of the machine at the time of one run then does not decide which arm is cheap.
    """
    own = (f"{stage}.task.", f"{stage}.batch_size", f"{stage}.frames", "model.", "dataset.")
    alike = [name for name in work if str(name).startswith(own)]
    seconds = work[clock].astype(float)
    epochs = pd.to_numeric(column(work, f"{stage}.epochs")).astype(float)
    pace = (seconds / epochs).where(work.status == "completed")
    if alike and len(work):
        same = work.groupby(alike, dropna=False).ngroup()
        pace = pace.groupby(same).transform("median").where(pace.notna())
    return (pace * epochs).fillna(seconds)


def _steps(work: pd.DataFrame, stage: str) -> pd.Series[float]:
    """Optimizer steps of a stage; missing where the study has not recorded them."""
    names = (f"{stage}.epochs", f"{stage}.batch_size", f"{stage}.frames", "train_frames")
    epochs, batch, frames, available = (
        pd.to_numeric(column(work, name)).astype(float) for name in names
    )
    batches = np.fmin(frames, available) / batch
    return epochs.mul(np.ceil(batches))
