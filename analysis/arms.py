"""Arms of a study: trials that differ by their seed alone, and what each is compared with."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import Study, remembered

TASK = "pretrain.task.name"
RATIO = "pretrain.task.masking_ratio"
NOISE = "pretrain.task.noise_scale"
PLACEBO = "pretrain.task.placebo"
LABELS = "finetune.frames"
EPOCHS = "finetune.epochs"
SCRATCH = "from scratch"

KIND = ("model.name", "dataset.name", "dataset.path")
"""What decides which other settings there are."""
NAMED = {"pretrain", TASK, RATIO, NOISE, PLACEBO, "pretrain.task.atom", "pretrain.task.tasks"}
"""Settings that an arm's name tells anyway."""
NAMES = {
    "egnn": "EGNN",
    "gns": "GNS",
    "forcenet": "ForceNet",
    "tip3p_water": "TIP3P water",
    "rpbe_water": "RPBE-D3 water",
}
MANY = 3
"""More settings than this in an arm's name are hard to read."""
ERRORS = ("force_rmse", "energy_rmse", "frame_energy_rmse")
"""Test errors that a trial needs to enter a mean."""


@remembered
def arms(study: Study) -> pd.DataFrame:
    """Trials with these columns more.

    - arm: its name; trials of one arm differ by their seed alone
    - task, ratio, noise, placebo: of pretraining
    - scratch: whether there was none
    - setting: what differs between trials besides pretraining
    - family: the same without the length of finetuning
    - total_seconds, steps: of both stages
    - compute: of both stages, s, at the study's median pace; pretrain_compute: of the first
    """
    trials = study.trials.copy()
    trials["scratch"] = column(trials, TASK).isna().to_numpy(dtype=bool)
    tasks = [_task(row) for row in trials.to_dict("records")]
    trials["task"] = pd.Series(tasks, trials.index, dtype="str")
    trials["ratio"] = pd.to_numeric(column(trials, RATIO)).astype(float)
    trials["noise"] = pd.to_numeric(column(trials, NOISE)).astype(float)
    trials["placebo"] = trials.task.str.endswith("placebo")
    own = [n for n in study.settings if n.startswith(("pretrain", "transfer")) and n not in NAMED]
    shared = [n for n in study.settings if n not in {*own, *NAMED, "seed"}]
    told, pretrained = varying(trials, shared), trials[~trials.scratch]
    extra = varying(pretrained, own, (*KIND, TASK))
    many = len({*told, *extra} - {*KIND}) > MANY
    lengthless = [name for name in told if name != EPOCHS]
    trials["family"] = _spelled(trials, lengthless, briefly=many)
    trials["setting"] = _spelled(trials, told, briefly=many)
    variant = _spelled(trials, extra, briefly=many).mask(trials.scratch, "")
    parts = zip(trials.task, variant, trials.setting, strict=True)
    names = [", ".join(filter(None, part)) for part in parts]
    trials["arm"] = pd.Series(names, trials.index, dtype="str")
    return _with_totals(trials, study.pretrainings)


def varying(trials: pd.DataFrame, names: Sequence[str], within: Sequence[str] = KIND) -> list[str]:
    """Those columns whose value does not follow from model and data set, or from `within`."""
    kinds = [name for name in within if name in trials]
    found = [name for name in kinds if name in names and trials[name].nunique(dropna=False) > 1]
    rest = [name for name in names if name not in KIND]
    if trials.empty or not rest:
        return found
    if not kinds:
        return found + [name for name in rest if trials[name].nunique(dropna=False) > 1]
    counts = trials.groupby(kinds, dropna=False)[rest].nunique(dropna=False).max()
    return found + [name for name in rest if counts[name] > 1]


def excluded(study: Study) -> pd.DataFrame:
    """Work that enters no mean: kind, number, key, arm, seed, status, reason."""
    unfinished = study.pretrainings[study.pretrainings.status != "completed"]
    work = pd.concat([unfinished, arms(study)], ignore_index=True)
    work["reason"] = [_why(row) for row in work.to_dict("records")]
    columns = ["kind", "number", "key", "arm", "seed", "status", "reason"]
    return work[work.reason != ""].reindex(columns=columns).reset_index(drop=True)


@remembered
def included(study: Study) -> pd.DataFrame:
    """Trials that enter the means, from scratch first, then by task, ratio, noise and seed."""
    trials = arms(study)
    kept = trials[np.array([_why(row) == "" for row in trials.to_dict("records")], dtype=bool)]
    first = kept.assign(order=~kept.scratch, length=column(kept, EPOCHS))
    by = ["order", "placebo", "ratio", "noise", "family", "length", "arm"]
    by += ["seed"] if "seed" in kept else []
    ordered = first.sort_values(by, na_position="last", kind="stable")
    return ordered.drop(columns=["order", "length"]).reset_index(drop=True)


