"""The grid that repeats the best of a search beside its baseline, on seeds that chose nothing."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.hashing import digest
from study.scheduling.journal import Entry
from study.scheduling.objectives import keeps_limits
from study.space.distributions import by_optuna, fill
from study.space.overrides import with_absolute_paths
from study.space.search_space import Space
from study.space.trial import Trial
from study.space.yaml_loader import as_block, write_yaml


@dataclass(frozen=True)
class Confirmation:
    """What a search has found, to be shown again.

    Args:
        space: of the search.
        winner: the proposal with the lowest validation error, among those with most seeds.
        trial: the `trial` of the new space; a choice of two where the winner is not pretrained,
            which then stands beside the best one that is.
        spread: standard deviation over seeds of the log-ratio of the winner's test error to its
            baseline's; not a number if the search has fewer than three pairs.
        seeds: that the search has used.
    """

    space: Space
    winner: Trial
    trial: dict[str, Any]
    spread: float
    seeds: frozenset[int]

    def text(self, name: str, seeds: int) -> str:
        """The space as YAML.

        Args:
            name: of the search's study.
            seeds: how many new ones to run.
        """
        settings = self.space.settings
        fresh = (seed for seed in itertools.count() if seed not in self.seeds)
        content = {
            "question": f"Is what the search {name} found better than its baseline on new seeds?",
            "seeds": list(itertools.islice(fresh, seeds)),
            "metric": settings.metric,
            "baseline": True,
            "resources": settings.resources.model_dump(mode="json"),
            "trial": self.trial,
        }
        return f"{HEAD.format(name=name)}{write_yaml(content)}"


HEAD = """\
# Written at the end of the search {name}: its winner beside its baseline, as a grid. The seeds are
# ones that the search has not used, because those that chose the winner flatter it. The baseline
# is the winner without pretraining; `tune:` would tune both alike.
"""


def confirmation(space: Space, entries: Iterable[Entry]) -> Confirmation | None:
    """What the journal of a search says to confirm; None before a proposal has completed."""
    known = list(entries)
    errors: dict[str, dict[int, float]] = {}
    for entry in known:
        result, search = entry.result, space.settings.search
        if result is None or not keeps_limits(result, search):
            continue
        if result.status == "completed" and entry.values:
            trial = entry.planned.work.trial
            errors.setdefault(_identity(trial), {})[trial.seed] = min(entry.values)
    proposals = [entry.planned for entry in known if not entry.planned.exempt]
    ranked = sorted(
        (each for each in proposals if _identity(each.work.trial) in errors),
        key=lambda each: _rank(errors[_identity(each.work.trial)]),
    )
    if not ranked:
        return None
    winner = ranked[0].work.trial
    pretrained = [each for each in ranked if each.work.trial.pretrain is not None]
    chosen = [ranked[0], *([] if winner.pretrain else pretrained[:1])]
    bodies = [_filled(space, each.parameters) for each in chosen]
    body = bodies[0] if len(bodies) == 1 else {"choice": bodies}
    seeds = frozenset(entry.planned.work.trial.seed for entry in known)
    return Confirmation(space, winner, body, _spread(space, winner, known), seeds)


def _identity(trial: Trial) -> str:
    """A trial whatever its seed."""
    return digest(trial.model_dump(mode="json", exclude={"seed"}))


def _rank(errors: Mapping[int, float]) -> tuple[int, float]:
    """Most seeds first, then the lowest mean."""
    return -len(errors), statistics.fmean(errors.values())


def _spread(space: Space, winner: Trial, entries: Iterable[Entry]) -> float:
    metric = f"test_{space.settings.metric.removeprefix('val_')}"
    pair = [_identity(each) for each in (winner, space.from_scratch(winner))]
    logs: dict[str, dict[int, float]] = {name: {} for name in pair}
    for entry in entries:
        trial, result = entry.planned.work.trial, entry.result
        error = result.metrics.get(metric, math.nan) if result else math.nan
        if _identity(trial) in logs and error > 0:
            logs[_identity(trial)][trial.seed] = math.log(error)
    mine, theirs = (logs[name] for name in pair)
    ratios = [mine[seed] - theirs[seed] for seed in mine.keys() & theirs.keys()]
    return statistics.stdev(ratios) if len(ratios) > 2 else math.nan


def _filled(space: Space, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The trial of a proposal as JSON, in which files have names that hold from anywhere."""
    body = as_block(fill(space.body, by_optuna(_Recorded(parameters))))
    plain: dict[str, Any] = json.loads(json.dumps(with_absolute_paths(body, HERE)))
    return plain


HERE = Path("here.yaml")
"""Names of files from the command line, such as `--data`, are relative to the current folder."""


class _Recorded:
    """Fills holes with what was proposed before.

    Args:
        parameters: by the dotted name of the hole.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """The option that was chosen."""
        del choices
        return self.parameters[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """The number that was proposed."""
        del low, high, step, log
        return float(self.parameters[name])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """The whole number that was proposed."""
        del low, high, step, log
        return int(self.parameters[name])
