"""Arms of a study: trials that differ by their seed alone, and what each is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.comparisons.compute import with_totals
from analysis.comparisons.labels import (
    AUXILIARY,
    CONTENT,
    EPOCHS,
    NOISE,
    OTHER_DATA,
    PACKAGE,
    PRETEXT,
    RATIO,
    SCRATCH,
    START,
    TASK,
    TRAINED_ON,
    Row,
    auxiliary_label,
    data_label,
    missing,
    model_label,
    other_data_label,
    pretext_label,
    short_words,
    spelled,
)
from analysis.comparisons.selection import column, only
from analysis.records.study_tables import Study, remembered
from study.core.records import few_words

KIND = ("model.name", "dataset.name", "dataset.path")
"""Settings that determine which other settings exist."""

OF_TREATMENT = ("pretrain", "transfer")
"""Prefixes of settings that only pretrained trials have."""

NAMED = {
    "pretrain",
    *(
        f"{PRETEXT}{name}"
        for name in ("name", "masking_ratio", "noise_scale", "placebo", "atom", "within")
    ),
    f"{PRETEXT}tasks",
    START,
    CONTENT,
    PACKAGE,
    TRAINED_ON,
}
"""Settings that are part of the task's name."""

REFERRED = ("arm", "number", "family", "setting", "scratch", EPOCHS, *KIND)
"""Columns that determine the reference of an arm."""

MANY = 3
"""With more settings than this, an arm's name lists only differences from the first trial."""


@remembered
def arms(study: Study) -> pd.DataFrame:
    """Add the columns that comparisons need to the trials.

    - arm: its name; trials of one arm differ by their seed alone
    - pretext, ratio, noise: of pretraining; auxiliary: of a pretext task beside finetuning
    - task: both of them, or from scratch
    - placebo: whether one of them has random targets
    - scratch: whether there is none
    - variant: what else differs between trials that have them
    - setting: what differs between trials besides
    - family: the same without the length of finetuning
    - model, data: what they are called
    - total_seconds, steps: of both stages
    - compute: of both stages, s, at the study's median pace; pretrain_compute: of the first
    """
    chosen = tuned(study)
    compared = [name for name in study.settings if name not in chosen]
    trials = _with_names(_with_tasks(study.trials), compared)
    return with_totals(trials, study.pretrainings)


def tuned(study: Study) -> list[str]:
    """Settings that were chosen for every arm alike: they are the arm's own, and do not name it."""
    return list((study.facts["space"].get("tune") or {}).get("each_arm", {}))


def _with_tasks(trials: pd.DataFrame) -> pd.DataFrame:
    """Add the columns on pretraining and on auxiliary tasks."""
    trials = trials.copy()
    rows = trials.to_dict("records")
    for name, label in LABELLED.items():
        trials[name] = _texts([label(row) for row in rows], trials)
    treatments = zip(trials.pretext, trials.auxiliary, strict=True)
    trials["task"] = _texts(
        [", ".join(filter(None, both)) or SCRATCH for both in treatments], trials
    )
    trials["scratch"] = trials.task == SCRATCH
    trials["placebo"] = trials.task.str.contains(" placebo")
    trials["ratio"] = pd.to_numeric(column(trials, RATIO)).astype(float)
    trials["noise"] = pd.to_numeric(column(trials, NOISE)).astype(float)
    return trials


