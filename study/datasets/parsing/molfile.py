"""Molecules of an SDF, one molfile after the other, V2000 or V3000."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TextIO

from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.text import number, whole
from study.datasets.reading import Factors


def records(file: TextIO) -> Iterator[list[str]]:
    """The lines of each molecule of an SDF."""
    lines: list[str] = []
    for line in file:
        if line.startswith("$$$$"):
            yield lines
            lines = []
        else:
            lines.append(line)
    if any(line.strip() for line in lines):
        yield lines


def sdf_molecule(lines: list[str], where: str, factors: Factors) -> tuple[list[str], list[float]]:
    """Of a molfile V2000, counts in columns of three, coordinates of ten; or of V3000."""
    with guarded(where):
        if len(lines) < 4:
            raise ValueError("must have a line of counts, the fourth, but ends before it")
        _require_one_end(lines)
        if "V3000" in lines[3]:
            rows = _v3000(lines)
            symbols, words = [row[0] for row in rows], [row[1:4] for row in rows]
        else:
            count = whole(lines[3][:3].strip())
            atoms = lines[4 : 4 + count]
            if len(atoms) < count:
                raise ValueError(f"must have {count} atoms, but has {len(atoms)}")
            _require_end(lines, count)
            symbols = [line[31:34].strip() for line in atoms]
            words = [[line[place : place + 10].strip() for place in (0, 10, 20)] for line in atoms]
        if not symbols:
            raise ValueError("must have an atom, but has none")
        return symbols, [factors.length * number(word) for row in words for word in row]


def _require_one_end(lines: list[str]) -> None:
    """Refuse what was cut off, and two molecules without `$$$$` between them.

    Raises:
        ValueError: if there is not one end.
    """
    ends = sum(line.startswith("M  END") for line in lines)
    if ends == 0:
        raise ValueError("must end with `M  END`, but does not; is the file complete?")
    if ends > 1 or sum(line.rstrip().endswith(("V2000", "V3000")) for line in lines) > 1:
        raise ValueError("must end with `$$$$` before the next molecule")


def _require_end(lines: list[str], atoms: int) -> None:
    """Refuse a molfile whose counts leave out an atom.

    Raises:
        ValueError: if what follows atoms and bonds is neither a property nor the end.
    """
    bonds = whole(lines[3][3:6].strip() or "0")
    place = 4 + atoms + bonds + whole(lines[3][6:9].strip() or "0")
    after = lines[place] if len(lines) > place else ""
    if not re.match(r"[A-Z]  ", after):
        raise ValueError(
            f"must have {atoms} atoms and {bonds} bonds, and then properties or `M  END`, but has "
            f"{printable(after.strip()[:40])!r}"
        )


def _v3000(lines: list[str]) -> list[list[str]]:
    """Element and coordinates of each atom of a molfile V3000 (BIOVIA, CTfile formats)."""
    text = "".join(lines).replace("-\nM  V30 ", "")
    rows = [line.removeprefix("M  V30 ").split() for line in text.splitlines()]
    marks = [" ".join(row) for row in rows]
    if "BEGIN ATOM" not in marks or "END ATOM" not in marks:
        raise ValueError("must have `BEGIN ATOM` and `END ATOM`, but has not")
    atoms = rows[marks.index("BEGIN ATOM") + 1 : marks.index("END ATOM")]
    counts = next((row for row in rows if row[:1] == ["COUNTS"]), [])
    if len(counts) > 1 and whole(counts[1]) != len(atoms):
        raise ValueError(f"must have {counts[1]} atoms, but has {len(atoms)}")
    return [row[1:5] for row in atoms]
