"""Molecules one by one, each with its properties: QM9, PCQM4Mv2, DES15K and their like.

Formats, each as its set is published:

- QM9 (doi:10.1038/sdata.2014.22): `dsgdb9nsd_NNNNNN.xyz` with a line of properties in Hartree,
  Debye and Bohr, and numbers such as `6.3*^-6`; in a folder, or in `dsgdb9nsd.xyz.tar.bz2`.
- An SDF with a table of the same order beside it: QM9's `gdb9.sdf` with `gdb9.sdf.csv`, in the
  same units, and PCQM4Mv2's (arXiv:2103.09430) `pcqm4m-v2-train.sdf` with `data.csv`, whose
  `homolumogap` is in eV (ogb.stanford.edu/docs/lsc/pcqm4mv2). Its maintainers say that the SDF has
  no hydrogens (github.com/snap-stanford/ogb/issues/336); whatever atoms it has are read, and
  plans and `inspect` tell when hydrogens look left out.
- PCQM4Mv2's `pcqm4m-v2_xyz`, which has them: `N.xyz` in folders, of the molecule in row N, from 0,
  of `data.csv`. It is not offered any more, but those who denoise this set do so on it.
- DES15K, DES370K and DES5M (doi:10.1038/s41597-021-00833-x): a csv with a dimer in each row, Å and
  interaction energies in kcal/mol, by CCSD(T) at the basis set limit, in DES5M by a network. The
  columns are those of DES370K and DES5M (github.com/valence-labs/openQDC reads them).

None of them has forces. Molecules of QM9 that failed its check of consistency are left out when
its list of them, `uncharacterized.txt`, lies beside the file or folder.
"""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from study.core.errors import UserError
from study.core.units import KCAL_PER_MOL
from study.datasets.frames import Frames
from study.datasets.readers.conformers import Molecule, collected, named
from study.datasets.readers.qm9 import QM9_EXCLUDED, QM9_UNITS, qm9_excluded

TABLES = (
    {name: (name, unit) for name, unit in QM9_UNITS.items()},
    {"homolumogap": ("gap", 1.0)},
)
"""Columns of a table beside an SDF: QM9's, and PCQM4Mv2's; to property and factor."""

HYDROGEN, CARBON = 1, 6

FEW_HYDROGENS = 0.05
"""Share of the atoms."""

DIMER_ENERGIES = ("cbs_CCSD(T)_all", "nn_CCSD(T)_all")
"""Of a csv of dimers; the first that is there counts."""


def read_sdf(path: Path) -> Frames:
    """The molecules of an SDF, plain, .gz or in a tar.gz, with the properties of its table."""
    excluded = qm9_excluded(path.parent) if path.name.startswith("gdb9.sdf") else frozenset()
    with _text(path, ".sdf") as file:
        table = _table_of(path)
        rows = None if table is None else _rows(table)
        frames = collected(
            (
                (*_sdf_molecule(record, f"{path}: molecule {number} (from 0)"), row)
                for number, (record, row) in enumerate(
                    _together(_records(file), rows, f"{path}: must have a row of its table")
                )
                if number + 1 not in excluded
            ),
            path,
        )
    return replace(frames, origin=frames.origin | {"labels": _remarks(frames)})


def read_pcqm4mv2(path: Path) -> Frames:
    """PCQM4Mv2's xyz files in a folder or below it, in the order of their numbers."""
    found = sorted(_numbered(path), key=lambda file: int(file.stem))
    table = _table_of(path)
    rows = enumerate(_rows(table)) if table else None

    def molecules() -> Iterator[Molecule]:
        for file in found:
            number = int(file.stem)
            row = next((row for place, row in rows if place == number), None) if rows else {}
            if row is None:
                raise UserError(f"{file}: must have a row of {table}, counted from 0, but has none")
            yield (*_xyz_molecule(file.read_text(), str(file)), row)

    return collected(molecules(), path)


def read_dimers(path: Path) -> Frames:
    """A csv of dimers, plain or .gz; the rows of one `system_id` are a group."""
    groups: list[str] = []

    def molecules() -> Iterator[Molecule]:
        with _text(path, ".csv") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or ()
            energy = next((name for name in DIMER_ENERGIES if name in names), "")
            needed = {"elements", "xyz", "charge0", "charge1", "system_id"}
            if not energy or not needed <= set(names):
                raise UserError(
                    f"{path}: must have the columns {', '.join(sorted(needed))}, and one of "
                    f"{', '.join(DIMER_ENERGIES)}, but has {', '.join(names) or 'none'}"
                )
            for line, row in enumerate(table, start=2):
                with named(f"{path}:{line}"):
                    groups.append(row["system_id"])
                    yield (
                        row["elements"].split(),
                        [float(word) for word in row["xyz"].split()],
                        {
                            "interaction_energy": KCAL_PER_MOL * float(row[energy]),
                            "charge": float(row["charge0"]) + float(row["charge1"]),
                        },
                    )

    return collected(molecules(), path, lambda: groups)


