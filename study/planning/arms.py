"""Trials that differ in their seed alone, and names that distinguish them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from study.core.hashing import digest
from study.core.quantities.metrics import METRICS, unit_of
from study.core.records import JobResult, few_words, flatten
from study.pipeline.job import Job
from study.scheduling.protocols import Planned
from study.space.trial import Trial

KIND = ("model.name", "dataset.name", "dataset.path")
"""Settings that decide which other settings there are."""

LABEL_KEYS = (
    *("pretrain", "pretrain.from", "pretrain.sha256", "pretrain.package", "pretrain.trained_on"),
    "model.name",
)
"""Settings that a label names anyway."""

AUXILIARY = "finetune.task.auxiliary"
"""A pretext task during finetuning, whose label names all but its weight."""

STAGES = ("pretrain.", f"{AUXILIARY}.")
"""Where the settings of a pretext task stand."""

LENGTH = "finetune.epochs"

PRETRAINING_KEYS = ("pretrain", "transfer", AUXILIARY)
"""What distinguishes an arm from its baseline."""


DEFAULT_ERRORS = ["force_rmse", "energy_rmse"]
"""Test errors that are shown of trials that learned energy and forces."""

STRESS_ERROR = "stress_rmse"
"""Shown beside them where trials have it."""

MAJORITY = 0.7
"""A value that more than this share of comparable arms have is not named."""


@dataclass
class Arm:
    """Trials that differ in their seed alone.

    Args:
        settings: by dotted name, without the seed.
        label: how it was pretrained, and what else distinguishes it from other arms.
        trials: by seed.
        results: by seed.
        tuned: names of settings that were chosen for every arm alike.
        metric: validation metric that ranks the trials.
    """

    settings: dict[str, Any]
    label: str
    trials: dict[int, Trial] = field(default_factory=dict)
    results: dict[int, JobResult] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    metric: str = ""

    @property
    def completed(self) -> dict[int, JobResult]:
        """Results that count."""
        return {seed: end for seed, end in self.results.items() if end.status == "completed"}

    @property
    def setting(self) -> str:
        """What an arm and its baseline have in common."""
        own = (*PRETRAINING_KEYS, *self.tuned)
        names = (name for name in self.settings if not name.startswith(own))
        return digest({name: self.settings[name] for name in names})

    @property
    def family(self) -> str:
        """What trainings from scratch of different lengths have in common."""
        names = (name for name in self.settings if name not in (LENGTH, *self.tuned))
        return digest({name: self.settings[name] for name in names})

    @property
    def is_control(self) -> bool:
        """From scratch, or pretrained towards random targets."""
        placebo = any(self.settings.get(f"{stage}task.placebo") for stage in STAGES)
        return self.from_scratch or placebo

    @property
    def from_scratch(self) -> bool:
        """Neither pretrained nor finetuned beside another task."""
        beside = any(name.startswith(f"{AUXILIARY}.") for name in self.settings)
        return self.settings.get("pretrain", "") is None and not beside

    def facts(self) -> dict[str, Any]:
        """Settings, and every trial's end with its metrics in eV and Å."""
        trials = {
            seed: {"status": end.status, "reason": end.reason, "metrics": end.metrics}
            for seed, end in self.results.items()
        }
        return {"label": self.label, "settings": self.settings, "trials": trials}

    @property
    def errors(self) -> list[str]:
        """Names of two test errors to show: of force and energy, or of what was learned.

        A metric of the user's own that ranks the trials is the first, as in the report.
        """
        metrics = next((result.metrics for result in self.completed.values()), {})
        tested = [name.removeprefix("test_") for name in metrics if name.startswith("test_")]
        shown = DEFAULT_ERRORS if not tested or "force_rmse" in tested else tested[:2]
        ranking = self.metric.removeprefix("val_")
        if self.metric in METRICS or ranking not in tested:
            return shown
        others = [name for name in shown if name != ranking]
        return [ranking, *(others or shown)][:2]

    def shown(self, metric: str) -> str:
        """Mean ± standard deviation over the seeds, in thousandths of the unit if that is of eV."""
        factor = 1000 if unit_of(metric).startswith("eV") else 1
        found = [result.metrics.get(metric) for result in self.completed.values()]
        values = [factor * value for value in found if value is not None]
        if not values:
            return "–"
        if len(values) < 2:
            return f"{values[0]:.4g}"
        return with_spread(statistics.mean(values), statistics.stdev(values))

    def log_ratios(self, baseline: Arm) -> tuple[list[float], int]:
        """Of the first test error to the baseline's, one for each seed that ended in both.

        Returns:
            The logarithms, infinite where one of both diverged and not a number where both did;
            and how many seeds make no pair, because one of both has not ended.
        """
        error = f"test_{(self.errors if self.completed else baseline.errors)[0]}"
        seeds = list(dict.fromkeys([*self.trials, *baseline.trials]))
        pairs = [(self._log(seed, error), baseline._log(seed, error)) for seed in seeds]
        ended = [(mine, theirs) for mine, theirs in pairs if not math.isnan(mine + theirs)]
        return [mine - theirs for mine, theirs in ended], len(pairs) - len(ended)

    def _log(self, seed: int, metric: str) -> float:
        """Logarithm of an error; infinite of a trial that diverged, nan if there is none."""
        result = self.results.get(seed)
        if result is None:
            return math.nan
        if result.status == "completed":
            error = result.metrics.get(metric, math.nan)
            if error == 0:
                return math.nan
            return math.log(error) if 0 < error < math.inf else math.inf
        failed = result.status == "diverged" or result.reason.startswith("its pretraining diverged")
        return math.inf if failed else math.nan


