"""Frames from `input.data` of RuNNer and n2p2: Bohr, Hartree and Hartree/Bohr, plain or gzipped.

The file is read line by line. Frames whose comment names the same `src=` are one group; those
that name none may all be correlated and share a group too.
"""

from __future__ import annotations

import gzip
import re
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TextIO

import numpy as np

from study.core.elements import ATOMIC_NUMBERS
from study.core.errors import UserError
from study.core.units import BOHR, HARTREE, HARTREE_PER_BOHR
from study.datasets.frames import Frames

COLUMNS = {
    "atom": "atom x y z element charge unused fx fy fz",
    "lattice": "lattice x y z",
    "energy": "energy E",
    "charge": "charge Q",
}
"""Keywords whose lines have a fixed number of columns."""
SOURCE, LABELS = re.compile(r"\bsrc=(\S+)"), re.compile(r"\blabels=(.*\S)")


def read(path: Path) -> Frames:
    """All structures of a file, in eV and Å.

    Raises:
        UserError: one line with file, line, rule and what is there instead.
    """
    reading = _Reading()
    number = 0
    with _lines(path) as lines:
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
    return reading.frames()


@contextmanager
def _lines(path: Path) -> Iterator[TextIO]:
    """The text of a plain or gzipped file."""
    try:
        with path.open("rb") as opened:
            zipped = opened.read(2) == b"\x1f\x8b"
        opener = gzip.open if zipped else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as lines:
            yield lines
    except (EOFError, OSError, zlib.error) as problem:
        raise UserError(f"{path}: cannot be read to its end ({problem})") from None


@dataclass
class _Reading:
    """What has been read so far, in the units of the file.

    Args:
        began: line of the `begin` of the open structure; 0 between structures.
        source: group of the open structure by its `src=`; -1 without one.
        offsets: first atom of each structure, then the number of all atoms.
        groups: of each structure that has ended.
    """

    numbers: array[int] = field(default_factory=lambda: array("B"))
    positions: array[float] = field(default_factory=lambda: array("d"))
    forces: array[float] = field(default_factory=lambda: array("d"))
    lattice: array[float] = field(default_factory=lambda: array("d"))
    energies: array[float] = field(default_factory=lambda: array("d"))
    offsets: list[int] = field(default_factory=lambda: [0])
    groups: list[int] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
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
            raise ValueError(f"must be `begin`, but got {line.strip()[:60]!r}")
        elif keyword == "atom":
            self._atom(words)
        elif keyword in COLUMNS:
            self._values(keyword, words)
        elif keyword == "comment":
            self._comment(line)
        elif keyword == "end":
            self._end()
        else:
            raise ValueError(f"must be comment, lattice, atom, energy, charge or end: {keyword!r}")

    def _begin(self, number: int) -> None:
        if self.began:
            raise ValueError(f"the structure that begins in line {self.began} must `end` first")
        self.began, self.source = number, -1

    def _atom(self, words: list[str]) -> None:
        if len(words) != 10:
            raise _wrong_columns("atom", words)
        values = _numbers(words[1:4] + words[7:])
        number = ATOMIC_NUMBERS.get(words[4])
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

    def _end(self) -> None:
        ended = len(self.offsets) - 1
        vectors, energies = len(self.lattice) // 3 - 3 * ended, len(self.energies) - ended
        if vectors != 3:
            raise ValueError(
                f"a structure must have three lattice vectors, but this one has {vectors}; "
                "structures without a cell are not supported yet"
            )
        if energies != 1:
            raise ValueError(f"a structure must have one energy, but this one has {energies}")
        if len(self.numbers) == self.offsets[-1]:
            raise ValueError("a structure must have an atom, but this one has none")
        self.offsets.append(len(self.numbers))
        self.groups.append(self.source)
        self.began = 0

    def frames(self) -> Frames:
        """All structures, converted."""
        return Frames(
            numbers=np.array(self.numbers),
            positions=BOHR * np.array(self.positions).reshape(-1, 3),
            forces=HARTREE_PER_BOHR * np.array(self.forces).reshape(-1, 3),
            offsets=np.array(self.offsets),
            cells=BOHR * np.array(self.lattice).reshape(-1, 3, 3),
            energies=HARTREE * np.array(self.energies),
            groups=np.array(self.groups),
            origin={
                "units": {"length": "Bohr", "energy": "Hartree", "force": "Hartree/Bohr"},
                "factors": {"Bohr": BOHR, "Hartree": HARTREE},
                "labels": sorted(self.labels),
            },
        )


def _wrong_columns(keyword: str, words: list[str]) -> ValueError:
    return ValueError(f"must be `{COLUMNS[keyword]}`, but has {len(words)} columns")


def _numbers(words: list[str]) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [float("nan")]
    if not isfinite(sum(values)):
        raise ValueError(f"must have finite numbers, but got {' '.join(words)}")
    return values
