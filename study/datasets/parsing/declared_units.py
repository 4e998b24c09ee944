"""Units that a file declares: keys of a comment, attributes, arrays of text.

A key counts if it ends or begins with `unit` or `units`, such as `energy-unit`, `E_units`,
`unit_of_length`. What has an unknown name, such as `time_unit`, is the unit of something else; a
plain `units` must name units that are known, because it is of everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from study.core.quantities.units import energy_unit, force_unit, length_unit, stress_unit
from study.datasets.parsing.label_names import is_label

Kind = Literal["length", "energy", "forces", "stress"]
KEY = re.compile(r"(?:(?P<before>.*?)_?units?|units?_(?:of_)?(?P<after>.*))")
WORDS: dict[Kind, tuple[str, ...]] = {
    "length": (
        "r",
        "length",
        "distance",
        "pos",
        "position",
        "positions",
        "coord",
        "coords",
        "coordinate",
        "coordinates",
        "geometry",
        "cell",
        "lattice",
    ),
    "energy": ("e", "energy", "energies"),
    "forces": ("f", "force", "forces", "gradient", "gradients"),
    "stress": ("stress", "stresses"),
}
RULES = {
    "energy": energy_unit,
    "length": length_unit,
    "forces": force_unit,
    "stress": stress_unit,
}
ATOMIC = ("au", "a.u.", "atomic")


def declared(
    entries: Mapping[Any, Any], names: Mapping[Kind, str | None], *, told: bool = False
) -> dict[str, str]:
    """Units by what they are of: length, energy, forces, stress.

    Args:
        entries: keys with their values, of which those about units are text.
        names: of the labels in the file, whose own units come first.
        told: whether the user tells units, so that unknown ones are passed over.

    Raises:
        ValueError: if a plain `units` names none that is known.
    """
    found: dict[str, str] = {}
    own: dict[str, str] = {}
    for key, value in entries.items():
        match = KEY.fullmatch(str(key).lower().strip().replace("-", "_").replace(" ", "_"))
        text = text_of(value)
        if match is None or not text:
            continue
        what = match["before"] or match["after"] or ""
        if kind := _named(what, names):
            own[kind] = text
        elif kind := _known(what):
            found.setdefault(kind, text)
        elif not what and not told:
            found = _of_all(text, str(key)) | found
    return found | own


def text_of(value: Any) -> str:
    """A word of a file, whatever holds it; empty if it is none."""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size == 1 else ""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return str(value).strip() if isinstance(value, str) else ""


def _named(what: str, names: Mapping[Kind, str | None]) -> Kind | None:
    lower = {kind: name.lower().replace("-", "_") for kind, name in names.items() if name}
    return next((kind for kind, name in lower.items() if name == what), None)


def _known(what: str) -> Kind | None:
    for kind, words in WORDS.items():
        if what in words or (kind != "length" and what and is_label(what, kind)):
            return kind
    return None


def _of_all(text: str, key: str) -> dict[str, str]:
    """Units of a list such as `eV, Å`."""
    found: dict[str, str] = {}
    for word in filter(None, re.split(r"[,;{}\s]+", text)):
        unit = word.rpartition(":")[2].strip("'\"")
        kinds = [kind for kind, rule in RULES.items() if _suits(rule, unit)]
        if unit.lower() in ATOMIC:
            kinds = ["length", "energy"]
        found |= dict.fromkeys(kinds, unit)
    if not found:
        raise ValueError(
            f"declares `{key}` {text[:40]!r}, which names no unit that is known; say which they "
            "are with `units: {energy: …, length: …}`"
        )
    return found


def _suits(rule: Any, unit: str) -> bool:
    try:
        rule(unit)
    except ValueError:
        return False
    return True