def _with_names(trials: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Add family, setting, variant and arm: names made of the settings that vary."""
    words = short_words(settings)
    shared = [name for name in settings if _is_shared(name)]
    named = _without_lengths(trials, varying(trials, shared))
    own = [name for name in settings if _is_own(name)]
    pretrained = trials[trials.pretext != ""]
    extra = _without_lengths(pretrained, varying(pretrained, own, (*KIND, TASK)))
    many = len({*named, *extra} - {*KIND}) > MANY
    lengthless = [name for name in named if name != EPOCHS]
    trials["family"] = _spelled(trials, lengthless, words, briefly=many)
    trials["setting"] = _spelled(trials, named, words, briefly=many)
    variants = _spelled(trials, extra, words, briefly=many).mask(trials.pretext == "", "")
    data = [other_data_label(row) for row in trials.to_dict("records")]
    trials["variant"] = _joined(trials, _texts(data, trials), variants)
    trials["arm"] = _joined(trials, trials.task, trials.variant, trials.setting)
    return trials


LABELLED = {
    "pretext": pretext_label,
    "auxiliary": auxiliary_label,
    "model": model_label,
    "data": data_label,
}
"""Columns of `arms` that are labels of one trial."""


def _is_own(name: str) -> bool:
    """Check for a setting of pretrained trials alone that their task's name does not contain."""
    return name.startswith(OF_TREATMENT) and name not in NAMED and not name.startswith(OTHER_DATA)


def _is_shared(name: str) -> bool:
    """Check for a setting that trials from scratch have as well."""
    auxiliary = name == AUXILIARY[:-1] or name.startswith(AUXILIARY)
    return name != "seed" and not auxiliary and not name.startswith(OF_TREATMENT)


def varying(trials: pd.DataFrame, names: Sequence[str], within: Sequence[str] = KIND) -> list[str]:
    """Select the columns whose value does not follow from model and data set, or from `within`."""
    kinds = [name for name in within if name in trials]
    kinds_varying = [n for n in kinds if n in names and trials[n].nunique(dropna=False) > 1]
    rest = [name for name in names if name not in KIND]
    if trials.empty or not rest:
        return kinds_varying
    if not kinds:
        return kinds_varying + [name for name in rest if trials[name].nunique(dropna=False) > 1]
    counts = trials.groupby(kinds, dropna=False)[rest].nunique(dropna=False).max()
    return kinds_varying + [name for name in rest if counts[name] > 1]


def _without_lengths(trials: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Drop epochs that follow from the number of frames, as in trainings of equal steps."""
    following = [
        f"{stage}.epochs"
        for stage in ("pretrain", "finetune")
        if {f"{stage}.epochs", f"{stage}.frames"} <= {*names}
        and trials.groupby(f"{stage}.frames", dropna=False)[f"{stage}.epochs"].nunique().max() == 1
    ]
    return [name for name in names if name not in following]


def references(trials: pd.DataFrame) -> dict[str, str]:
    """Arm → the arm it is compared with.

    A pretrained arm's is scratch of the same setting; that of a longer training from scratch is
    the shortest; without scratch, the first arm of the same model and data set.
    """
    first = only(trials, REFERRED).drop_duplicates("arm").sort_values("number")
    reference_of = {}
    for arm in first.to_dict("records"):
        scratch = first[first.scratch & (first.family == arm["family"])]
        same = scratch[scratch.setting == arm["setting"]]
        if arm["scratch"]:
            same = scratch.sort_values(EPOCHS) if EPOCHS in scratch else scratch
        elif not first.scratch.any():
            same = first[[_kind(other) == _kind(arm) for other in first.to_dict("records")]]
        if len(same) and same.arm.iloc[0] != arm["arm"]:
            reference_of[str(arm["arm"])] = str(same.arm.iloc[0])
    return reference_of


def _kind(arm: Row) -> tuple[str, ...]:
    return tuple(str(arm.get(name)) for name in KIND)


def _spelled(
    frame: pd.DataFrame, names: Sequence[str], words: dict[str, str], *, briefly: bool
) -> pd.Series[str]:
    """The given settings as one text per row.

    Args:
        frame: trials.
        names: of the settings.
        words: what settings are called.
        briefly: include only differences from the first trial of the same model and data.
    """
    rows = frame.to_dict("records")
    first: dict[tuple[str, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["number"]):
        first.setdefault(_kind(row), row)
    texts = []
    for row in rows:
        kept = [name for name in names if not missing(row[name])]
        if briefly:
            default = first[_kind(row)]
            kept = [name for name in kept if name in KIND or row[name] != default[name]]
        if "dataset.path" in kept and "dataset.name" in kept:
            kept.remove("dataset.name")  # Both are called by the file.
        texts.append([spelled(row, name, words) for name in kept])
    return _texts(few_words(texts, [""] * len(texts)), frame)


def _joined(frame: pd.DataFrame, *columns: pd.Series[str]) -> pd.Series[str]:
    """Texts of several columns as one, without those that are empty."""
    rows = zip(*columns, strict=True)
    return _texts([", ".join(filter(None, texts)) for texts in rows], frame)


def _texts(values: Sequence[str], frame: pd.DataFrame) -> pd.Series[str]:
    return pd.Series(values, frame.index, dtype="str")
