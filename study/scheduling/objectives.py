"""Several objectives: what a trial has of each, which trials keep the limits, and the front."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from study.core.records import JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.space.settings import Search


def with_measures(
    result: JobResult, work: Job, errors: Mapping[int, Mapping[str, float]], names: Iterable[str]
) -> JobResult:
    """The result of a completed trial with what it has of each name among its metrics.

    Validation errors are those of the weights that were kept.

    Args:
        result: of the trial.
        work: the trial.
        errors: its metrics by epoch.
        names: validation errors and costs.
    """
    if result.status != "completed":
        return result
    costs = _costs(result, work)
    best = errors.get(int(result.metrics.get("best_epoch", max(errors, default=0))), {})
    found = {name: costs[name] if name in costs else best.get(name, math.inf) for name in names}
    return replace(result, metrics=result.metrics | found)


def _costs(result: JobResult, work: Job) -> dict[str, float]:
    facts, seconds = result.facts, result.metrics.get("seconds", math.inf)
    stage = work.training
    steps = stage.epochs * math.ceil(facts.get("train_frames", 0) / stage.batch_size)
    memory = facts.get("gpu_memory_mb", facts.get("peak_memory_mb", math.inf))
    return {
        "seconds": seconds,
        "step_seconds": seconds / steps if steps else math.inf,
        "flops": result.metrics.get("flops", math.inf),
        "parameters": float(facts.get("parameters", math.inf)),
        "peak_memory": memory / 1024,
    }


def keeps_limits(result: JobResult, search: Search | None) -> bool:
    """Whether a trial has at most what the search allows; what was not measured counts as kept."""
    limits = (search.at_most if search else None) or {}
    return all(result.metrics.get(name, -math.inf) <= limit for name, limit in limits.items())


def best_first(values: Mapping[int, Sequence[float]]) -> list[int]:
    """Trials in the order in which they deserve to be repeated.

    First come those that no other one beats in every objective, then the others, each by the first
    objective.

    Args:
        values: of the objectives by the trial's number; lower is better.
    """
    best = set(front(values))
    return sorted(values, key=lambda number: (number not in best, values[number][0]))


def front(values: Mapping[int, Sequence[float]]) -> list[int]:
    """The Pareto front: trials to which no other is equal or better in all, and better in one.

    Args:
        values: as for `best_first`.

    Returns:
        Their numbers by the first objective.
    """
    found: list[int] = []
    # Whoever beats a trial comes before it in this order, or is beaten itself by one that does.
    for number in sorted(values, key=lambda number: tuple(values[number])):
        if not any(_beats(values[other], values[number]) for other in found):
            found.append(number)
    return found


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front_of(entries: Mapping[int, Entry], search: Search | None) -> list[Entry]:
    """Completed proposals of a search with several objectives that form its Pareto front.

    Args:
        entries: of the study's journal.
        search: of its space; without several objectives there is no front.
    """
    names = (search.objectives if search else None) or []
    values = {
        number: [entry.result.metrics[name] for name in names]
        for number, entry in entries.items()
        if _counts(entry, names) and entry.result is not None and keeps_limits(entry.result, search)
    }
    return [entries[number] for number in front(values)] if names else []


def _counts(entry: Entry, names: Sequence[str]) -> bool:
    """Whether a trial is a completed proposal that has all objectives."""
    result = entry.result
    if result is None or entry.planned.exempt:
        return False
    return result.status == "completed" and all(name in result.metrics for name in names)
