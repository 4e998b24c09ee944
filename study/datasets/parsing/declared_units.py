"""Units that a file declares: keys of a comment, attributes, arrays of text.

A key counts if it ends or begins with `unit` or `units`, such as `energy-unit`, `E_units`,
`unit_of_length`. What has an unknown name, such as `time_unit`, is the unit of something else; a
plain `units` must name units that are known, because it is of everything. A name of a label such as
`energy_Ha` tells its unit, too. Two units of the same thing must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from study.core.quantities.units import energy_unit, force_unit, length_unit, stress_unit
from study.datasets.parsing.label_names import is_label, plain

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
NO_UNITS = ("a", "au", "atomic", "pm")
"""Words that mean something else more often, where they stand alone or in a name."""


def declared(
    entries: Mapping[Any, Any],
    names: Mapping[Kind, str | None],
    *,
    told: bool = False,
    usual: tuple[str, str, str] = ("Å", "eV", "eV/Å"),
) -> dict[str, str]:
    """Units by what they are of: length, energy, forces, stress.

    Args:
        entries: keys with their values, of which those about units are text.
        names: of the labels in the file, whose own units come first.
        told: whether the user tells units, so that unknown ones are passed over.
        usual: units of length, energy and forces that the format has.

    Raises:
        ValueError: if a plain `units` names none that is known, a unit stands there alone, or two
            disagree.
    """
    found: dict[str, str] = {}
    own = {kind: unit for kind, name in names.items() if name and (unit := _in_name(name, kind))}
    general: dict[str, str] = {}
    for key, value in _one_by_one(entries):
        what, text = _declaration(key), text_of(value)
        if value is True and not told:
            _require_no_unit(str(key), usual)
        if what is None or not text:
            continue
        if kind := _named(what, names):
            own[kind] = text if told else _same(own.get(kind), text, kind)
        elif kind := _known(what):
            found[kind] = text if told else _same(found.get(kind), text, kind)
        elif not what and not told:
            general |= _of_all(text, str(key))
    return general | found | own


def _one_by_one(entries: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values, of which a mapping under `units` gives one for each of its own keys."""
    for key, value in entries.items():
        if isinstance(value, Mapping) and _declaration(key) == "":
            yield from ((f"unit of {name}", unit) for name, unit in value.items())
        else:
            yield key, value


def unit_of(entries: Mapping[Any, Any], name: str) -> str:
    """The unit that entries tell of a virial by its name; empty if they tell none."""
    wanted = (name.lower().replace("-", "_"), plain(name))
    units = {_declaration(key): text_of(value) for key, value in _one_by_one(entries)}
    return next((units[each] for each in wanted if units.get(each)), "")


def _declaration(key: Any) -> str | None:
    """What a key tells the unit of, empty if that is everything; none if it tells no unit."""
    match = KEY.fullmatch(str(key).lower().strip().replace("-", "_").replace(" ", "_"))
    return (match["before"] or match["after"] or "") if match else None


def _same(earlier: str | None, unit: str, kind: Kind) -> str:
    """The unit, if another of the same thing is equal.

    Raises:
        ValueError: if it is not.
    """
    if earlier is None or earlier == unit:
        return unit
    rule = RULES[kind]
    if not (suits(rule, earlier) and suits(rule, unit) and rule(earlier) == rule(unit)):
        raise ValueError(
            f"declares {earlier!r} and {unit!r} as units of {kind}; say which it is with "
            f"`units: {{{kind}: …}}`"
        )
    return unit


def _require_no_unit(word: str, usual: tuple[str, str, str]) -> None:
    """Refuse a word such as the last one of `energy=-76.3 Ha`, which says of nothing what it is.

    Args:
        word: without a key.
        usual: units of length, energy and forces, which are as good as none.

    Raises:
        ValueError: naming it.
    """
    unit = word.strip("()[]{},;:")
    if unit.lower() in NO_UNITS:
        return
    for kind, known in zip(("length", "energy", "forces"), usual, strict=True):
        rule = RULES[kind]
        if suits(rule, unit) and rule(unit) != rule(known):
            raise ValueError(
                f"has the word `{unit}` without a key; write `{kind}-unit={unit}`, or say "
                f"`units: {{{kind}: …}}`"
            )


def _in_name(name: str, kind: Kind) -> str:
    """The unit in a name such as `energy_kcal_mol` or `forces(eV/A)`; empty if there is none."""
    words = [word for word in re.split(r"[_\s()\[\]]+|per(?=_)", name) if word][1:]
    ends = ("/".join(words[start:]) for start in range(len(words)))
    return next(
        (end for end in ends if end.lower() not in NO_UNITS and suits(RULES[kind], end)), ""
    )


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
        kinds = [kind for kind, rule in RULES.items() if suits(rule, unit)]
        if unit.lower() in ATOMIC:
            kinds = ["length", "energy"]
        found |= dict.fromkeys(kinds, unit)
    if not found:
        raise ValueError(
            f"declares `{key}` {text[:40]!r}, which names no unit that is known; say which they "
            "are with `units: {energy: …, length: …}`"
        )
    return found


def suits(rule: Any, unit: str) -> bool:
    """Whether a rule of `core.quantities.units` knows a unit."""
    try:
        rule(unit)
    except ValueError:
        return False
    return True
