"""QM9's xyz files, and the list of molecules that it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from study.core.errors import UserError
from study.core.quantities.units import HARTREE
from study.datasets.frames import Frames
from study.datasets.parsing.folders import files_in
from study.datasets.parsing.guard import guarded
from study.datasets.parsing.text import (
    is_tar,
    number,
    plain_suffix,
    tar_members,
    text_lines,
    whole,
    whole_text,
)
from study.datasets.readers.conformers import Molecule, collected, named
from study.datasets.reading import PLAIN, Factors, Reading

QM9_UNITS = {
    "mu": 1.0,
    "alpha": 1.0,
    "homo": HARTREE,
    "lumo": HARTREE,
    "gap": HARTREE,
    "r2": 1.0,
    "zpve": HARTREE,
    "u0": HARTREE,
    "u298": HARTREE,
    "h298": HARTREE,
    "g298": HARTREE,
    "cv": 1.0,
}
"""The targets in the order of the xyz files, and the factor from there to `PROPERTIES`."""

GDB = re.compile(r"gdb[ \t]+(\d+)\b")
"""How the second line begins."""

QM9_EXCLUDED = "uncharacterized.txt"
LARGEST = 1_000_000
"""Bytes of a file with one molecule."""


def read_qm9(path: Path, given: Reading = PLAIN) -> Frames:
    """QM9's xyz files.

    Args:
        path: a folder of them, a tar, plain, .gz or .bz2, or a single one.
        given: what the user says of the files; their units are published.
    """
    factors = given.factors(("Å", "Hartree", "Hartree/Å"))
    excluded = qm9_excluded(path if path.is_dir() else path.parent)
    found = (
        _qm9_molecule(text, f"{path}: {name}", factors)
        for number, name, text in sorted(_qm9_texts(path))
        if number not in excluded
    )
    return collected(found, path)


def holds_qm9(path: Path) -> bool:
    """Whether it is one of QM9's xyz files, whatever its name, or a folder of them."""
    if path.is_dir():
        file = next((each for each in files_in(path) if _is_xyz(each)), None)
        return file is not None and holds_qm9(file)
    if not path.is_file():
        return False
    try:
        with text_lines(path) as lines:
            second = [next(lines, "") for _ in range(2)][1]
    except UserError:
        return False
    return GDB.match(second) is not None


def recognizes(path: Path) -> bool:
    """Whether it is such a file or folder, or by its name the tar of them."""
    return holds_qm9(path) or ("dsgdb9nsd" in path.name and is_tar(path))


def read_beside(path: Path) -> list[Path]:
    """The list of what is left out beside a file; in a folder it is one of its files."""
    listed = path.parent / QM9_EXCLUDED
    return [listed] if not path.is_dir() and listed.is_file() else []


def _is_xyz(path: Path) -> bool:
    return plain_suffix(path) == ".xyz" and path.is_file()


def _qm9_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, name and content of each of QM9's files, as they come."""
    if not is_tar(path):
        for file in filter(_is_xyz, files_in(path)) if path.is_dir() else [path]:
            text = whole_text(file)
            yield _number_of(text, str(file)), file.name, text
        return
    with guarded(path), tar_members(path, ".xyz") as members:
        for name, stream in members:
            content = stream.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise UserError(f"{path}: {name}: must have at most {LARGEST} bytes")
            text = content.decode(errors="replace")
            yield _number_of(text, f"{path}: {name}"), name, text


def _number_of(text: str, where: str) -> int:
    """The number of a molecule, as its second line has it.

    Raises:
        UserError: if it is none of QM9's.
    """
    lines = text.splitlines()
    found = GDB.match(lines[1]) if len(lines) > 1 else None
    if found is None:
        raise UserError(f"{where}: must have a second line `gdb N` as QM9's files, but has none")
    return int(found[1])


def _qm9_molecule(text: str, where: str, factors: Factors) -> Molecule:
    """Line 1 is the number of atoms, line 2 `gdb N`, three rotational constants, then targets."""
    with named(where):
        lines = text.splitlines()
        count = whole(lines[0].strip())
        rows = [line.split() for line in lines[2 : 2 + count]]
        if len(rows) < count or any(len(row) < 4 for row in rows):
            raise ValueError(
                f"must have a line with an element and three numbers for {count} atoms"
            )
        if len(lines) > 2 + count and re.match(
            r"\s*[A-Za-z]{1,2}(\s+[-+.\d]\S*){4}", lines[2 + count]
        ):
            raise ValueError(f"must have {count} atoms, but a line for one more follows")
        targets = [_real(word) for word in lines[1].split()[5:]]
        if len(targets) != len(QM9_UNITS):
            raise ValueError(f"must have {len(QM9_UNITS)} targets, but has {len(targets)}")
        hartrees = factors.energy / HARTREE
        return (
            [row[0] for row in rows],
            [factors.length * _real(word) for row in rows for word in row[1:4]],
            {
                name: value * (unit * hartrees if unit == HARTREE else unit)
                for (name, unit), value in zip(QM9_UNITS.items(), targets, strict=True)
            },
        )


def _real(word: str) -> float:
    return number(word.replace("*^", "e"))


def qm9_excluded(folder: Path) -> frozenset[int]:
    """QM9's molecules, from 1, on its list of those that failed the check of consistency.

    Nine lines of it are the head, and one the foot.
    """
    path = folder / QM9_EXCLUDED
    if not path.is_file():
        return frozenset()
    with named(str(path)):
        return frozenset(
            whole(line.split()[0]) for line in whole_text(path).splitlines()[9:-1] if line.strip()
        )
