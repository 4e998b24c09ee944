"""Frames from `input.data` of RuNNer and n2p2: Bohr, Hartree and Hartree/Bohr, plain or zipped.

The format has no place for units: where they are others, the user says so, or a comment such as
`energy_unit=eV length_unit=Ang`. The file is read line by
line; structures without a lattice are molecules in vacuum. Frames whose comment names the same
`src=` are one group; those that name none may all be correlated and share a group too.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from study.core.errors import UserError
from study.core.quantities.elements import ATOMIC_NUMBERS, ISOTOPES
from study.core.quantities.units import length_unit
from study.datasets.frames import Frames
from study.datasets.parsing.declared_units import declared, suits
from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.text import number as real
from study.datasets.parsing.text import text_lines
from study.datasets.reading import PLAIN, Factors, Reading, Units

DEFAULT = ("Bohr", "Hartree", "Hartree/Bohr")

COLUMNS = {
    "atom": "atom x y z element charge unused fx fy fz",
    "lattice": "lattice x y z",
    "energy": "energy E",
    "charge": "charge Q",
}
"""Keywords whose lines have a fixed number of columns."""
SOURCE, LABELS = re.compile(r"\bsrc=(\S+)"), re.compile(r"\blabels=(.*\S)")
NAME = r"[^\W\d_]+(?:/[^\W\d_]+){0,2}"
BEFORE = re.compile(
    r"(?i:\Acomment|\bin|\bunits?|\benerg\w+|\bforces?|\blengths?|\bdistances?|\bpositions?"
    r"|\bcoordinates?|(?P<number>(?<!\S)[-+]?[\d.]+))[\s:(\[{]+"
    rf"(?=(?P<words>{NAME}(?:(?:\s*,\s*|\s+and\s+){NAME})*)(?![^\s)\]}},;:]))"
)
"""What is before words that are units, and those words."""
UNIT = re.compile(r"([\w-]*units?[\w-]*)\s*=\s*[\"']?([^\s\"']+)", re.IGNORECASE)


def holds_structures(path: Path) -> bool:
    """Whether it is such a file, by its name or its first word."""
    if path.is_dir():
        return False
    if path.name.removesuffix(".gz").endswith(".data") or not path.exists():
        return path.name.removesuffix(".gz").endswith(".data")
    with text_lines(path) as lines:
        first = next((line for line in islice(lines, 20) if line.strip()), "")
    return first.split()[:1] == ["begin"]


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """All structures of a file, in eV and Å.

    Raises:
        UserError: one line with file, line, rule and what is there instead.
    """
    reading = _Reading()
    number = 0
    with text_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                reading.take(line, number)
            except ValueError as problem:
                raise UserError(f"{path}:{number}: {problem}") from None
    if reading.began:
        raise UserError(
            f"{path}:{number}: the file must not end within a structure, but the one that begins "
            f"in line {reading.began} has no `end`; is the file complete?"
        )
    if not reading.energies:
        raise UserError(f"{path}: must hold a structure, `begin` to `end`, but holds none")
    words = dict.fromkeys(reading.words, True)
    with guarded(path):
        units = declared(words | reading.units, {}, told=given.units != Units(), usual=DEFAULT)
        return reading.frames(given.factors(DEFAULT, **units))


@dataclass
class _Reading:
    """What has been read so far, in the units of the file.

    Args:
        began: line of the `begin` of the open structure; 0 between structures.
        source: group of the open structure by its `src=`; -1 without one.
        offsets: first atom of each structure, then the number of all atoms.
        groups: of each structure that has ended.
        alone: whether each has no lattice.
        words: of comments, without keys.
    """

    numbers: array[int] = field(default_factory=lambda: array("B"))
    positions: array[float] = field(default_factory=lambda: array("d"))
    forces: array[float] = field(default_factory=lambda: array("d"))
    lattice: array[float] = field(default_factory=lambda: array("d"))
    energies: array[float] = field(default_factory=lambda: array("d"))
    offsets: list[int] = field(default_factory=lambda: [0])
    groups: list[int] = field(default_factory=list)
    alone: list[bool] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    units: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    began: int = 0
    source: int = -1

    def take(self, line: str, number: int) -> None:
        """Read one line.

        Raises:
            ValueError: naming the rule that it breaks.
        """
        words = line.split()
        if not words:
            return
        keyword = words[0]
        if keyword == "begin":
            self._begin(number)
        elif not self.began:
            raise ValueError(f"must be `begin`, but got {printable(line.strip()[:60])!r}")
        elif keyword == "atom":
            self._atom(words)
        elif keyword in COLUMNS:
            self._values(keyword, words)
        elif keyword == "comment":
            self._comment(line)
        elif keyword == "end":
            self._end()
        else:
            shown = printable(keyword[:40])
            raise ValueError(f"must be comment, lattice, atom, energy, charge or end: {shown!r}")

    def _begin(self, number: int) -> None:
        if self.began:
            raise ValueError(f"the structure that begins in line {self.began} must `end` first")
        self.began, self.source = number, -1

    def _atom(self, words: list[str]) -> None:
        if len(words) != 10:
            raise _wrong_columns("atom", words)
        values = _numbers(words[1:4] + words[7:])
        number = ATOMIC_NUMBERS.get(words[4]) or ISOTOPES.get(words[4])
        if number is None:
            raise ValueError(f"must name an element in column 5, but got {words[4]!r}")
        self.numbers.append(number)
        self.positions.extend(values[:3])
        self.forces.extend(values[3:])

    def _values(self, keyword: str, words: list[str]) -> None:
        if len(words) != len(COLUMNS[keyword].split()):
            raise _wrong_columns(keyword, words)
        values = _numbers(words[1:])
        if keyword == "lattice":
            self.lattice.extend(values)
        elif keyword == "energy":
            self.energies.extend(values)

    def _comment(self, line: str) -> None:
        if source := SOURCE.search(line):
            self.source = self.sources.setdefault(source[1], len(self.sources))
        if labels := LABELS.search(line):
            self.labels.add(labels[1])
        for key, unit in UNIT.findall(line):
            if self.units.setdefault(key, unit) != unit:
                raise ValueError(f"must have the `{key}` of earlier comments, but got {unit!r}")
        for before in BEFORE.finditer(line):
            words = re.split(r"[\s,]+", before["words"])
            # A length behind a number is that of something else, as in `box 20 Angstrom`.
            if not (before["number"] and suits(length_unit, words[0])):
                self.words |= set(words)

    def _end(self) -> None:
        ended = len(self.offsets) - 1
        vectors, energies = len(self.lattice) // 3 - 3 * ended, len(self.energies) - ended
        if vectors not in (0, 3):
            raise ValueError(
                f"a structure must have three lattice vectors or none, but this one has {vectors}"
            )
        if energies != 1:
            raise ValueError(f"a structure must have one energy, but this one has {energies}")
        if len(self.numbers) == self.offsets[-1]:
            raise ValueError("a structure must have an atom, but this one has none")
        self.alone.append(vectors == 0)
        if vectors == 0:
            self.lattice.extend([0.0] * 9)
        self.offsets.append(len(self.numbers))
        self.groups.append(self.source)
        self.began = 0

    def frames(self, factors: Factors) -> Frames:
        """All structures, converted."""
        positions = factors.length * np.array(self.positions).reshape(-1, 3)
        cells = factors.length * np.array(self.lattice).reshape(-1, 3, 3)
        return Frames(
            numbers=np.array(self.numbers),
            positions=positions,
            forces=factors.force * np.array(self.forces).reshape(-1, 3),
            offsets=np.array(self.offsets),
            cells=cells,
            energies=factors.energy * np.array(self.energies),
            groups=np.array(self.groups),
            pbc=~np.array(self.alone)[:, None].repeat(3, axis=1),
            origin={
                "units": factors.names,
                "factors": {"length": factors.length, "energy": factors.energy},
                "labels": sorted(self.labels),
            },
        )


def _wrong_columns(keyword: str, words: list[str]) -> ValueError:
    return ValueError(f"must be `{COLUMNS[keyword]}`, but has {len(words)} columns")


def _numbers(words: list[str]) -> list[float]:
    try:
        return [real(word) for word in words]
    except ValueError:
        shown = printable(" ".join(words)[:200])
        raise ValueError(f"must have finite numbers, but got {shown}") from None
