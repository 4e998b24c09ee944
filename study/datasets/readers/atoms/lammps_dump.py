"""Frames of LAMMPS dumps (docs.lammps.org/dump.html), custom text, plain or zipped.

Types are no elements: the file has a column `element`, or the user says which they are,
`species: [O, H]`. Forces are labels; a dump has no energy. Without `ITEM: UNITS` numbers are those
of the style `metal`: Å and eV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from study.core.errors import UserError
from study.core.quantities.elements import SYMBOLS, atomic_number
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.text import number, text_lines, whole
from study.datasets.reading import Reading

if TYPE_CHECKING:
    from ase import Atoms

HEAD = "ITEM: "
STYLES = {
    "metal": ("Å", "eV", "eV/Å"),
    "real": ("Å", "kcal/mol", "kcal/mol/Å"),
    "electron": ("Bohr", "Hartree", "Hartree/Bohr"),
}
"""Units of length, energy and forces."""
PLACES = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))
FORCES = ("fx", "fy", "fz")


BOUNDARY = re.compile(r"[pfsm]{2}")
"""How a box ends at two sides: periodic, fixed, shrink-wrapped."""


def is_dump(path: Path) -> bool:
    """Whether a file begins as a dump does."""
    try:
        with text_lines(path) as lines:
            first = next((line for line in islice(lines, 20) if line.strip()), "")
    except UserError:
        return False
    return first.startswith(HEAD)


def frames(path: Path, given: Reading) -> Iterator[Atoms]:
    """All steps of a dump.

    Raises:
        UserError: naming the first frame that cannot be read.
    """
    count, item, style = 0, "", "metal"
    with text_lines(path) as lines:
        parts: dict[str, list[str]] = {}
        for line in lines:
            if not line.startswith(HEAD):
                if line.strip():
                    _require_room(item, parts, f"{path}: frame {count - 1} (from 0)")
                    parts.setdefault(item, []).append(line)
                continue
            item = line.removeprefix(HEAD).strip()
            with guarded(f"{path}: frame {count} (from 0)"):
                if item.startswith("ATOMS"):
                    (size,) = (whole(text.strip()) for text in parts["NUMBER OF ATOMS"])
                    rows = list(islice(lines, size))
                    if len(rows) < size:
                        raise ValueError(f"must have {size} atoms, but has {len(rows)}")
                    style = parts["UNITS"][0].strip() if "UNITS" in parts else style
                    yield _atoms(item.split()[1:], rows, parts, style, given)
                    count, parts = count + 1, {}
    with guarded(f"{path}: frame {count} (from 0)"):
        if parts.keys() - {"UNITS"}:
            raise ValueError("must have atoms, but the file ends before them")


def _require_room(item: str, parts: dict[str, list[str]], where: str) -> None:
    """Refuse lines after the atoms, of which there are more than the frame says.

    Raises:
        UserError: if there are such lines.
    """
    if item.startswith("ATOMS") and not parts:
        raise UserError(f"{where}: has more lines than its number of atoms says")


def _atoms(
    names: list[str], rows: list[str], parts: dict[str, list[str]], style: str, given: Reading
) -> Atoms:
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    if style not in STYLES:
        raise ValueError(f"must have units {', '.join(STYLES)}, but has {style!r}")
    table = [row.split() for row in rows]
    if any(len(words) != len(names) for words in table):
        raise ValueError(f"must have the columns {' '.join(names)} for every atom")
    if "id" in names:
        place = names.index("id")
        table.sort(key=lambda words: whole(words[place]))
        if len({words[place] for words in table}) < len(table):
            raise ValueError("must have a different `id` for every atom")
    columns = dict(zip(names, zip(*table, strict=True), strict=True)) if table else {}
    bounds = next(key for key in parts if key.startswith("BOX BOUNDS"))
    origin, cell = _cell(parts[bounds])
    flags = [word for word in bounds.split()[2:] if BOUNDARY.fullmatch(word)]
    if bounds.split()[2:3] == ["abc"]:
        raise ValueError("must have a box xlo xhi xy …, but has `abc origin`; write it without")
    positions = _places(columns, cell, origin)
    atoms: Any = Atoms(
        numbers=_elements(columns, given),
        positions=positions,
        cell=cell,
        pbc=[flag == "pp" for flag in flags] if flags else True,
    )
    length, energy, force = STYLES[style]
    atoms.info |= {"length-unit": length, "energy-unit": energy, "force-unit": force}
    if set(FORCES) <= columns.keys():
        forces = np.array([[number(word) for word in columns[name]] for name in FORCES]).T
        atoms.calc = SinglePointCalculator(atoms, forces=forces)  # type: ignore[no-untyped-call]
    result: Atoms = atoms
    return result


def _cell(lines: list[str]) -> tuple[Any, Any]:
    """Origin and vectors of a box, whose bounds enclose it where it is tilted."""
    rows = np.array([[number(word) for word in line.split()] for line in lines])
    low, high = rows[:, 0].copy(), rows[:, 1].copy()
    xy, xz, yz = rows[:, 2] if rows.shape[1] > 2 else np.zeros(3)
    low[0] -= min(0.0, xy, xz, xy + xz)
    high[0] -= max(0.0, xy, xz, xy + xz)
    low[1] -= min(0.0, yz)
    high[1] -= max(0.0, yz)
    x, y, z = high - low
    return low, np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])


def _places(columns: dict[str, Any], cell: Any, origin: Any) -> Any:
    """(N, 3) from the corner of the box, of whichever columns are there."""
    for names in PLACES:
        if set(names) <= columns.keys():
            values = np.array([[number(word) for word in columns[name]] for name in names]).T
            return values @ cell if "s" in names[0] else values - origin
    raise ValueError("must have columns x y z, xu yu zu, xs ys zs or xsu ysu zsu")


def _elements(columns: dict[str, Any], given: Reading) -> list[int]:
    """Atomic numbers, of the column `element` or of the user's `species`."""
    if given.species:
        kinds = given.elements()
        if "type" not in columns:
            raise ValueError("must have a column `type`, of which `species` names the elements")
        types = [whole(word) for word in columns["type"]]
        if min(types) < 1 or max(types) > len(kinds):
            raise ValueError(
                f"has atom types {min(types)} to {max(types)}, but `species` names {len(kinds)} "
                "elements, from type 1 on"
            )
        found = [kinds[each - 1] for each in types]
        for number, symbol in zip(found, columns.get("element", ()), strict=False):
            if atomic_number(symbol) != number:
                raise ValueError(
                    f"has the column `element` with {symbol}, where `species` says "
                    f"{SYMBOLS[number - 1]}; leave `species` out, or take the column out"
                )
        return found
    if "element" in columns:
        return [atomic_number(symbol) for symbol in columns["element"]]
    types = sorted({whole(word) for word in columns.get("type", ())})
    raise ValueError(
        f"has atom types {', '.join(map(str, types))}, which are no elements; say which they are, "
        f"in their order, such as `species: [O, H]` (--species O,H)"
    )
