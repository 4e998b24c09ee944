"""What a study's errors are of: forces and energies, energies alone, or a property."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from analysis.records.study_tables import Study, remembered

MILLI = 1000
"""Tables and figures show meV; records hold eV."""


@dataclass(frozen=True)
class Quantity:
    """An error that is reported.

    Args:
        name: metric without `test_` or `val_`.
        label: in words.
        unit: of the tables and figures.
        scale: from the unit of the records to that.
    """

    name: str
    label: str
    unit: str
    scale: float = MILLI

    @property
    def error(self) -> str:
        """What it is an error of, in a sentence."""
        return f"{_lowered(self.label.rpartition(' ')[0])} error"

    @property
    def in_sentence(self) -> str:
        """What it is called in a sentence."""
        return _lowered(self.label)

    @property
    def in_words(self) -> str:
        """As an axis names it."""
        return f"{self.in_sentence} ({self.unit})"

    @property
    def per_frame(self) -> bool:
        """Whether it says of another quantity's atoms the same of whole frames."""
        return self.name.startswith("frame_")


FORCE = Quantity("force_rmse", "Force RMSE", "meV/Å")
ENERGY = Quantity("energy_rmse", "Energy RMSE", "meV/atom")
FRAME_ENERGY = Quantity("frame_energy_rmse", "Energy RMSE", "meV/frame")
QUANTITIES = (FORCE, ENERGY, FRAME_ENERGY)
NAMES = {"homo": "HOMO", "lumo": "LUMO", "zpve": "ZPVE", "r2": "R²"}
"""Properties that are written otherwise than they are called."""


@remembered
def quantities(study: Study) -> tuple[Quantity, ...]:
    """What the study's tables report: first what it is judged by, then those like it.

    Of forces and energies the root mean squares; of what is learned in their place all errors that
    a completed trial tells, in the unit that the table's schema names.
    """
    forces = study.curves.metric.isin([f"val_{FORCE.name}"]).any()
    told = [
        name.removeprefix("test_")
        for name in map(str, study.trials)
        if re.fullmatch("test_.+_(rmse|mae)", name)
        and np.isfinite(study.trials[name].astype(float)).any()
    ]
    if forces or FORCE.name in told or not told:
        return QUANTITIES
    metric = str(study.facts["space"].get("metric", "")).removeprefix("val_")
    first = metric if metric in told else min(told, key=lambda name: not name.endswith("_mae"))
    order = [first, *(name for name in told if name != first)]
    return tuple(_quantity(name, study.units.get(f"test_{name}", "1")) for name in order)


def lead(study: Study) -> Quantity:
    """What the study is judged by."""
    return quantities(study)[0]


def charted(study: Study) -> tuple[Quantity, ...]:
    """What figures show, and what is also told of the first evaluation."""
    return tuple(q for q in quantities(study) if not q.per_frame)[:2]


def quantity_of(study: Study, metric: str) -> Quantity:
    """What a validation metric is an error of."""
    name = metric.removeprefix("val_")
    known = {q.name: q for q in quantities(study)}
    return known.get(name) or _quantity(name, study.units.get(f"test_{name}", "eV"))


def _quantity(name: str, unit: str) -> Quantity:
    frame = name.startswith("frame_")
    what, _, kind = name.removeprefix("frame_").rpartition("_")
    words = NAMES.get(what, what.replace("_", " "))
    label = f"{words[:1].upper()}{words[1:]} {kind.upper()}"
    if not unit.startswith("eV"):
        return Quantity(name, label, unit, scale=1)
    return Quantity(name, label, f"m{unit}{'/frame' if frame else ''}")


def _lowered(label: str) -> str:
    """A label within a sentence; symbols stay as they are."""
    return label if label[:2].isupper() or label[1:2] == "²" else label[:1].lower() + label[1:]
