"""The result of a study in one table, and how its arms were tuned in another; an arm per line."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.table import Table

from analysis.statistics.change import Change, change_of
from analysis.statistics.verdict import verdict
from study.console.formatting import metric_title, without_unit
from study.core.quantities.metrics import METRICS, unit_of
from study.pipeline.job import Job
from study.planning.arms import DEFAULT_ERRORS, STRESS_ERROR, Arm, arms, references
from study.planning.plan import Plan
from study.scheduling.journal import Entry
from study.scheduling.proposals.tuned_grid import TunedArm
from study.space.settings import Search

MOST_ARMS = 30


def result_table(found: list[Arm], title: str = "Test errors, mean ± s.d. over seeds") -> Table:
    """Test errors of every arm beside those of predicting nothing, and changes with intervals.

    Args:
        found: arms of the study; only the `MOST_ARMS` with most trials are shown.
        title: of the table.
    """
    table = Table(title=title, title_justify="left", box=None)
    first, *others = errors = _errors(found)
    unlike = len({frozenset(arm.completed) for arm in found if arm.completed}) > 1
    table.add_column("arm")
    by_seed = ("seeds", "of\ntrivial") if unlike else ()
    other = "scratch" if any(arm.from_scratch for arm in found) else "first arm"
    heads = map(_head, others)
    for name in ("trials", _head(first), f"against\n{other}", *heads, *by_seed):
        table.add_column(name, justify="right")
    changes, gap = _changes(found), "\n[" if len(others) > 1 else " ["
    shown = found
    if len(found) > MOST_ARMS:
        shown = sorted(found, key=lambda arm: -len(arm.completed))[:MOST_ARMS]
    for arm in shown:
        table.add_row(
            arm.label,
            f"{len(arm.completed)}/{len(arm.results)}",
            _marked(arm, first),
            changes.get(arm.label, "").replace(" [", gap),
            *(_marked(arm, error) for error in others),
            *_of_its_seeds(arm, first)[: len(by_seed)],
        )
    _add_trivial(table, found, errors, unlike=unlike)
    if any(_share(arm, error) > 1 for arm in shown for error in errors):
        table.caption = WORSE
        table.caption_justify = "left"
    return table


WORSE = "! worse than predicting zero force, or the mean"


def _errors(found: list[Arm]) -> list[str]:
    """Names of two test errors, and that of the stress if a trial has it."""
    errors = next((arm.errors for arm in found if arm.completed), DEFAULT_ERRORS)
    results = (result for arm in found for result in arm.completed.values())
    stress = any(f"test_{STRESS_ERROR}" in result.metrics for result in results)
    return [*errors, *[STRESS_ERROR] * (stress and STRESS_ERROR not in errors)]


def _add_trivial(table: Table, found: list[Arm], errors: list[str], *, unlike: bool) -> None:
    """Add the errors of predicting nothing, of each data set."""
    trivial = "zero force, mean energy" if "force_rmse" in errors else "mean"
    for label, of_set in _by_data_set(found).items():
        first, *others = (_trivial(of_set, f"trivial_{each}", unlike=unlike) for each in errors)
        table.add_row(f"{trivial}{label}", "", first, "", *others, style="dim")


def search_tables(found: list[Arm], seed: int, title: str | None = None) -> list[Table]:
    """What was repeated with several seeds, then all trials of the seed that every proposal has.

    Args:
        found: arms of the search.
        seed: of the proposals.
        title: of the table of these trials.
    """
    repeated = sorted((arm for arm in found if len(arm.trials) > 1), key=_test_error)
    tables = [result_table(repeated, "Repeated: test errors, mean ± s.d. over seeds")]
    return [*(tables if repeated else []), _proposals(found, seed, title)]


def _proposals(found: list[Arm], seed: int, title: str | None) -> Table:
    """Completed trials of one seed, best first; those without errors are counted below."""
    own = [replace(arm, results={seed: arm.results[seed]}) for arm in found if seed in arm.results]
    done = sorted((arm for arm in own if arm.completed), key=_test_error)
    errors = _errors(done)
    title = title or f"Trials with seed {seed}, lowest test error first"
    table = Table(title=title, title_justify="left", box=None, caption_justify="left")
    table.add_column("arm")
    for error in errors:
        table.add_column(_head(error), justify="right")
    for arm in done[:MOST_ARMS]:
        table.add_row(arm.label, *(_marked(arm, error) for error in errors))
    ends = Counter(str(arm.results[seed].status) for arm in own)
    counts = [f"{ends[status]} {word}" for status, word in NOT_COMPLETED.items() if ends[status]]
    more = [f"{len(done) - MOST_ARMS} more completed"] if len(done) > MOST_ARMS else []
    worse = [WORSE] if any(_share(a, e) > 1 for a in done[:MOST_ARMS] for e in errors) else []
    table.caption = "\n".join([", ".join([*more, *counts]), *worse]).strip() or None
    return table


NOT_COMPLETED = {"stopped": "stopped early", "diverged": "diverged", "failed": "failed"}
"""Statuses of trials without test errors, in words."""


def _test_error(arm: Arm) -> float:
    """Mean of the first test error; infinite if there is none."""
    metric = f"test_{arm.errors[0]}"
    values = [result.metrics.get(metric, math.inf) for result in arm.completed.values()]
    return sum(values) / len(values) if values else math.inf


def _changes(found: list[Arm]) -> dict[str, str]:
    """Change of each arm with the interval and the word that the report gives it."""
    pairs, cells = references(found), {}
    for control in (False, True):
        family = [a for a in found if a.label in pairs and a.is_control == control]
        for arm in family:
            logs, missing = arm.log_ratios(pairs[arm.label])
            if logs:
                cells[arm.label] = _change(change_of(logs, len(family), missing))
    return cells


def _change(change: Change) -> str:
    """Such as -2.9 % [-6.1, +0.3], and below it its verdict and how many pairs have errors."""
    middle, low, high = (_percent(end) for end in (change.percent, change.low, change.high))
    ends = "" if math.isnan(change.low) else f" [{low}, {high}]"
    pairs = len(change.logs) + change.missing
    some = "" if change.n == pairs else f" ({change.n} of {pairs})"
    return f"{middle}{' %' * (middle != '–')}{ends}\n{verdict(change)}{some}"


def _percent(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "> +999" if value > 999 else f"{value:+.1f}"


def front_table(rows: Sequence[tuple[int, str, Mapping[str, float]]], search: Search) -> Table:
    """Tabulate the Pareto front of a search with several objectives.

    Args:
        rows: number, label and metrics of each trial on it.
        search: its settings.
    """
    names = search.measured
    title = f"Pareto front of {len(rows)} trials; nothing is better in one and worse in none"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("#", "trial", *names):
        head = metric_title(name).replace(" (", "\n(") if name in METRICS else name
        table.add_column(head, justify="left" if name == "trial" else "right")
    for number, label, metrics in rows:
        cells = (
            f"{metrics[name]:.0f}" if name == "parameters" else without_unit(name, metrics[name])
            for name in names
        )
        table.add_row(str(number), label, *cells)
    return table


def schedule_table(rows: Sequence[Entry], metric: str) -> Table:
    """Tabulate the settings that the best member of a population had, part by part.

    Args:
        rows: its parts, in their order.
        metric: by which members were compared.
    """
    title = "Schedule of the best member of the population"
    table = Table(title=title, title_justify="left", box=None)
    names = list(rows[0].planned.parameters)
    for name in ("epochs", "member", *names, metric_title(metric).replace(" (", "\n(")):
        table.add_column(name, justify="right")
    for entry in rows:
        segment, member = entry.planned.work.segment, entry.planned.member
        assert segment is not None
        assert member is not None
        values = [entry.planned.parameters[name] for name in names]
        shown = [f"{each:.3g}" if isinstance(each, float) else str(each) for each in values]
        error = without_unit(metric, entry.values[-1]) if entry.values else "–"
        table.add_row(f"{segment.begin + 1} to {segment.until}", str(member.number), *shown, error)
    return table


def _marked(arm: Arm, error: str) -> str:
    """An error, with a mark if predicting nothing is better."""
    return f"{arm.shown(f'test_{error}')}{' !' * (_share(arm, error) > 1)}"


def _share(arm: Arm, error: str) -> float:
    """Mean error as a share of the trivial predictor's on the same test frames."""
    metrics = [result.metrics for result in arm.completed.values()]
    errors, trivial = (
        [values.get(f"{part}_{error}", math.nan) for values in metrics]
        for part in ("test", "trivial")
    )
    return sum(errors) / sum(trivial) if metrics and sum(trivial) > 0 else math.nan


