"""QM9's xyz files, and the list of molecules that it leaves out."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from study.core.errors import UserError
from study.core.units import HARTREE
from study.datasets.frames import Frames
from study.datasets.readers.conformers import Molecule, collected, named

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

QM9_NAME = re.compile(r"dsgdb9nsd_(\d+)\.xyz")

QM9_EXCLUDED = "uncharacterized.txt"


def read_qm9(path: Path) -> Frames:
    """QM9's xyz files.

    Args:
        path: a folder of them, or a tar, plain, .gz or .bz2.
    """
    excluded = qm9_excluded(path if path.is_dir() else path.parent)
    found = (
        _qm9_molecule(text, f"{path}: {name}")
        for number, name, text in sorted(_qm9_texts(path))
        if number not in excluded
    )
    return collected(found, path)


def holds_qm9(path: Path) -> bool:
    """Whether it is a folder with QM9's xyz files."""
    return path.is_dir() and any(QM9_NAME.fullmatch(file.name) for file in path.iterdir())


def _qm9_texts(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number, name and content of each of QM9's files, as they come."""
    if path.is_dir():
        for file in path.iterdir():
            if found := QM9_NAME.fullmatch(file.name):
                yield int(found[1]), file.name, file.read_text()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                found, stream = QM9_NAME.fullmatch(Path(member.name).name), None
                if found and (stream := archive.extractfile(member)):
                    yield int(found[1]), member.name, stream.read().decode()
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as problem:
        what = str(problem).partition("\n")[0]
        raise UserError(f"{path}: cannot be read ({what})") from None


def _qm9_molecule(text: str, where: str) -> Molecule:
    """Line 1 is the number of atoms, line 2 `gdb N`, three rotational constants, then targets."""
    with named(where):
        lines = text.splitlines()
        rows = [line.split() for line in lines[2 : 2 + int(lines[0])]]
        targets = [_number(word) for word in lines[1].split()[5:]]
        return (
            [row[0] for row in rows],
            [_number(word) for row in rows for word in row[1:4]],
            {
                name: unit * value
                for (name, unit), value in zip(QM9_UNITS.items(), targets, strict=True)
            },
        )


def _number(word: str) -> float:
    return float(word.replace("*^", "e"))


def qm9_excluded(folder: Path) -> frozenset[int]:
    """QM9's molecules, from 1, on its list of those that failed the check of consistency.

    Nine lines of it are the head, and one the foot.
    """
    path = folder / QM9_EXCLUDED
    if not path.is_file():
        return frozenset()
    with named(str(path)):
        return frozenset(
            int(line.split()[0]) for line in path.read_text().splitlines()[9:-1] if line.strip()
        )
