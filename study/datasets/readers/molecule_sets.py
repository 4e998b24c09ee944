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
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TextIO

from study.core.errors import UserError
from study.core.quantities.properties import PROPERTIES, TARGETS
from study.datasets.frames import Frames
from study.datasets.parsing.folders import files_below
from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.molfile import records, sdf_molecule
from study.datasets.parsing.text import (
    is_tar,
    opened_bytes,
    plain_suffix,
    tar_members,
    whole,
    whole_text,
)
from study.datasets.parsing.text import number as real
from study.datasets.readers.conformers import Molecule, collected, named
from study.datasets.readers.qm9 import QM9_EXCLUDED, QM9_UNITS, qm9_excluded
from study.datasets.reading import PLAIN, Factors, Reading

TABLES: tuple[tuple[dict[str, str], str], ...] = (
    ({name: name for name in QM9_UNITS}, "Hartree"),
    ({"homolumogap": "gap"}, "eV"),
)
"""Columns of a table beside an SDF, to properties, and their unit of energy: QM9's, PCQM4Mv2's."""

HYDROGEN, CARBON = 1, 6

FEW_HYDROGENS = 0.05
"""Share of the atoms."""

DIMER_ENERGIES = ("cbs_CCSD(T)_all", "nn_CCSD(T)_all")
"""Of a csv of dimers; the first that is there counts."""


def read_sdf(path: Path, given: Reading = PLAIN) -> Frames:
    """The molecules of an SDF, plain, .gz or in a tar.gz, with the properties of its table."""
    factors = given.factors(("Å", "Hartree", "Hartree/Å"))
    excluded = qm9_excluded(path.parent) if path.name.startswith("gdb9.sdf") else frozenset()
    with _text(path, ".sdf") as file:
        table = _table_of(path)
        rows = None if table is None else _rows(table, given)
        frames = collected(
            (
                (*sdf_molecule(record, f"{path}: molecule {number} (from 0)", factors), row)
                for number, (record, row) in enumerate(
                    _together(records(file), rows, f"{path}: must have a row of its table")
                )
                if number + 1 not in excluded
            ),
            path,
        )
    remarks = _remarks(frames) + ([] if table is None else _left_out(table))
    if spare := sum(any(map(math.isfinite, row.values())) for row in rows or ()):
        remarks.append(f"{spare} rows of {table.name if table else ''} have no molecule")
    return replace(frames, origin=frames.origin | {"labels": remarks})


def read_pcqm4mv2(path: Path, given: Reading = PLAIN) -> Frames:
    """PCQM4Mv2's xyz files in a folder or below it, in the order of their numbers."""
    factors = given.factors(("Å", "eV", "eV/Å"))
    found = sorted(_numbered(path), key=lambda file: int(file.stem))
    table = _table_of(path)
    rows = enumerate(_rows(table, given)) if table else None

    def molecules() -> Iterator[Molecule]:
        for file in found:
            number = int(file.stem)
            row = next((row for place, row in rows if place == number), None) if rows else {}
            if row is None:
                raise UserError(f"{file}: must have a row of {table}, counted from 0, but has none")
            yield (*_xyz_molecule(whole_text(file), str(file), factors), row)

    return collected(molecules(), path)


def read_dimers(path: Path, given: Reading = PLAIN) -> Frames:
    """A csv of dimers, plain or .gz; the rows of one `system_id` are a group."""
    groups: list[str] = []
    factors = given.factors(("Å", "kcal/mol", "kcal/mol/Å"))

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
                    if any(row[name] is None for name in (*needed, energy)):
                        raise ValueError(f"must have {len(names)} columns")
                    groups.append(row["system_id"])
                    yield (
                        row["elements"].split(),
                        [factors.length * real(word) for word in row["xyz"].split()],
                        {
                            "interaction_energy": factors.energy * real(row[energy]),
                            "charge": real(row["charge0"]) + real(row["charge1"]),
                        },
                    )

    return collected(molecules(), path, lambda: groups)


def beside_sdf(path: Path) -> list[Path]:
    """The files beside an SDF that are read with it."""
    listed = path.parent / QM9_EXCLUDED
    return [*table_beside(path), *([listed] if listed.is_file() else [])]


