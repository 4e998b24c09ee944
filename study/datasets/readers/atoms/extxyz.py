"""Frames of xyz and extxyz files, each handed to ASE by itself so that none is lost.

ASE ends at the first blank line between frames; here such lines are passed over, and what is no
frame is refused. Deuterium and tritium are hydrogen. Comments are read as in `comments`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import UserError
from study.core.quantities.elements import ATOMIC_NUMBERS, ISOTOPES
from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.text import plain_suffix, text_lines
from study.datasets.readers.atoms.comments import read_comment, restored

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = (".xyz", ".extxyz")
PROPERTIES = re.compile(r"Properties\s*=\s*[\"']?([\w:.-]+)", re.IGNORECASE)
ODD = re.compile(r"(?<![A-Za-z_\d.])[+-]?\d[\d.]*_\d")
"""`1_0`, which Python takes for 10."""
ODD_ENERGY = re.compile(r"(?i)\be\w*\s*=\s*[\"']?[+-]?[\d.]+_\d|_energy\s*=\s*[\"']?[+-]?[\d.]+_\d")
COUNT = re.compile(r"\s*\d{1,12}\s*", re.ASCII)
ATOM = re.compile(r"\s*[A-Za-z0-9]{1,3}(\s+[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?){3}", re.ASCII)
NO_POSITIONS = re.compile(r"-(frc|vel)-\d+\.(ext)?xyz", re.IGNORECASE)
"""CP2K's files of forces and velocities, which look as its positions do."""
EXPONENT = re.compile(r"(?<![\w.])([-+]?(?:\d+\.\d*|\.\d+))[dD]([-+]?\d+)(?![\w.])", re.ASCII)
"""A number as Fortran writes it."""
ELEMENTS = {"species", "symbols", "Z", "numbers"}
PLACES = {"pos", "positions"}
"""Columns of the atoms that ASE takes for elements and for positions."""
LATTICE = re.compile(r"Lattice\s*=\s*[\"'{][^\"'}]*", re.IGNORECASE)
BETWEEN = re.compile(r"[\s=,\"'{}\[\]]+")
"""What stands between the words of a comment."""
MOST_BLANK = 10_000
"""Lines between two frames."""
UNNAMED = "unnamed columns"
"""Key of a frame's info: how many columns of its atoms `Properties` does not name."""


def is_xyz(path: Path) -> bool:
    """Whether the name is that of such a file, plain or zipped, or its first lines are such."""
    return has_name(path) or _begins_so(path)


def has_name(path: Path) -> bool:
    """Whether the name is that of such a file, plain or zipped."""
    return plain_suffix(path) in SUFFIXES


def _begins_so(path: Path) -> bool:
    """Whether there is a number of atoms, a comment, and a symbol with three numbers."""
    try:
        with text_lines(path) as lines:
            count, _, atom = (next(lines, "") for _ in range(3))
    except UserError:
        return False
    return COUNT.fullmatch(count) is not None and ATOM.match(atom) is not None


def frames(path: Path) -> Iterator[Atoms]:
    """All frames of a file.

    Raises:
        UserError: naming the first frame that cannot be read.
    """
    if NO_POSITIONS.search(path.name):
        raise UserError(
            f"{path}: must hold positions, but by its name it has CP2K's forces or velocities; "
            "name its file of positions, *-pos-*.xyz"
        )
    with text_lines(path) as lines:
        yield from frames_in(lines, path)


def frames_in(lines: Iterator[str], path: Path) -> Iterator[Atoms]:
    """The frames in some lines of a file; see `frames`."""
    count = blank = 0
    ahead = next(lines, None)
    while ahead is not None:
        blank = 0 if ahead.strip() else blank + 1
        if blank > MOST_BLANK:
            raise UserError(f"{path}: must not have {blank} blank lines in a row")
        if blank:
            ahead = next(lines, None)
            continue
        where = f"{path}: frame {count} (from 0)"
        with guarded(where):
            comment, rows, ahead = frame_lines(ahead, lines)
            yield read_frame(comment, rows)
        count += 1


def frame_lines(head: str, lines: Iterator[str]) -> tuple[str, list[str], str | None]:
    """Comment and atoms of a frame, and the line that comes after it."""
    if not COUNT.fullmatch(head):
        raise ValueError(
            f"must begin with its number of atoms, but got {printable(head.strip()[:40])!r}"
        )
    count = int(head)
    if count == 0:
        raise ValueError("must have an atom")
    comment = next(lines, "")
    rows = [line for line in islice(lines, count) if line.strip()]
    if len(rows) < count:
        raise ValueError(f"must have a line for each of its {count} atoms, but has {len(rows)}")
    ahead = next(lines, None)
    while ahead is not None and ahead.startswith("VEC"):
        rows.append(ahead)
        ahead = next(lines, None)
    return comment, rows, ahead


