"""A database as a process leaves it that is killed while it writes."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path


def half_written(folder: Path, table: str, rows: Iterable[str] = ()) -> Path:
    """Make `mlflow.db` with a transaction cut in half, and the journal that undoes it.

    Args:
        folder: to work in.
        table: its only one, of one column.
        rows: that were committed before.

    Returns:
        The folder of the database.
    """
    writing, left = folder / "writing", folder / "left"
    writing.mkdir()
    with closing(sqlite3.connect(writing / "mlflow.db")) as database:
        database.execute(f"CREATE TABLE {table} (value TEXT)")
        database.executemany(f"INSERT INTO {table} VALUES (?)", [(row,) for row in rows])
        database.commit()
        database.execute("PRAGMA cache_size = 1")
        database.executemany(f"INSERT INTO {table} VALUES (?)", [("x" * 500,)] * 1000)
        shutil.copytree(writing, left)
    assert (left / "mlflow.db-journal").stat().st_size > 0
    return left
