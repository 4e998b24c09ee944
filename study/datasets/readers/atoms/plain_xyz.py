"""Frames of extxyz, of which ASE is asked only for the first of each kind of comment.

Comments of one kind differ in plain numbers, the cell and the group alone. ASE and the rules for
labels make the same of all of them, so what they make of the first serves for the others, of which
only the numbers are read. A frame with anything else in it is ASE's to read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.quantities.elements import ATOMIC_NUMBERS
from study.core.quantities.properties import PROPERTIES
from study.datasets.parsing.label_names import FREE, is_label, plain, sign_of
from study.datasets.readers.atoms.extxyz import read_frame
from study.datasets.readers.atoms.labelled import GROUP, Labelled, labelled
from study.datasets.reading import Reading

PAIR = r"([\w-]+)=(\"[^\"\\]*\"|[^\s\"'{}\[\]\\,=]+)"
PAIRS = re.compile(PAIR, re.ASCII)
COMMENT = re.compile(rf"\s*(?:{PAIR}(?:\s+|$))+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d{1,18}|\d+(?=[eE]))([eE][+-]?\d+)?", re.ASCII)
COUNT = re.compile(r"\+?\d+|-0+", re.ASCII)
"""What may be a number of something, and no energy."""
NAME = re.compile(r"[A-Za-z][\w.-]*|0|-?[1-9]\d{0,17}", re.ASCII)
"""Of a group, as ASE gives it back."""
NO_NAMES = ("t", "f", "true", "false", "nan", "inf", "infinity")
"""What ASE takes for a truth or a number."""


@dataclass(frozen=True)
class _Comment:
    """A comment whose kind is told from what is its own.

    Args:
        kind: all else of it.
        numbers: plain ones, by key.
        lattice: nine numbers, or none.
        group: name, or nothing.
    """

    kind: tuple[str, ...]
    numbers: dict[str, str]
    lattice: list[str]
    group: str

    @classmethod
    def read(cls, text: str) -> _Comment | None:
        """Read a comment; None if it has anything but keys with plain values."""
        if not COMMENT.fullmatch(text):
            return None
        kind, numbers, lattice, group = [], dict[str, str](), list[str](), ""
        pairs = PAIRS.findall(text)
        for key, value in pairs:
            if key == "Lattice" and _are_nine(words := value.strip('"').split()):
                lattice, value = words, "nine"
            elif key == GROUP and NAME.fullmatch(value) and value.lower() not in NO_NAMES:
                group, value = f"{GROUP}={value}", "a name"
            elif key.lower() not in (GROUP, *PROPERTIES) and NUMBER.fullmatch(value):
                numbers[key], value = value, "a count" if COUNT.fullmatch(value) else "a number"
            kind.append(f"{key}={value}")
        keys = {key.lower() for key, _ in pairs}
        return cls(tuple(kind), numbers, lattice, group) if len(keys) == len(pairs) else None

    @property
    def columns(self) -> list[str]:
        """Names, kinds and widths of the columns of the atoms."""
        told = (word.partition("=")[2] for word in self.kind if word.startswith("Properties="))
        return next(told, "species:S:1:pos:R:3").strip('"').split(":")


@dataclass(frozen=True)
class _Kind:
    """How frames of a kind are read.

    Args:
        first: of them, as ASE reads it.
        energy: key of the energy; none if it is that of the first.
        width: words of an atom.
        positions: their columns, after that of the element.
        forces: likewise; none if they have none.
    """

    first: Labelled
    energy: str | None
    width: int
    positions: slice
    forces: slice | None

    @classmethod
    def of(cls, first: Labelled, comment: _Comment, given: Reading) -> _Kind | None:
        """What serves for all frames of a kind; None if ASE must read each."""
        names, kinds, widths = (comment.columns[start::3] for start in range(3))
        if names[:1] + kinds[:1] + widths[:1] != ["species", "S", "1"] or first.names["stress"]:
            return None
        ends = np.cumsum([int(width) for width in widths[1:]]).tolist()
        places = {
            name: slice(end - int(width), end)
            for name, width, end in zip(names[1:], widths[1:], ends, strict=True)
        }
        keys = [word.partition("=")[0] for word in comment.kind]
        energies = [key for key in keys if is_label(key, "energy") and plain(key) != FREE]
        forces = [key for key in (*keys, *names) if is_label(key, "forces")]
        # Of several it depends on their values which is taken, or whether the frame is refused.
        several = (len(energies) > 1 and not given.labels.energy) or (
            len(forces) > 1 and not given.labels.forces
        )
        force, energy = first.names["forces"], first.names["energy"]
        alike = set(kinds[1:]) == {"R"} and len(places) == len(ends) and "pos" in places
        if several or not alike or (force and force not in places):
            return None
        return cls(
            first,
            energy if energy in comment.numbers else None,
            1 + ends[-1],
            places["pos"],
            places[force] if force else None,
        )

    def read(self, comment: _Comment, rows: list[str]) -> Labelled | None:
        """Read a frame of this kind; None if its atoms have anything but elements and numbers."""
        first, factors = self.first, self.first.factors
        table = _table(rows, self.width)
        if table is None:
            return None
        numbers, values = table
        forces = first.forces
        if self.forces:
            forces = sign_of(first.names["forces"]) * factors.force * values[:, self.forces]
        energy = float(comment.numbers[self.energy]) if self.energy else None
        lattice = np.array(list(map(float, comment.lattice)))
        if not (energy is None or math.isfinite(energy)) or not np.isfinite(lattice).all():
            return None
        return Labelled(
            numbers,
            factors.length * values[:, self.positions],
            factors.length * lattice.reshape(3, 3) if comment.lattice else first.cell,
            first.pbc,
            first.energy if energy is None else factors.energy * energy,
            forces,
            first.stress,
            comment.group or first.group,
            first.names,
            factors,
            first.properties,
            first.others,
            first.remarks,
        )


class PlainReader:
    """Reads frames as ASE and `labelled` do.

    Args:
        given: what the user says of the file.
    """

    def __init__(self, given: Reading) -> None:
        self.given = given
        self.kinds: dict[Any, _Kind | None] = {}

    def frame(self, text: str, rows: list[str]) -> Labelled:
        """One frame of its comment and the lines of its atoms.

        Raises:
            ValueError: if it is none.
            UserError: likewise.
        """
        comment = _Comment.read(text)
        kind = self.kinds.get((len(rows), comment.kind)) if comment else None
        if comment and kind and (quick := kind.read(comment, rows)):
            return quick
        found = labelled(read_frame(text, rows), self.given)
        if comment and (len(rows), comment.kind) not in self.kinds:
            kind = _Kind.of(found, comment, self.given)
            self.kinds[len(rows), comment.kind] = kind
        return found


def _are_nine(words: list[str]) -> bool:
    return len(words) == 9 and all(map(NUMBER.fullmatch, words))


def _table(rows: list[str], width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Atomic numbers (N,) and the other columns (N, width − 1); None if anything is odd in them."""
    text = "".join(rows)
    words = text.split()
    symbols = words[::width]
    whole = len(words) == width * len(rows) and text.isascii() and "_" not in text
    if not whole or [row.split(None, 1)[0] for row in rows] != symbols:
        return None
    numbers = [ATOMIC_NUMBERS.get(symbol, 0) for symbol in symbols]
    del words[::width]
    try:
        values = np.array(list(map(float, words))).reshape(len(rows), width - 1)
    except ValueError:
        return None
    return (np.array(numbers), values) if all(numbers) and np.isfinite(values).all() else None