def read_frame(comment: str, rows: list[str]) -> Atoms:
    """One frame of its comment and the lines of its atoms.

    Raises:
        ValueError: if its numbers are no numbers.
    """
    from ase.io.extxyz import read_xyz

    comment, extra = read_comment(EXPONENT.sub(r"\1e\2", comment))
    named = PROPERTIES.search(comment)
    columns = (named[1] if named else "species:S:1:pos:R:3").split(":")
    _require_columns(columns[::3])
    widths = [int(width) for width in columns[2::3]]
    # The rows of most files have no such letter, and are soon searched for it.
    rows = [EXPONENT.sub(r"\1e\2", row) if "D" in row or "d" in row else row for row in rows]
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in rows)
    _require_numbers(comment, text)
    rows = _with_elements(rows, columns, widths)
    count = sum(not row.startswith("VEC") for row in rows)
    body = "\n".join([str(count), comment, *(row.rstrip("\n") for row in rows)]) + "\n"
    (frame,) = read_xyz(StringIO(body), slice(None))
    atoms: Atoms = frame
    restored(atoms.info)
    atoms.info |= extra
    _require_same_elements(atoms, columns, widths, rows)
    spare = len(rows[0].split()) - sum(widths)
    if spare > 0:
        atoms.info[UNNAMED] = spare
    return atoms


def _require_columns(names: list[str]) -> None:
    """Refuse columns without elements or positions, which ASE takes for X and for zeros.

    Raises:
        ValueError: naming those that are there.
    """
    for known, usual in ((ELEMENTS, "`species:S:1` or `Z:I:1`"), (PLACES, "`pos:R:3`")):
        if not known & set(names):
            raise ValueError(f"must have {usual} in `Properties`, but has {', '.join(names)}")


def _require_same_elements(
    atoms: Atoms, columns: list[str], widths: list[int], rows: list[str]
) -> None:
    """Refuse atoms whose symbols and atomic numbers disagree, of which ASE takes the numbers.

    Raises:
        ValueError: naming both.
    """
    names = columns[::3]
    if "species" not in names or not {"Z", "numbers"} & set(names):
        return
    place = sum(widths[: names.index("species")])
    for number, row in zip(atoms.numbers.tolist(), rows, strict=False):
        symbol = row.split()[place]
        if ATOMIC_NUMBERS.get(symbol.capitalize()) != number:
            raise ValueError(f"has `species` {symbol} with atomic number {number}")


def _require_numbers(comment: str, text: str) -> None:
    """Refuse what Python takes for a number and nobody else does."""
    odd = ODD.search(text) or ODD_ENERGY.search(comment)
    lattice = LATTICE.search(comment)
    if odd or (lattice and "_" in lattice[0]):
        raise ValueError(
            "must have numbers without underscores, but got "
            f"{printable(odd[0].strip() if odd else lattice[0] if lattice else '')!r}"
        )
    words = [] if comment.isascii() else BETWEEN.split(comment)
    strange = [word for word in words if not word.isascii() and _is_number(word)]
    if not text.isascii():
        strange += [each for each in text if each.isnumeric() and not each.isascii()]
    if strange:
        raise ValueError(f"must have digits 0 to 9, but got {strange[0]!r}")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _with_elements(rows: list[str], columns: list[str], widths: list[int]) -> list[str]:
    """The lines of atoms with H in place of D and T.

    Raises:
        ValueError: naming the first symbol that is no element, as types of LAMMPS are none.
    """
    names = [name.lower() for name in columns[0::3]]
    if "species" not in names:
        return rows
    place = sum(widths[: names.index("species")])
    kept = []
    for row in rows:
        words = row.split()
        symbol = words[place].capitalize() if place < len(words) else "H"
        if symbol in ISOTOPES:
            words[place] = "H"
            row = " ".join(words)
        elif symbol not in ATOMIC_NUMBERS and not words[0].startswith("VEC"):
            raise ValueError(
                "must have symbols of elements as `species`, but got "
                f"{printable(words[place][:40])!r}; atomic numbers are `Z:I:1` in `Properties`"
            )
        kept.append(row)
    return kept


def require_frames(count: int, path: Path) -> None:
    """Refuse a file without a frame.

    Raises:
        UserError: if there is none.
    """
    if not count:
        raise UserError(f"{path}: must hold a frame, but holds none")