def is_search(study: Study) -> bool:
    """Whether Optuna chose the settings; then only what it repeated can be compared."""
    return bool(study.facts["space"].get("search"))


def proposed(study: Study) -> pd.DataFrame:
    """Trials of a search that Optuna proposed, in that order; without its repeats."""
    trials = arms(study)
    found: pd.DataFrame = trials[~trials.exempt.fillna(value=True)]
    return found


@remembered
def compared(study: Study) -> pd.DataFrame:
    """Included trials that tables and figures compare; of a search those with several seeds."""
    trials = included(study)
    if not is_search(study):
        return trials
    return trials[trials.groupby("arm").seed.transform("nunique") > 1].reset_index(drop=True)


def references(trials: pd.DataFrame) -> dict[str, str]:
    """Arm → the arm it is compared with.

    A pretrained arm's is scratch of the same setting; that of a longer training from scratch is
    the shortest; without scratch, the first arm of the same model and data set.
    """
    first = trials.drop_duplicates("arm").sort_values("number")
    found = {}
    for arm in first.to_dict("records"):
        scratch = first[first.scratch & (first.family == arm["family"])]
        same = scratch[scratch.setting == arm["setting"]]
        if arm["scratch"]:
            same = scratch.sort_values(EPOCHS) if EPOCHS in scratch else scratch
        elif not first.scratch.any():
            same = first[[_kind(other) == _kind(arm) for other in first.to_dict("records")]]
        if len(same) and same.arm.iloc[0] != arm["arm"]:
            found[str(arm["arm"])] = str(same.arm.iloc[0])
    return found


def column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column, or missing values where there is none."""
    return frame[name] if name in frame else pd.Series(None, frame.index, dtype="str")


def spelled(name: str, value: Any) -> str:
    """A setting as a label tells it."""
    if name in KIND:
        return NAMES.get(str(value), PurePath(str(value)).name)
    if name == EPOCHS:
        return f"{value} epochs"
    if name == LABELS:
        return f"{value} labels"
    if isinstance(value, bool | np.bool_):
        return name if value else f"no {name}"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _task(row: dict[Any, Any]) -> str:
    """Pretraining in a few words, as the study itself names it."""
    name = row.get(TASK)
    if pd.isna(name):
        return SCRATCH
    if name == "mixed":
        return _mixed(str(row.get("pretrain.task.tasks")))
    told = str(name)
    for size in (row.get(RATIO), row.get(NOISE)):
        told += f" {size:g}" if size is not None and not pd.isna(size) else ""
    told += " oxygen" * (row.get("pretrain.task.atom") == "oxygen")
    placebo = row.get(PLACEBO)
    return told + " placebo" * (placebo is not None and not pd.isna(placebo) and bool(placebo))


def _mixed(tasks: str) -> str:
    try:
        parts = [part["task"] for part in ast.literal_eval(tasks)]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return "mixed"
    return " + ".join(_task({f"pretrain.task.{key}": part[key] for key in part}) for part in parts)


def _with_totals(trials: pd.DataFrame, pretrainings: pd.DataFrame) -> pd.DataFrame:
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
        name: trials.pretraining.map(known[name]).astype(float).mask(trials.scratch, 0)
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


def _kind(arm: dict[Any, Any]) -> tuple[str, ...]:
    return tuple(str(arm.get(name)) for name in KIND)


def _spelled(frame: pd.DataFrame, names: Sequence[str], *, briefly: bool) -> pd.Series[str]:
    """The given settings as one text per row.

    Args:
        frame: trials.
        names: of the settings.
        briefly: tell only what differs from the first trial of the same model and data.
    """
    rows = frame.reindex(columns=list(dict.fromkeys(["number", *KIND, *names]))).to_dict("records")
    first: dict[tuple[str, ...], dict[Any, Any]] = {}
    for row in sorted(rows, key=lambda row: row["number"]):
        first.setdefault(_kind(row), row)
    texts = []
    for row in rows:
        told = [name for name in names if not pd.isna(row[name])]
        if briefly:
            usual = first[_kind(row)]
            told = [name for name in told if name in KIND or row[name] != usual[name]]
        if "dataset.path" in told and "dataset.name" in told:
            told.remove("dataset.name")  # How the file is read says little.
        texts.append(", ".join(spelled(name, row[name]) for name in told))
    return pd.Series(texts, frame.index, dtype="str")


def _why(trial: dict[Any, Any]) -> str:
    """Why a trial enters no mean; empty if it does."""
    if trial["status"] == "completed":
        bad = [name for name in ERRORS if not np.isfinite(trial[f"test_{name}"])]
        return f"completed, but without a finite test {bad[0]}" if bad else ""
    given = trial["reason"] if isinstance(trial["reason"], str) else ""
    return given or REASONS.get(trial["status"], "no reason was recorded")


REASONS = {
    "running": "still running, or its process died",
    "killed": "interrupted before it ended",
    "stopped": "stopped early by the scheduler",
}
