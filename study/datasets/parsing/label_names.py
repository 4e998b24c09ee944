"""Which columns, keys or arrays of a file are its labels.

Names are compared in lower case, without `ref_`, `dft_`, `qm_` or `target_` before or after them:

| label | names |
|---|---|
| energy | energy, total_energy, potential_energy, totenergy, etot, toten, e_tot, e, free_energy |
| forces | forces, force, atomic_forces, total_forces, total_force, f |
| stress | stress, stresses, stress_tensor |
| virial | virial, virials, virial_tensor |

A virial is a stress, too: see `parsing.stress`. Where a file has several that disagree, or has
others, `labels: {energy: …, forces: …, stress: …}` says which. Forces under a name with `grad` in
it are gradients, and their sign is turned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

Label = Literal["energy", "forces", "stress", "virial"]
SOURCE = re.compile(r"^(ref|dft|qm|target)[_-]?|[_-](ref|dft|qm|target)$")
NAMES: dict[Label, tuple[str, ...]] = {
    "energy": (
        "energy",
        "total_energy",
        "potential_energy",
        "totenergy",
        "etot",
        "toten",
        "e_tot",
        "e",
        "free_energy",
    ),
    "forces": ("forces", "force", "atomic_forces", "total_forces", "total_force", "f"),
    "stress": ("stress", "stresses", "stress_tensor"),
    "virial": ("virial", "virials", "virial_tensor"),
}
"""By label, in the order in which equal ones are taken."""
FREE = "free_energy"
"""Of smeared electrons; it differs from the energy beside it by right, and counts without one."""
OTHER_ENERGIES = (
    "kinetic",
    "interaction",
    "binding",
    "formation",
    "cohesive",
    "atomization",
    "zero-point",
    "repulsion",
    "dispersion",
    "correlation",
    "exchange",
    "solvation",
    "relative",
    "reference",
)
"""Words before `energy` that make it another one than the total one."""
CLOSE = 1e-6
"""Relative difference of two candidates that are the same label twice."""


def plain(name: str) -> str:
    """A name as it is compared."""
    return SOURCE.sub("", name.lower().strip())


def sign_of(name: str | None) -> float:
    """Factor from an array to forces: -1 if its name says that it is a gradient."""
    return -1.0 if name and "grad" in name.lower() else 1.0


def sign_remarks(name: str | None) -> tuple[str, ...]:
    """What to say where the sign of an array is turned."""
    return (f"forces are `{name}` with their sign turned",) if sign_of(name) < 0 else ()


def is_label(name: str, label: Label) -> bool:
    """Whether a name is one of the well-known ones."""
    return plain(name) in NAMES[label]


def chosen(values: Mapping[str, Any], label: Label, asked: str | None) -> str | None:
    """The name of a label among those that are there.

    Args:
        values: by name, of one frame or of many.
        label: which.
        asked: name that the user gives; it need not be in every frame.

    Raises:
        ValueError: if two of them disagree.
    """
    if asked is not None:
        return asked if asked in values else None
    known = NAMES[label]
    names = [name for name in values if is_label(name, label)]
    names.sort(key=lambda name: (known.index(plain(name)), name != plain(name)))
    if not names:
        return None
    first = names[0]
    for other in names[1:]:
        if plain(other) != FREE and not _equal(values[first], values[other]):
            raise ValueError(
                f"has `{first}` and `{other}`, which disagree; say which of them is meant, such as "
                f"`labels: {{{label}: {other}}}`"
            )
    return first


def _equal(one: Any, other: Any) -> bool:
    try:
        first, second = (np.asarray(each, dtype=np.float64).reshape(-1) for each in (one, other))
    except (TypeError, ValueError):
        return False
    return first.shape == second.shape and np.allclose(first, second, rtol=CLOSE, atol=CLOSE)
