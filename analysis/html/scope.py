"""What the evidence of a study rests on: how its arms were tuned, and what its seeds varied."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.comparisons.arms import arms, tuned
from analysis.comparisons.labels import (
    CONTENT,
    PACKAGE,
    SCRATCH,
    TRAINED_ON,
    pretext_label,
    short_words,
    value_text,
)
from analysis.comparisons.outcomes import population
from analysis.comparisons.quantities import metric_of, quantity_of
from analysis.comparisons.selection import column
from analysis.formatting import NONE, duration, listed, number
from analysis.html.grids import Cell, Column, Grid
from analysis.records.study_tables import Study


def tunings(study: Study) -> pd.DataFrame:
    """What each arm was given to tune it, one row per arm.

    Returns:
        arm; proposals, completed: how many; error: lowest validation error, in the unit of
        `quantity_of`; seconds: of both stages of all proposals; per tuned setting the value that
        was chosen, and `at_end NAME`: whether it is the least or the largest that was proposed.
    """
    names = tuned(study)
    work = study.tuning[study.tuning.kind == "trial"]
    if work.empty or not names:
        return pd.DataFrame()
    called = dict(zip(_identities(study, study.trials), arms(study).arm, strict=True))
    rows = [
        {"arm": called.get(identity, _described(group.iloc[0].to_dict()))}
        | _spent(study, group)
        | _chosen(group.assign(error=_errors(study, group)), names)
        for identity, group in work.groupby(_identities(study, work), sort=False)
    ]
    return pd.DataFrame(rows)


def _identities(study: Study, trials: pd.DataFrame) -> pd.Series[str]:
    """All settings but the seed and what was chosen, as one text per trial."""
    names = [name for name in study.settings if name not in {"seed", *tuned(study)}]
    rows = trials.reindex(columns=names).astype(object).to_dict("records")
    return pd.Series([str(sorted(row.items(), key=str)) for row in rows], trials.index, dtype="str")


def _described(row: dict[Any, Any]) -> str:
    """An arm of which nothing was reported."""
    return pretext_label(row) or SCRATCH


def _errors(study: Study, trials: pd.DataFrame) -> pd.Series[float]:
    """Validation error by which each completed trial was judged; missing for others."""
    curves = study.curves[(study.curves.stage == "finetune")]
    of_metric = curves[curves.metric == metric_of(study)].sort_values("epoch").groupby("run_id")
    lowest, last = of_metric.value.min(), of_metric.value.last()
    takes_last = column(trials, "finetune.select") == "last"
    errors = trials.run_id.map(last).where(takes_last, trials.run_id.map(lowest))
    return errors.astype(float).where(trials.status == "completed")


def _spent(study: Study, group: pd.DataFrame) -> dict[str, Any]:
    """Number of proposals, and the time of both of their stages; each pretraining counts once."""
    works = pd.concat([study.tuning, study.pretrainings])
    first = works[works.key.isin(group.pretraining.dropna())].drop_duplicates("key")
    return {
        "proposals": len(group),
        "completed": int((group.status == "completed").sum()),
        "seconds": group.seconds.sum() + first.seconds.sum(),
    }


def _chosen(group: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """What the proposal with the lowest error has, if one completed."""
    if group.error.isna().all():
        return {"error": math.nan}
    best = group.sort_values(["error", "number"]).iloc[0]
    found: dict[str, Any] = {"error": float(best.error)}
    for name in names:
        values = column(group, name)
        found[name] = best.get(name)
        found[f"at_end {name}"] = (
            pd.api.types.is_numeric_dtype(values)
            and values.nunique() > 1
            and bool(best[name] in (values.min(), values.max()))
        )
    return found


def tuning_grid(study: Study) -> Grid | None:
    """What each arm was given, and what was chosen; None if nothing was tuned."""
    table, names = tunings(study), tuned(study)
    if table.empty:
        return None
    q, words = quantity_of(study, metric_of(study)), short_words(study.settings)
    columns = [Column("Arm", numeric=False), Column("Proposals")]
    columns += [Column(words.get(name, name), "chosen") for name in names]
    columns += [Column("Validation error", q.unit), Column("Compute")]
    rows = [
        [
            Cell(row["arm"]),
            Cell(str(row["proposals"]), _incomplete(row)),
            *(_value(row, name) for name in names),
            Cell(number(row["error"] * q.scale)),
            Cell(duration(row["seconds"])),
        ]
        for row in table.to_dict("records")
    ]
    return Grid(columns, rows)


def population_grid(study: Study) -> Grid | None:
    """Who went on from whom, and with which settings; None without a population."""
    table = population(study)
    if table.empty:
        return None
    names = [str(name) for name in table if name in study.settings]
    q, words = quantity_of(study, metric_of(study)), short_words(study.settings)
    columns = [Column("Generation"), Column("Member"), Column("From")]
    columns += [Column(words.get(name, name)) for name in names]
    columns += [Column("Validation error", q.unit), Column("", numeric=False)]
    rows = [
        [
            Cell(f"{row['generation']}"),
            Cell(f"{row['member']}"),
            Cell(NONE if pd.isna(row["parent"]) else f"{row['parent']}"),
            *(Cell(value_text(row[name])) for name in names),
            Cell(number(row["error"] * q.scale) if row["status"] == "completed" else row["status"]),
            Cell("becomes the best" if row["best"] else ""),
        ]
        for row in table.to_dict("records")
    ]
    return Grid(columns, rows)


def _incomplete(row: dict[Any, Any]) -> tuple[str, ...]:
    done = row["completed"]
    return () if done == row["proposals"] else (f"{done} completed",)


def _value(row: dict[Any, Any], name: str) -> Cell:
    value = row.get(name)
    if value is None or pd.isna(value):
        return Cell("as in the space" if math.isnan(row["error"]) else NONE)
    text = f"{value:.4g}" if isinstance(value, int | float) else str(value)
    return Cell(text, ("an end of the range",) if row[f"at_end {name}"] else ())


def scope(study: Study) -> str:
    """What intervals over the seeds cover, and how many test parts these seeds really had."""
    done = study.trials[study.trials.status == "completed"]
    if done.empty or "seed" not in done:
        return ""
    return " ".join((*_sentences(done), *_foundations(done)))


def _sentences(done: pd.DataFrame) -> Iterator[str]:
    seeds = done.seed.nunique()
    own_data = seeds > 1 and (done.groupby("dataset.name").data_hash.nunique() >= seeds).all()
    data = ", a data set" if own_data else ""
    yield (
        f"Intervals are over {seeds} seed{'s' * (seeds != 1)}, each of which draws initial weights,"
        f" the order of batches{data} and the split{' of it' if own_data else ''}."
    )
    if not own_data:
        yield (
            "All seeds share one data set, of which they train on overlapping parts, so the"
            " intervals do not cover other ones."
        )
    known = done[done.test_hash.notna()]
    for _, same in known.groupby("data_hash", sort=False):
        parts = same.drop_duplicates(["seed", "test_hash"])
        yield from _shared(parts) if not own_data else ()


def _foundations(done: pd.DataFrame) -> Iterator[str]:
    """What foundation models have learned elsewhere, with labels, which may be what is tested."""
    known = done[column(done, PACKAGE).notna()].drop_duplicates(CONTENT)
    for row in known.to_dict("records"):
        told = row.get(TRAINED_ON)
        learned = (
            f"on {told}"
            if isinstance(told, str) and told
            else "on data that its file does not tell"
        )
        yield (
            f"{pretext_label(row).capitalize()} was trained with {row[PACKAGE]} {learned}; frames"
            " that are tested may have been among it, with their labels, which would favour it."
            " What that training cost is not known, so nothing equals it in compute."
        )


def _shared(parts: pd.DataFrame) -> Iterator[str]:
    """How many different parts of one data set the seeds tested on."""
    distinct, seeds = parts.test_hash.nunique(), parts.seed.nunique()
    tested = {group for text in parts.tested.dropna() for group in text.split(", ") if group}
    groups, of = "", parts.all_groups.iloc[0]
    if tested and float(of) > 1:
        groups = f", {len(tested)} of its {of} groups of frames that belong together in all"
    yield f"They tested on {distinct} different part{'s' * (distinct != 1)} of it{groups}."
    repeated = [
        listed(map(str, sorted(group.seed)))
        for _, group in parts.groupby("test_hash", sort=False)
        if group.seed.nunique() > 1
    ]
    if distinct < seeds:
        yield (
            f"Seeds {'; '.join(repeated)} tested on the same part, so they are not independent and"
            " the intervals are too narrow."
        )
