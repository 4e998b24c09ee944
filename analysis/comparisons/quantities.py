"""The error metrics of a study: of forces and energies, energies alone, or a property."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from analysis.records.study_tables import Study, remembered
from study.core.quantities.metrics import METRICS

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
        """`force error`, for sentences."""
        if self.own:
            return self.in_sentence
        return f"{_lowered(self.label.rpartition(' ')[0])} error"

    @property
    def in_sentence(self) -> str:
        """`force RMSE`, for sentences."""
        return _lowered(self.label)

    @property
    def in_words(self) -> str:
        """`force RMSE (meV/Å)`, for axes."""
        return f"{self.in_sentence} ({self.unit})" if self.unit else self.in_sentence

    @property
    def own(self) -> bool:
        """Whether it is a metric of the user's own, which has no unit here."""
        return f"test_{self.name}" not in METRICS

    @property
    def per_frame(self) -> bool:
        """Check for the error of a whole frame, which repeats another quantity's per atom."""
        return self.name.startswith("frame_")


FORCE = Quantity("force_rmse", "Force RMSE", "meV/Å")
ENERGY = Quantity("energy_rmse", "Energy RMSE", "meV/atom")
FRAME_ENERGY = Quantity("frame_energy_rmse", "Energy RMSE", "meV/frame")
STRESS = Quantity("stress_rmse", "Stress RMSE", "meV/Å³")
QUANTITIES = (FORCE, ENERGY, FRAME_ENERGY)
NAMES = {"homo": "HOMO", "lumo": "LUMO", "zpve": "ZPVE", "r2": "R²"}
"""Properties with another spelling in text."""


@remembered
def quantities(study: Study) -> tuple[Quantity, ...]:
    """Error metrics in the order of the tables; the study is judged by the first.

    That is one of the user's own if it ranks the trials; others of the user's own come last.
    """
    own, shipped = _own(study), _shipped(study)
    judged_by = str(study.facts["space"].get("metric", "")).removeprefix("val_")
    first = [quantity for quantity in own if quantity.name == judged_by]
    return (*first, *shipped, *(quantity for quantity in own if quantity not in first))


def tabled(study: Study) -> tuple[Quantity, ...]:
    """The same with the error of stresses, if trials have it, which nothing is judged by."""
    name, shown = f"test_{STRESS.name}", quantities(study)
    measured = name in study.trials and np.isfinite(study.trials[name].astype(float)).any()
    return (*shown, STRESS) if measured and STRESS not in shown else shown


def _own(study: Study) -> list[Quantity]:
    """Metrics of the user's own that a completed trial has recorded."""
    tested = [name for name in map(str, study.trials) if name.startswith("test_")]
    return [
        _quantity(name.removeprefix("test_"), "")
        for name in tested
        if name not in METRICS
        and f"trivial_{name.removeprefix('test_')}" in study.trials
        and np.isfinite(study.trials[name].astype(float)).any()
    ]


def _shipped(study: Study) -> tuple[Quantity, ...]:
    """Errors that tasks of this package measure.

    For forces and energies these are the RMSEs; for other properties all errors that a completed
    trial has recorded, in the unit of the table's schema.
    """
    forces = study.curves.metric.isin([f"val_{FORCE.name}"]).any()
    recorded = [
        name.removeprefix("test_")
        for name in map(str, study.trials)
        if re.fullmatch("test_.+_(rmse|mae)", name)
        and name in METRICS
        and np.isfinite(study.trials[name].astype(float)).any()
    ]
    if forces or FORCE.name in recorded or not recorded:
        return QUANTITIES
    metric = str(study.facts["space"].get("metric", "")).removeprefix("val_")
    first = (
        metric if metric in recorded else min(recorded, key=lambda name: not name.endswith("_mae"))
    )
    order = [first, *(name for name in recorded if name != first)]
    return tuple(_quantity(name, study.units.get(f"test_{name}", "1")) for name in order)


def lead(study: Study) -> Quantity:
    """The error by which the study is judged."""
    return quantities(study)[0]


def charted(study: Study) -> tuple[Quantity, ...]:
    """The errors of figures and of the table of the first evaluation."""
    return tuple(q for q in quantities(study) if not q.per_frame)[:2]


def metric_of(study: Study) -> str:
    """The metric that the search minimized."""
    return str(study.facts["space"].get("metric", "val_force_rmse"))


def quantity_of(study: Study, metric: str) -> Quantity:
    """The quantity of a validation metric."""
    name = metric.removeprefix("val_")
    by_name = {q.name: q for q in quantities(study)}
    return by_name.get(name) or _quantity(name, study.units.get(f"test_{name}", "eV"))


def _quantity(name: str, unit: str) -> Quantity:
    if f"test_{name}" not in METRICS:
        words = name.replace("_", " ")
        return Quantity(name, f"{words[:1].upper()}{words[1:]}", "", scale=1)
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
