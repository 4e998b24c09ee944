"""The result of a study in one table, and how its arms were tuned in another; an arm per line."""

from __future__ import annotations

import math

from rich.table import Table

from study.console.formatting import metric_title, without_unit
from study.core.records import METRICS
from study.pipeline.job import Job
from study.planning.arms import DEFAULT_ERRORS, Arm, arms
from study.planning.plan import Plan
from study.scheduling.proposals.tuned_grid import TunedArm

MOST_ARMS = 30


def result_table(found: list[Arm]) -> Table:
    """Test errors of every arm beside those of predicting nothing.

    Args:
        found: arms of the study; only the `MOST_ARMS` with most trials are shown.
    """
    table = Table(title="Test errors, mean ± s.d. over seeds", title_justify="left", box=None)
    first, second = next((arm.errors for arm in found if arm.completed), DEFAULT_ERRORS)
    unlike = len({frozenset(arm.completed) for arm in found if arm.completed}) > 1
    table.add_column("arm")
    by_seed = ("seeds", "of\ntrivial") if unlike else ()
    for name in ("trials", _head(first), "against\nscratch", _head(second), *by_seed):
        table.add_column(name, justify="right")
    scratch = {arm.setting: arm for arm in found if arm.from_scratch}
    shown = found
    if len(found) > MOST_ARMS:
        shown = sorted(found, key=lambda arm: -len(arm.completed))[:MOST_ARMS]
    for arm in shown:
        table.add_row(
            arm.label,
            f"{len(arm.completed)}/{len(arm.results)}",
            _marked(arm, first),
            arm.change(scratch.get(arm.setting)),
            _marked(arm, second),
            *_of_its_seeds(arm, first)[: len(by_seed)],
        )
    trivial = "zero force, mean energy" if first == "force_rmse" else "mean"
    for label, of_set in _by_data_set(found).items():
        errors = [_trivial(of_set, f"trivial_{error}", unlike=unlike) for error in (first, second)]
        table.add_row(f"{trivial}{label}", "", errors[0], "", errors[1], style="dim")
    if any(_share(arm, error) > 1 for arm in shown for error in (first, second)):
        table.caption = "! worse than predicting zero force, or the mean"
        table.caption_justify = "left"
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
    unit = METRICS[f"test_{error}"][0]
    what, _, kind = error.rpartition("_")
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
        return arms[0].shown(metric)
    factor = 1000 if METRICS[metric][0].startswith("eV") else 1
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
