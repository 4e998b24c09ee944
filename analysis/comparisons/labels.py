"""Names of models, data sets, tasks and settings in tables and figures."""

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
"""Folder of the work that a trial starts from, or file of a foundation model."""
PACKAGE, TRAINED_ON = "pretrain.package", "pretrain.trained_on"
"""Which package made that foundation model, and of what."""
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
    "painn": "PaiNN",
    "visnet": "ViSNet",
    "equivariant_transformer": "Equivariant Transformer",
    "se3_transformer": "SE(3)-Transformer",
    "mace": "MACE",
    "tensornet": "TensorNet",
    "dimenet_plus_plus": "DimeNet++",
    "nequip": "NequIP",
    "tip3p_water": "TIP3P water",
    "rpbe_water": "RPBE-D3 water",
    "qm9": "QM9",
    "ani1x": "ANI-1x",
}
"""Names as the papers write them; everything else is called as in the space."""
TAILORED = "GNS-TAT"
"""GNS with tailored activations (arXiv:2206.00133)."""
SHORTEST = 3
"""A setting's last word of at most so many letters needs the word before it."""

Row = Mapping[Any, Any]


def model_label(row: Row) -> str:
    """Name of the model of a trial."""
    tailored = row.get("model.name") == "gns" and row.get("model.activation") == "tailored"
    return TAILORED if tailored else _name(row.get("model.name"))


def data_label(row: Row, prefix: str = "dataset.") -> str:
    """Name of a data set: the file's name, else that of the data set."""
    path = row.get(f"{prefix}path")
    return _name(row.get(f"{prefix}name")) if missing(path) else PurePath(str(path)).name


def task_label(row: Row, prefix: str = PRETEXT) -> str:
    """Name of a pretext task with its ratio or noise scale; empty if there is none."""
    name = row.get(f"{prefix}name")
    if missing(name):
        return ""
    if name == "mixed":
        return _mixed(str(row.get(f"{prefix}tasks")))
    label = _name(name)
    for size in ("masking_ratio", "noise_scale"):
        value: Any = row.get(prefix + size)
        label += "" if missing(value) else f" {float(value):g}"
    label += " bonds" * (row.get(f"{prefix}within") == "bonds")
    atom = row.get(f"{prefix}atom")
    label += "" if missing(atom) or atom == "hydrogen" else f" {atom}"
    return label + " placebo" * truth(row.get(f"{prefix}placebo"))


def pretext_label(row: Row) -> str:
    """Name of a trial's pretraining, or of the weights that it starts from; empty if neither."""
    start = row.get(START)
    if missing(start):
        return task_label(row)
    # Folders elsewhere may have the same name.
    content = f"({str(row.get(CONTENT))[:8]})"
    if missing(row.get(PACKAGE)):
        return f"from {PurePath(str(start)).name} {content}"
    return f"foundation {PurePath(str(start)).stem} {content}"


def auxiliary_label(row: Row) -> str:
    """Name of an auxiliary task beside finetuning; empty if there is none."""
    task = task_label(row, f"{AUXILIARY}task.")
    weight: Any = row.get(f"{AUXILIARY}weight")
    # A trial that ended before it began has no settings in some records.
    at_weight = "" if weight is None or pd.isna(weight) else f" at weight {float(weight):g}"
    return f"auxiliary {task}{at_weight}" if task else ""


def other_data_label(row: Row) -> str:
    """Name of the pretraining data where it differs from the trial's, with its settings."""
    if missing(row.get(f"{OTHER_DATA}name")):
        return ""
    label = f"pretrained on {data_label(row, OTHER_DATA)}"
    if row[f"{OTHER_DATA}name"] != row.get("dataset.name"):
        return label
    own = {str(key).removeprefix(OTHER_DATA): key for key in row if str(key).startswith(OTHER_DATA)}
    own.pop("path", None)
    unlike = [name for name, key in own.items() if _differ(row[key], row.get(f"dataset.{name}"))]
    listed = ", ".join(setting_label(words_of(name), row[own[name]]) for name in unlike)
    return f"{label} ({listed})" if listed else label


def setting_label(words: str, value: Any) -> str:
    """A setting and its value."""
    if isinstance(value, bool | np.bool_):
        return words if value else f"not {words}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value_text(value)}"


def value_text(value: Any) -> str:
    """A setting's value in words, also where the records hold a list or a mapping as text."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if not text.startswith(("[", "{")):
        return text
    try:
        return _in_words(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _in_words(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("task"), dict):
        weight = f" at weight {value['weight']:g}" if "weight" in value else ""
        return task_label({PRETEXT + name: each for name, each in value["task"].items()}) + weight
    if isinstance(value, dict):
        return ", ".join(f"{words_of(str(name))} {_in_words(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def spelled(row: Row, name: str, words: Mapping[str, str]) -> str:
    """Setting of a trial as part of its arm's name."""
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
    """Dotted name → as few of its last words as identify it."""
    names = list(names)
    short = {}
    for name in names:
        parts = name.split(".")
        kept = 1 if len(parts[-1]) > SHORTEST else 2
        while kept < len(parts) and _ambiguous(parts[-kept:], names):
            kept += 1
        short[name] = words_of(" ".join(parts[-kept:]))
    return short


def words_of(name: str) -> str:
    """A name of the code in words."""
    return name.replace("_", " ")


def missing(value: Any) -> bool:
    """Check whether a cell of a table is empty."""
    return value is None or bool(pd.isna(value))


def truth(value: Any) -> bool:
    """Check whether a cell of a table is true."""
    return not missing(value) and str(value) == "True"


def _name(value: Any) -> str:
    return NAMES.get(str(value), words_of(str(value)))


def _mixed(tasks: str) -> str:
    try:
        parts = [part["task"] for part in ast.literal_eval(tasks)]
        labels = [task_label({f"{PRETEXT}{key}": part[key] for key in part}) for part in parts]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return "mixed"
    return " + ".join(labels)


def _ambiguous(parts: Sequence[str], names: Iterable[str]) -> bool:
    ending = "." + ".".join(parts)
    return sum(f".{name}".endswith(ending) for name in names) > 1


def _differ(one: Any, other: Any) -> bool:
    return missing(one) != missing(other) or not (missing(one) or str(one) == str(other))
