"""What the trials of a study have cost, with their pretrainings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparisons.selection import column


def with_totals(trials: pd.DataFrame, pretrainings: pd.DataFrame) -> pd.DataFrame:
    """Trials with what they cost together with their pretrainings."""
    clock = _clock(pd.concat([trials, pretrainings]))
    before = pretrainings.assign(
        seconds=pretrainings.seconds.astype(float),
        compute=_compute(pretrainings, "pretrain", clock),
        steps=_steps(pretrainings, "pretrain"),
    )
    known = before.drop_duplicates("key").set_index("key")
    own = {
        "seconds": trials.seconds.astype(float),
        "compute": _compute(trials, "finetune", clock),
        "steps": _steps(trials, "finetune"),
    }
    spent = {
        name: trials.pretraining.map(known[name]).astype(float).mask(trials.pretext == "", 0)
        for name in own
    }
    return trials.assign(
        total_seconds=own["seconds"] + spent["seconds"],
        pretrain_compute=spent["compute"],
        compute=own["compute"] + spent["compute"],
        steps=own["steps"] + spent["steps"],
    )


def _clock(work: pd.DataFrame) -> str:
    """What compute is measured by: processor time if all was done on CPUs, else wall time."""
    done = work[work.status == "completed"]
    on_cpu = len(done) and (done.device == "cpu").all() and done.cpu_seconds.notna().all()
    return "cpu_seconds" if on_cpu else "seconds"


def _compute(work: pd.DataFrame, stage: str, clock: str) -> pd.Series[float]:
    """Compute of a stage at the median pace of all work that does the same in an epoch.

    So one's share of a busy machine does not decide which arm is cheap.
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
    """Optimizer steps of a stage; missing where the study did not tell them."""
    names = (f"{stage}.epochs", f"{stage}.batch_size", f"{stage}.frames", "train_frames")
    epochs, batch, frames, available = (
        pd.to_numeric(column(work, name)).astype(float) for name in names
    )
    batches = np.fmin(frames, available) / batch
    return epochs.mul(np.ceil(batches))
