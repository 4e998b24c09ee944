"""Stresses of files, converted to eV/Å³ with the sign of ASE.

The stress is the derivative of the energy by strain over the volume, so it is positive where the
cell wants to shrink, and negative under pressure. A virial is −volume × stress, in the unit of
energies: QUIP (GAP), MACE, NequIP and DeePMD-kit write such. Six numbers are in Voigt's order, xx
yy zz yz xz xy; nine are a row-major matrix, which has to be symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from study.core.quantities.units import energy_unit
from study.datasets.parsing.arrays import Array, finite, real
from study.datasets.parsing.label_names import NAMES, is_label, plain
from study.datasets.reading import Factors, Reading

VOIGT = [0, 5, 4, 5, 1, 3, 4, 3, 2]
"""Places of the nine components of a matrix among six."""
TO_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Rows and columns of the six in a matrix."""
ASYMMETRY = 0.01
"""Largest difference of two components that are the same, as a share of the largest one."""
CLOSE, CLOSEST = 1e-3, 1e-6
"""Difference of two candidates that are the same stress, relative and in eV/Å³; files round."""
NO_CELL = "stress of frames that are not periodic along all three vectors left out"


def may_be_stress(name: str, value: Any, frames: int | None = None) -> bool:
    """Whether a value has the shape of one stress, or of one for each of some frames.

    Args:
        name: of a column, key or array.
        value: what it holds.
        frames: how many; none for the value of a single frame.
    """
    shape = np.shape(value) if isinstance(value, np.ndarray | list | tuple) else ()
    if frames is not None:
        fits = len(shape) > 1 and shape[0] == frames and _size(shape[1:]) in (6, 9)
    else:
        fits = _size(shape) in (6, 9)
    # What is there under the name and is none is refused later.
    odd = isinstance(value, str) or _size(shape) > (frames or 1)
    return fits or (odd and _kind(name) is not None)


def stress_names(values: Mapping[str, Any], given: Reading) -> list[str]:
    """Names of all that may be the stress, the first of which counts.

    Args:
        values: whose shapes fit.
        given: names that the user gives count alone.
    """
    asked = given.labels.stress or given.labels.virial
    if asked:
        return [asked] if asked in values else []
    known = [*NAMES["stress"], *NAMES["virial"]]
    names = [name for name in values if _kind(name)]
    return sorted(names, key=lambda name: (known.index(plain(name)), name != plain(name)))


def stresses(
    values: Mapping[str, Any],
    cells: Array,
    given: Reading,
    factors: Factors,
    units: Mapping[str, str] | None = None,
) -> Array | None:
    """The stresses of some frames, eV/Å³; none where no value is one.

    Args:
        values: by name, with six or nine numbers for each frame.
        cells: (F, 3, 3) Å, of frames that are periodic along all vectors.
        given: what the user says of the file.
        factors: of its units.
        units: of virials, by name, where they are not that of energies.

    Returns:
        (F, 3, 3).

    Raises:
        ValueError: if one is no stress, or two of them disagree.
    """
    first = None
    for name in stress_names(values, given):
        found = _tensors(values[name], name, len(cells))
        if given.labels.virial or _kind(name) == "virial":
            unit = (units or {}).get(name)
            found = _of_virials(found, cells, name, given, factors, unit)
        else:
            found = factors.stress * found
        if first is None:
            first, name_of_first = found, name
        elif not np.allclose(first, found, rtol=0, atol=CLOSE * np.abs(first).max() + CLOSEST):
            raise ValueError(
                f"has `{name_of_first}` and `{name}`, which disagree; say which of them is meant, "
                f"such as `labels: {{stress: {name_of_first}}}` (a virial is −volume × stress)"
            )
    return first


def _of_virials(
    virials: Array, cells: Array, name: str, given: Reading, factors: Factors, unit: str | None
) -> Array:
    """Stresses, eV/Å³: minus the virials over the volumes of their cells."""
    if given.units.stress:
        raise ValueError(
            f"`units.stress` is of stresses, but `{name}` is a virial, whose unit is that "
            "of energies; leave it out, or set `units.energy`"
        )
    energy = factors.energy
    if unit and not given.units.energy:
        try:
            energy = energy_unit(unit)
        except ValueError as problem:
            raise ValueError(f"the unit of `{name}` {problem}") from None
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = -energy * virials / np.abs(np.linalg.det(cells))[:, None, None]
    return found


def is_stress(name: str) -> bool:
    """Whether a name is a well-known one of a stress or a virial."""
    return _kind(name) is not None


def _kind(name: str) -> str | None:
    """Whether a name is that of a stress or of a virial."""
    return next((kind for kind in ("stress", "virial") if is_label(name, kind)), None)


def _tensors(values: Any, name: str, frames: int) -> Array:
    """(F, 3, 3) symmetric matrices in the unit of the file."""
    numbers = real(values, name)
    if numbers.size not in (6 * frames, 9 * frames):
        raise ValueError(
            f"must have `{name}` of 6 or 9 numbers a frame, but got shape {numbers.shape}"
        )
    rows = numbers.reshape(frames, -1)
    if frames > 1:
        finite(rows, name, frames)
    elif not np.isfinite(rows).all():
        raise ValueError(
            f"must have finite numbers as `{name}`, but has {rows[~np.isfinite(rows)][0]}"
        )
    whole = (rows[:, VOIGT] if rows.shape[1] == 6 else rows).reshape(frames, 3, 3)
    turned = np.swapaxes(whole, 1, 2)
    odd = np.abs(whole - turned).max(axis=(1, 2)) > ASYMMETRY * np.abs(whole).max(axis=(1, 2))
    if odd.any():
        raise ValueError(
            f"must have a symmetric `{name}`, but has {whole[int(odd.argmax())].tolist()}"
        )
    return np.asarray((whole + turned) / 2)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) if shape else 0
