"""What models, data sets, tasks and settings are called in tables and figures."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd

PRETEXT = "pretrain.task."
OTHER_DATA = "pretrain.dataset."
"""Settings of another data set to pretrain on."""
AUXILIARY = "finetune.task.auxiliary."
"""Settings of a pretext task that goes on while finetuning."""
AUXILIARY_TASK = f"{AUXILIARY}task.name"
TASK = f"{PRETEXT}name"
START = "pretrain.from"
"""Folder of the work that a trial starts from."""
CONTENT = "pretrain.sha256"
"""SHA-256 of the weights in there."""
RATIO = f"{PRETEXT}masking_ratio"
NOISE = f"{PRETEXT}noise_scale"
LABELS = "finetune.frames"
EPOCHS = "finetune.epochs"
SCRATCH = "from scratch"

NAMES = {
    "egnn": "EGNN",
    "gns": "GNS",
    "forcenet": "ForceNet",
    "schnet": "SchNet",
    "visnet": "ViSNet",
    "tip3p_water": "TIP3P water",
    "rpbe_water": "RPBE-D3 water",
    "qm9": "QM9",
    "ani1x": "ANI-1x",
}
"""What has a name of its own in the papers; all else is called as the space calls it."""
TAILORED = "GNS-TAT"
"""GNS with tailored activations (arXiv:2206.00133)."""
SHORTEST = 3
"""A setting's last word of so few letters says nothing without the one before."""

Row = Mapping[Any, Any]


def model_label(row: Row) -> str:
    """Of the model of a trial."""
    tailored = row.get("model.name") == "gns" and row.get("model.activation") == "tailored"
    return TAILORED if tailored else _name(row.get("model.name"))


def data_label(row: Row, prefix: str = "dataset.") -> str:
    """Of a data set: of a file its name, because how it is read says little."""
    path = row.get(f"{prefix}path")
    return _name(row.get(f"{prefix}name")) if missing(path) else PurePath(str(path)).name


def task_label(row: Row, prefix: str = PRETEXT) -> str:
    """Of a pretext task, with its size; empty if there is none."""
    name = row.get(f"{prefix}name")
    if missing(name):
        return ""
    if name == "mixed":
        return _mixed(str(row.get(f"{prefix}tasks")))
    told = _name(name)
    for size in ("masking_ratio", "noise_scale"):
        value: Any = row.get(prefix + size)
        told += "" if missing(value) else f" {float(value):g}"
    told += " bonds" * (row.get(f"{prefix}within") == "bonds")
    atom = row.get(f"{prefix}atom")
    told += "" if missing(atom) or atom == "hydrogen" else f" {atom}"
    return told + " placebo" * truth(row.get(f"{prefix}placebo"))


def pretext_label(row: Row) -> str:
    """Of how a trial was pretrained, or of the work that it starts from; empty if neither."""
    start = row.get(START)
    if missing(start):
        return task_label(row)
    # Folders elsewhere may have the same name.
    return f"from {PurePath(str(start)).name} ({str(row.get(CONTENT))[:8]})"


def auxiliary_label(row: Row) -> str:
    """Of a pretext task beside finetuning; empty if there is none."""
    told = task_label(row, f"{AUXILIARY}task.")
    weight: Any = row.get(f"{AUXILIARY}weight")
    return f"auxiliary {told} at weight {float(weight):g}" if told else ""


def other_data_label(row: Row) -> str:
    """Of the data set to pretrain on, if it is another one: what tells it from the trial's."""
    if missing(row.get(f"{OTHER_DATA}name")):
        return ""
    told = f"pretrained on {data_label(row, OTHER_DATA)}"
    if row[f"{OTHER_DATA}name"] != row.get("dataset.name"):
        return told
    own = {str(key).removeprefix(OTHER_DATA): key for key in row if str(key).startswith(OTHER_DATA)}
    own.pop("path", None)
    unlike = [name for name, key in own.items() if _differ(row[key], row.get(f"dataset.{name}"))]
    listed = ", ".join(setting_label(words_of(name), row[own[name]]) for name in unlike)
    return f"{told} ({listed})" if listed else told


def setting_label(words: str, value: Any) -> str:
    """A setting and its value."""
    if isinstance(value, bool | np.bool_):
        return words if value else f"not {words}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def spelled(row: Row, name: str, words: Mapping[str, str]) -> str:
    """A setting of a trial as the name of its arm tells it."""
    if name == "model.name":
        return model_label(row)
    if name in {"dataset.name", "dataset.path"}:
        return data_label(row)
    if name == EPOCHS:
        return f"{row[name]} epochs"
    if name == LABELS:
        return f"{row[name]} labels"
    return setting_label(words[name], row[name])


def short_words(names: Iterable[str]) -> dict[str, str]:
    """Dotted name → as few of its words as tell it from all others."""
    names = list(names)
    found = {}
    for name in names:
        parts = name.split(".")
        kept = 1 if len(parts[-1]) > SHORTEST else 2
        while kept < len(parts) and _ambiguous(parts[-kept:], names):
            kept += 1
        found[name] = words_of(" ".join(parts[-kept:]))
    return found


def words_of(name: str) -> str:
    """A name of the code in words."""
    return name.replace("_", " ")


def missing(value: Any) -> bool:
    """Whether a cell of a table is empty."""
    return value is None or bool(pd.isna(value))


def truth(value: Any) -> bool:
    """Whether a cell of a table holds true."""
    return not missing(value) and str(value) == "True"


def _name(value: Any) -> str:
    return NAMES.get(str(value), words_of(str(value)))


def _mixed(tasks: str) -> str:
    try:
        parts = [part["task"] for part in ast.literal_eval(tasks)]
        told = [task_label({f"{PRETEXT}{key}": part[key] for key in part}) for part in parts]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return "mixed"
    return " + ".join(told)


def _ambiguous(parts: Sequence[str], names: Iterable[str]) -> bool:
    ending = "." + ".".join(parts)
    return sum(f".{name}".endswith(ending) for name in names) > 1


def _differ(one: Any, other: Any) -> bool:
    return missing(one) != missing(other) or not (missing(one) or str(one) == str(other))
