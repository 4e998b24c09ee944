"""Rows of ASE databases, SQLite or JSON, those of SchNetPack and ISO17 among them.

Their labels may lie among the calculator's results, the key-value pairs or the data of a row; in
all three they are found by name. SchNetPack's metadata tell the units. A database is looked at
before ASE opens it, because ASE makes its tables in whatever SQLite file it is given.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from study.core.errors import UserError
from study.datasets.parsing.guard import guarded

if TYPE_CHECKING:
    from ase import Atoms

SUFFIXES = (".db", ".json", ".sqlite", ".sqlite3")
MAGIC = b"SQLite format 3\x00"
TABLES = {"systems", "information"}
"""That every SQLite database of ASE has."""


def is_database(path: Path) -> bool:
    """Whether a file is SQLite, or a JSON database by its name."""
    with path.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC or path.suffix in SUFFIXES


def frames(path: Path) -> Iterator[Atoms]:
    """All rows.

    Raises:
        UserError: if the file is no such database, which is then left as it is.
    """
    with path.open("rb") as opened:
        binary = opened.read(len(MAGIC)) == MAGIC
    if binary:
        _require_closed(path)
        units = _units(path)
        _require_tables(path)
    elif path.suffix != ".json":
        raise UserError(f"{path}: is no SQLite database, or was cut off")
    db = import_module("ase.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = db.connect(str(path.absolute()), type="db" if binary else "json")
        if not binary:
            units = _named_units(opened.metadata)
        for number, row in enumerate(opened.select()):
            with guarded(f"{path}: row {number} (from 0)"):
                frame: Atoms = row.toatoms(add_additional_information=True)
                frame.info |= units
            yield frame


def _require_closed(path: Path) -> None:
    """Refuse a database with a journal beside it: part of its rows may be there.

    Raises:
        UserError: if another program writes to it, or was killed before it had written all.
    """
    for suffix in ("-wal", "-journal"):
        journal = path.with_name(path.name + suffix)
        if journal.is_file() and journal.stat().st_size:
            raise UserError(
                f"{path}: must be closed, but {journal.name} lies beside it; let the program "
                "that writes it end, or open and close it once with ase.db"
            )


def _require_tables(path: Path) -> None:
    with guarded(path, "is no whole ASE database"), _opened(path) as opened:
        found = {name for (name,) in opened.execute("select name from sqlite_master")}
        if not found >= TABLES:
            raise UserError(
                f"{path}: must be a database of ASE, with the tables {', '.join(sorted(TABLES))}, "
                f"but has {', '.join(sorted(found)) or 'none'}; it was not changed"
            )


def _units(path: Path) -> dict[str, Any]:
    """What SchNetPack writes of its units, as keys of a frame's info."""
    with guarded(path, "is no whole ASE database"), _opened(path) as opened:
        try:
            rows = opened.execute("select value from information where name = 'metadata'")
            metadata: Any = json.loads((rows.fetchone() or ["{}"])[0])
        except sqlite3.OperationalError:
            return {}
    return _named_units(metadata)


def _named_units(metadata: Any) -> dict[str, Any]:
    """Units in the metadata of a database, as keys of a frame's info."""
    found = {name: unit for name, unit in metadata.items() if "unit" in name.lower()}
    known = found.pop("_property_unit_dict", None) or {}
    found["length-unit"] = found.pop("_distance_unit", None) or found.get("length-unit")
    found |= {f"unit of {name}": unit for name, unit in known.items()}
    return {name: unit for name, unit in found.items() if unit}


def _opened(path: Path) -> Any:
    """Open it so that nothing is written, neither to it nor beside it."""
    from contextlib import closing

    place = quote(str(path.absolute()))
    return closing(sqlite3.connect(f"file:{place}?mode=ro&immutable=1", uri=True))