def table_beside(path: Path) -> list[Path]:
    """The table beside a set of molecules, if there is one."""
    table = _table_of(path)
    return [] if table is None else [table]


def is_sdf(path: Path) -> bool:
    """Whether it is an SDF by its name."""
    return not path.is_dir() and _plain_suffix(path) in (".sdf", ".sd", ".mol")


def is_csv(path: Path) -> bool:
    """Whether it is a csv by its name."""
    return not path.is_dir() and _plain_suffix(path) == ".csv"


def _plain_suffix(path: Path) -> str:
    suffix = plain_suffix(path)
    return plain_suffix(path.with_suffix("").with_suffix("")) if suffix == ".tar" else suffix


def holds_pcqm4mv2(path: Path) -> bool:
    """Whether it is a folder with PCQM4Mv2's name and xyz files; others may be called N.xyz too."""
    return path.is_dir() and "pcqm4m" in path.name.lower() and any(_numbered(path))


def _numbered(path: Path) -> Iterator[Path]:
    return (file for file in files_below(path, "*.xyz") if file.stem.isdecimal())


@contextmanager
def _text(path: Path, suffix: str) -> Iterator[TextIO]:
    """A file as text, or what a .gz or the first such member of a .tar.gz holds."""
    with guarded(path):
        if is_tar(path):
            with tar_members(path, suffix) as members:
                for _, stream in members:
                    with _decoded(stream) as file:
                        yield file
                    return
            raise UserError(f"{path}: must hold a *{suffix}, but holds none")
        with opened_bytes(path) as opened, _decoded(opened) as file:
            yield file


def _decoded(stream: IO[bytes]) -> TextIO:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")


def _xyz_molecule(text: str, where: str, factors: Factors) -> tuple[list[str], list[float]]:
    """Line 1 is the number of atoms, line 2 a comment."""
    with named(where):
        lines = text.splitlines()
        count = whole(lines[0].strip())
        rows = [line.split() for line in lines[2 : 2 + count]]
        if len(rows) < count or any(line.strip() for line in lines[2 + count :]):
            raise ValueError(f"must have a line for each of its {count} atoms, and none behind")
        places = [factors.length * real(word) for row in rows for word in row[1:4]]
        return [row[0] for row in rows], places


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


def _rows(table: Path, given: Reading) -> Iterator[dict[str, float]]:
    columns, unit = _columns(table)
    energy = given.factors(("Å", unit, f"{unit}/Å")).energy
    with _text(table, ".csv") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            with named(f"{table}:{line}"):
                yield {name: _property(row[column], name, energy) for column, name in columns}


def _property(word: str | None, name: str, energy: float) -> float:
    """A number of a table in the unit of `PROPERTIES`; NaN of an empty place."""
    if word is None or not word.strip():
        return float("nan")
    return real(word.strip()) * (energy if PROPERTIES[name].unit == "eV" else 1.0)


def _names(table: Path) -> list[str]:
    with _text(table, ".csv") as file:
        return list(csv.DictReader(file).fieldnames or ())


def _columns(table: Path) -> tuple[list[tuple[str, str]], str]:
    """Columns of a table that are properties, each with its property, and their unit of energy."""
    names = set(_names(table))
    for columns, unit in TABLES:
        if columns.keys() <= names:
            return list(columns.items()), unit
    return [], "eV"


def _left_out(table: Path) -> list[str]:
    """What to say of a table whose columns are neither QM9's nor PCQM4Mv2's."""
    if _columns(table)[0]:
        return []
    names = ", ".join(map(printable, _names(table))) or "none"
    return [
        f"{table.name} is not read: its columns are neither QM9's nor PCQM4Mv2's, but {names}; "
        f"targets are {', '.join(TARGETS)}"
    ]


def _together(
    records: Iterator[list[str]], rows: Iterator[dict[str, float]] | None, rule: str
) -> Iterator[tuple[list[str], dict[str, float]]]:
    """Each molecule with its row; more rows, of molecules without a structure, are left."""
    for number, record in enumerate(records):
        row: dict[str, float] | None = {} if rows is None else next(rows, None)
        if row is None:
            raise UserError(f"{rule} for each molecule, but has none for molecule {number}")
        yield record, row
