"""Invariants that every metric must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from study.checks.finding import run_check
from study.core.errors import UserError
from study.tasks.base_config import MetricConfig
from study.tasks.metrics import FrameValues, made_up, noised, own_errors, try_out


def _lower_is_better(settings: MetricConfig) -> str:
    try:
        try_out([settings])
    except UserError as error:
        return str(error)
    return ""


def _any_order(settings: MetricConfig) -> str:
    labels = made_up()
    predicted, metric = noised(labels), {settings.name: settings.build()}
    (value,) = own_errors(metric, predicted, labels).values()
    (other,) = own_errors(metric, _reversed(predicted), _reversed(labels)).values()
    if np.isclose(value, other, rtol=1e-9):
        return ""
    return f"frames in another order must give the same, but gave {other:g} and not {value:g}"


def _reversed(values: FrameValues) -> FrameValues:
    frames = len(values.energies)
    assert values.forces is not None
    assert values.stress is not None
    return FrameValues(
        energies=values.energies[::-1],
        forces=values.forces[::-1],
        stress=values.stress[::-1],
        species=values.species[::-1],
        frame=frames - 1 - values.frame[::-1],
    )


CHECKS: dict[str, Callable[[MetricConfig], str]] = {
    "it is lower for better predictions": _lower_is_better,
    "the order of frames changes nothing": _any_order,
}


def examine(settings: MetricConfig) -> Iterator[tuple[str, str]]:
    """Run all checks of a metric; yield the name and the problem of each, empty if it passed."""
    for name, check in CHECKS.items():
        yield name, run_check(check, settings)