def read_beside(name: str, path: Path) -> list[Path]:
    """The files beside a set of molecules that are read with it."""
    table = _table_of(path) if name in ("sdf_file", "pcqm4mv2_xyz") else None
    listed = name in ("sdf_file", "qm9_xyz") and not path.is_dir()
    excluded = path.parent / QM9_EXCLUDED if listed else None
    return [file for file in (table, excluded) if file is not None and file.is_file()]


def holds_pcqm4mv2(path: Path) -> bool:
    """Whether it is a folder with PCQM4Mv2's name and xyz files; others may be called N.xyz too."""
    return path.is_dir() and "pcqm4m" in path.name.lower() and any(_numbered(path))


def _numbered(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*.xyz") if file.stem.isdecimal())


@contextmanager
def _text(path: Path, suffix: str) -> Iterator[TextIO]:
    """A file as text, or what a .gz or the first such member of a .tar.gz holds."""
    try:
        if ".tar" in path.suffixes:
            with tarfile.open(path) as archive:
                for member in archive:
                    stream = archive.extractfile(member)
                    if member.name.endswith(suffix) and stream:
                        yield io.TextIOWrapper(stream)
                        return
            raise UserError(f"{path}: must hold a *{suffix}, but holds none")
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            yield file
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as problem:
        what = str(problem).partition("\n")[0]
        raise UserError(f"{path}: cannot be read ({what})") from None


def _xyz_molecule(text: str, where: str) -> tuple[list[str], list[float]]:
    """Line 1 is the number of atoms, line 2 a comment."""
    with named(where):
        lines = text.splitlines()
        rows = [line.split() for line in lines[2 : 2 + int(lines[0])]]
        return [row[0] for row in rows], [float(word) for row in rows for word in row[1:4]]


def _records(file: TextIO) -> Iterator[list[str]]:
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


def _sdf_molecule(lines: list[str], where: str) -> tuple[list[str], list[float]]:
    """Of a molfile V2000: counts in columns of three, coordinates in columns of ten."""
    with named(where):
        atoms = lines[4 : 4 + int(lines[3][:3])]
        return (
            [line[31:34].strip() for line in atoms],
            [float(line[start : start + 10]) for line in atoms for start in (0, 10, 20)],
        )


def _remarks(frames: Frames) -> list[str]:
    """Whether hydrogens look left out, as programs do that can put them back from the bonds."""
    share = float((frames.numbers == HYDROGEN).mean())
    if share >= FEW_HYDROGENS or CARBON not in frames.numbers:
        return []
    return [f"hydrogens look left out: they are {share:.1%} of the atoms"]


def _table_of(path: Path) -> Path | None:
    """The csv beside an SDF or a folder; none if there is none."""
    stem = path.name.partition(".sdf")[0]
    official = "pcqm4m-v2/raw/data.csv.gz"
    beside = (f"{stem}.sdf.csv", f"{stem}.csv", "data.csv", "data.csv.gz", official)
    return next((path.parent / name for name in beside if (path.parent / name).is_file()), None)


def _rows(table: Path) -> Iterator[dict[str, float]]:
    with _text(table, ".csv") as file:
        reader = csv.DictReader(file)
        names = set(reader.fieldnames or ())
        columns = next((known for known in TABLES if known.keys() <= names), None)
        if columns is None:
            raise UserError(
                f"{table}: must have the columns of QM9 ({', '.join(QM9_UNITS)}) or of PCQM4Mv2 "
                f"(homolumogap), but has {', '.join(sorted(names)) or 'none'}"
            )
        for line, row in enumerate(reader, start=2):
            with named(f"{table}:{line}"):
                yield {
                    name: unit * float(row[column] or "nan")
                    for column, (name, unit) in columns.items()
                }


def _together(
    records: Iterator[list[str]], rows: Iterator[dict[str, float]] | None, rule: str
) -> Iterator[tuple[list[str], dict[str, float]]]:
    """Each molecule with its row; more rows, of molecules without a structure, are left."""
    for number, record in enumerate(records):
        row: dict[str, float] | None = {} if rows is None else next(rows, None)
        if row is None:
            raise UserError(f"{rule} for each molecule, but has none for molecule {number}")
        yield record, row