def _of_its_seeds(arm: Arm, error: str) -> tuple[str, str]:
    """Seeds, and the error as a share of the trivial one, by which other seeds compare."""
    share = _share(arm, error)
    seeds = ", ".join(map(str, sorted(arm.completed)))
    return seeds, "–" if math.isnan(share) else f"{share:.3f}"


def _head(error: str) -> str:
    """Head of a column: the error and its unit."""
    unit = unit_of(f"test_{error}")
    what, _, kind = error.rpartition("_")
    if f"test_{error}" not in METRICS:
        return f"{error.replace('_', ' ')}\n(own metric)"
    return f"{what.replace('_', ' ')} {kind.upper()}\n{'m' * unit.startswith('eV')}{unit}"


def _by_data_set(found: list[Arm]) -> dict[str, list[Arm]]:
    """Completed arms of each data set, by what to call it; nothing if there is only one set."""
    sets: dict[str, list[Arm]] = {}
    for arm in found:
        names = [name for name in arm.settings if name.startswith("dataset.")]
        if arm.completed:
            sets.setdefault(str([arm.settings[name] for name in names]), []).append(arm)
    several = len(sets) > 1
    return {f", data of {arms[0].label}" * several: arms for arms in sets.values()}


def _trivial(arms: list[Arm], metric: str, *, unlike: bool) -> str:
    """The error of predicting nothing; its range if arms have seeds, and so test frames, apart."""
    if not unlike:
        return next((shown for arm in arms if (shown := arm.shown(metric)) != "–"), "–")
    factor = 1000 if unit_of(metric).startswith("eV") else 1
    metrics = [result.metrics for arm in arms for result in arm.completed.values()]
    values = [factor * each[metric] for each in metrics if metric in each]
    if not values:
        return "–"
    ends = [f"{end(values):.4g}" for end in (min, max)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def tuning_table(plan: Plan) -> Table:
    """Tabulate the proposals that each arm was given, and what was chosen by validation.

    Args:
        plan: of a study whose arms are tuned, read after the last tuning trial.
    """
    settings = plan.space.settings
    assert settings.tune is not None
    seed, names = settings.tune.seed, list(settings.tune.each_arm)
    title = f"Chosen by validation on seed {seed}; these trials enter no comparison"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("arm")
    for head in ("proposals\ncompleted", *names, metric_title(settings.metric)):
        table.add_column(head, justify="right")
    for label, arm in labelled_arms(plan):
        done = f"{arm.completed}/{arm.proposals}"
        error = without_unit(settings.metric, arm.error) if math.isfinite(arm.error) else "–"
        values = [_in_words(arm, name) for name in names]
        table.add_row(label, done, *values, error)
    return table


def labelled_arms(plan: Plan) -> list[tuple[str, TunedArm]]:
    """What the journal knows of the tuning of each arm, with the arm's label.

    Args:
        plan: as for `tuning_table`.
    """
    untuned = arms((Job("trial", trial, ""), None) for trial in plan.untuned)
    labels = {plan.arm_of(next(iter(arm.trials.values()))): arm.label for arm in untuned}
    return [
        (labels.get(identity, arm.trial.model.name), arm)
        for identity, arm in plan.tuned_arms.items()
    ]


def _in_words(arm: TunedArm, name: str) -> str:
    """What was chosen, marked if it is an end of what was proposed."""
    chosen = arm.chosen
    if not chosen:
        return "–" if chosen is None else "as in the space"
    if name not in chosen:
        return ""
    value, tried = chosen[name], {values[name] for _, values in arm.errors.values()}
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    at_end = len(tried) > 1 and value in (min(tried), max(tried))
    return f"{value:.4g}{', an end' * at_end}"
