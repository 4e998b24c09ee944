"""Errors of the user's own, functions of predictions and labels, beside those that tasks measure.

Needs no torch, so that they are tried before a study starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.core.user_traceback import described, place_of

Metric = Callable[["FrameValues", "FrameValues"], float]


@dataclass(frozen=True)
class FrameValues:
    """Energies, forces and stresses of F frames with N atoms together: predicted ones, or labels.

    Numbers are float64. A label that a frame lacks is NaN. Frames come in any order, the same for
    predictions and labels.

    Args:
        energies: (F,) of the frames, eV; in a task `scalar` its target, in that one's unit.
        forces: (N, 3) eV/Å; None in a task `scalar`.
        stress: (F, 3, 3) eV/Å³, NaN of frames without a volume; None where the model or the data
            have none.
        species: (N,) atomic numbers.
        frame: (N,) frame of each atom, from 0.
    """

    energies: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    species: NDArray[np.int64]
    frame: NDArray[np.int64]


def joined(parts: Sequence[FrameValues]) -> FrameValues:
    """The values of several batches, whose frames are counted on."""
    starts = np.cumsum([0, *(len(part.energies) for part in parts)])

    def all_of(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if any(each is None for each in found) else np.concatenate(found)

    frames = [part.frame + start for part, start in zip(parts, starts, strict=False)]
    values = {name: all_of(name) for name in ("energies", "forces", "stress", "species")}
    return FrameValues(**values, frame=np.concatenate(frames))


def alike(*values: FrameValues) -> list[FrameValues]:
    """Predictions and labels without what one of both lacks."""
    lacking: dict[str, Any] = {
        name: None for each in values for name, value in vars(each).items() if value is None
    }
    return [replace(each, **lacking) for each in values]


def own_errors(
    metrics: Mapping[str, Metric], predicted: FrameValues, labels: FrameValues
) -> dict[str, float]:
    """What each metric gives; not a number, unasked, where some prediction is none.

    Raises:
        UserError: if one raises, or gives anything but a finite number from 0 on.
    """
    forces = () if predicted.forces is None else predicted.forces
    if not (np.isfinite(predicted.energies).all() and np.isfinite(forces).all()):
        return dict.fromkeys(metrics, np.nan)
    return {name: _value(name, each, predicted, labels) for name, each in metrics.items()}


def _value(name: str, metric: Metric, predicted: FrameValues, labels: FrameValues) -> float:
    try:
        given = np.asarray(metric(predicted, labels), dtype=np.float64)
    # Whatever the user's code raises is the answer.
    except Exception as problem:
        raise UserError(f"metric {name}: {described(problem)}") from None
    if given.shape == () and 0 <= given < np.inf:
        return float(given)
    shown = f"an array of shape {given.shape}" if given.shape else f"{given:g}"
    raise UserError(
        f"metric {name}: must be one finite number >= 0, lower for better predictions, but is "
        f"{shown} ({place_of(metric)})"
    )


def try_out(metrics: Iterable[Any], *, forces: bool = True) -> None:
    """Try metrics on made-up labels of all elements, and on the same with noise.

    Args:
        metrics: settings of some, whose `build` can be called.
        forces: whether there are forces, and perhaps stresses.

    Raises:
        UserError: if one cannot be built, fails, or calls the noise better than the labels.
    """
    for settings in metrics:
        name = settings.name
        try:
            metric = settings.build()
        # Whatever the user's code raises is the answer.
        except Exception as problem:
            raise UserError(f"metric {name}: {described(problem)}") from None
        labels = made_up(forces=forces)
        (best,) = own_errors({name: metric}, labels, labels).values()
        (worse,) = own_errors({name: metric}, noised(labels), labels).values()
        if worse < best:
            raise UserError(
                f"metric {name}: must be lower for better predictions, but is {best:g} for the "
                f"labels themselves and {worse:g} for others ({place_of(metric)}); turn it round"
            )


def made_up(*, forces: bool = True) -> FrameValues:
    """Labels of three frames with two atoms of each element."""
    random, species = np.random.default_rng(0), np.tile(np.arange(1, 119), 6)
    return FrameValues(
        energies=random.normal(size=3),
        forces=random.normal(size=(len(species), 3)) if forces else None,
        stress=random.normal(size=(3, 3, 3)) if forces else None,
        species=species,
        frame=np.repeat(np.arange(3), 236),
    )


def noised(labels: FrameValues) -> FrameValues:
    """The same with noise as large as they are."""
    random = np.random.default_rng(1)
    values = {
        name: value + random.normal(size=value.shape)
        for name in ("energies", "forces", "stress")
        if (value := getattr(labels, name)) is not None
    }
    return replace(labels, **values)