def arms(
    works: Iterable[tuple[Job, JobResult | None]], tuned: Iterable[str] = (), metric: str = ""
) -> list[Arm]:
    """Group trials by everything but the seed, in order of appearance; some may have no result.

    Args:
        works: trials, and their results.
        tuned: names of settings that were chosen for every arm alike.
        metric: validation metric that ranks the trials.
    """
    grouped: dict[str, Arm] = {}
    for work, result in works:
        settings = _settings(work)
        label = work.label.rpartition(",")[0]
        new = Arm(settings, label, tuned=tuple(tuned), metric=metric)
        arm = grouped.setdefault(digest(settings), new)
        arm.trials[work.trial.seed] = work.trial
        if result is not None:
            arm.results[work.trial.seed] = result
    _disambiguate(list(grouped.values()))
    return list(grouped.values())


def references(found: Sequence[Arm]) -> dict[str, Arm]:
    """What each arm is compared with, by its label, as the report has it.

    That is scratch of the same setting; of a longer training from scratch the shortest; without
    any scratch the first arm of the same model and data.
    """
    scratch = [arm for arm in found if arm.from_scratch]
    pairs: dict[str, Arm] = {}
    for arm in found:
        if not scratch:
            same = [each for each in found if _kind(each, "") == _kind(arm, "")]
        elif arm.from_scratch:
            alike = [each for each in scratch if each.family == arm.family]
            same = sorted(alike, key=lambda each: int(each.settings.get(LENGTH, 0)))
        else:
            same = [each for each in scratch if each.setting == arm.setting]
        if same and same[0] is not arm:
            pairs[arm.label] = same[0]
    return pairs


def with_spread(mean: float, spread: float) -> str:
    """A mean and its spread, which has two significant digits, to the same decimal place."""
    if not 0 < spread < math.inf:
        return f"{mean:.4g} ± {spread:.2g}"
    places = max(0, 1 - math.floor(math.log10(spread)))
    return f"{mean:.{places}f} ± {spread:.{places}f}"


def names_of(works: Iterable[Job]) -> dict[str, str]:
    """What tells trials, or pretrainings, from each other in a few words, by their keys."""
    different = {work.key: work for work in works}
    found = arms((work, None) for work in different.values())
    labels = {digest(arm.settings): arm.label for arm in found}
    return {
        key: f"{labels[digest(_settings(work))]}, seed {work.trial.seed}"
        for key, work in different.items()
    }


def searched_name(work: Job, searched: Iterable[str]) -> str:
    """A job's label, and what it has of settings that a search varies, by their dotted names."""
    settings = _settings(work)
    told = [f"{n} {_number(settings[n])}" for n in searched if n in settings and not _is_told(n)]
    label, _, seed = work.label.rpartition(", ")
    return ", ".join([label, *told, seed])


def named_member(planned: Planned) -> str:
    """What tells a member of a population from others: generation, number and settings."""
    member = planned.member
    assert member is not None
    if not planned.tuning:
        return f"{planned.work.label}, test of member {member.number}"
    place = f"generation {member.generation}, member {member.number}"
    return ", ".join([planned.work.label, place, *_parameters(planned)])


def brief_member(planned: Planned) -> str:
    """The same where the end may be cut off, as in a column: what differs most comes first."""
    member, work = planned.member, planned.work
    assert member is not None
    label = work.label.removeprefix(f"{work.trial.model.name} ")
    if not planned.tuning:
        return f"test m{member.number} {label}"
    return ", ".join([f"g{member.generation} m{member.number} {label}", *_parameters(planned)])


def _parameters(planned: Planned) -> list[str]:
    """What was proposed, in short names."""
    found = planned.parameters.items()
    return [f"{name.rpartition('.')[2]} {_number(value)}" for name, value in found]


def _settings(work: Job) -> dict[str, Any]:
    """All but the seed, by dotted name."""
    return {name: value for name, value in flatten(work.settings) if name != "seed"}


def _disambiguate(found: list[Arm]) -> None:
    """Add to the labels what varies between the arms, unless model and task say it.

    What follows from the model or the data set alone, such as options that only one of them has,
    says nothing new. What most arms have is not told, but the exceptions are.
    """
    told: list[list[str]] = [[] for _ in found]
    for name in dict.fromkeys(name for arm in found for name in arm.settings):
        if _is_told(name):
            continue
        kinds: dict[tuple[Any, ...], Counter[str]] = {}
        for arm in found:
            if name in arm.settings:
                kinds.setdefault(_kind(arm, name), Counter())[str(arm.settings[name])] += 1
        if all(len(values) == 1 for values in kinds.values()):
            continue
        for arm, words in zip(found, told, strict=True):
            if name in arm.settings:
                values = kinds[_kind(arm, name)]
                if values[str(arm.settings[name])] <= MAJORITY * values.total():
                    short = name.removeprefix(f"{AUXILIARY}.")
                    words.append(f"{short} {_number(arm.settings[name])}")
    for arm, label in zip(found, few_words(told, [arm.label for arm in found]), strict=True):
        arm.label = label


def _is_told(name: str) -> bool:
    """Whether a label names a setting anyway."""
    return name in LABEL_KEYS or name.startswith(("pretrain.task.", f"{AUXILIARY}.task."))


def _kind(arm: Arm, name: str) -> tuple[Any, ...]:
    """Arms of one kind have the same settings, with other values perhaps."""
    return () if name == "dataset.name" else tuple(map(arm.settings.get, KIND))


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else str(value)
