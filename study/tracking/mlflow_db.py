"""MLflow's database where no server is in front of it: created by one process only."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from study.core.atomic_io import lock_of, remove, write_with
from study.core.errors import UserError, is_disk_fault
from study.core.paths import (
    follow_links,
    real_path,
    require_no_links_below,
    require_own_file,
    require_writable,
)
from study.core.records import without_password
from study.tracking.postgres import is_postgres, locked_database

NO_RESPONSE = re.compile(r"Max retries exceeded .*\[Errno \d+\] ([^'\")]+)")
"""Message of requests about an unreachable server, with the reason."""


def is_local(uri: str) -> bool:
    """Check for records in a local database file, without a server."""
    return uri.startswith("sqlite:")


def has_no_server(uri: str) -> bool:
    """Check for records that the study itself writes to a database, with artifacts in `--out`."""
    return is_local(uri) or is_postgres(uri)


def path_of(uri: str) -> Path:
    """Return the file of a local database."""
    return Path(uri.removeprefix("sqlite:///"))


def quiet_mlflow() -> None:
    """Let MLflow and what creates its tables print nothing; their failures are raised."""
    for talkative in ("mlflow", "alembic"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)


def require_file(uri: str) -> None:
    """Refuse a local database that is no file: it would be gone with the process.

    Raises:
        UserError: saying what to write instead.
    """
    name = uri.removeprefix("sqlite:///")
    if name == uri or not name or name.startswith((":", "file:")) or "?" in name:
        raise UserError(
            f"--tracking-uri {uri}: must name a file, such as sqlite:////folder/mlflow.db; a "
            "database in memory would be gone with the study's process"
        )


def artifacts_of(root: Path) -> str:
    """Return the URI of the artifacts below a results folder without a server.

    Raises:
        UserError: if a symbolic link is among them, which MLflow follows.
    """
    folder = follow_links(root) / "artifacts"
    require_no_links_below(folder)
    return folder.absolute().as_uri()


def require_usable(path: Path) -> None:
    """Refuse a file that is not a database, or a folder in which none can be created.

    Raises:
        UserError: naming it.
    """
    path = _unlinked(path)
    if not path.exists():
        require_writable(path.parent)
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as database:
            database.execute("PRAGMA schema_version")
            tables = {row[1] for row in database.execute("PRAGMA table_list") if row[0] == "main"}
            tables -= {"sqlite_schema", "sqlite_sequence"}
    except sqlite3.Error as problem:
        raise _unusable(path, str(problem)) from None
    if tables and "experiments" not in tables:
        raise _unusable(path, f"it holds other tables, such as {min(tables)}, and was not changed")
    # SQLite opens such a file all the same, and fails later.
    if not os.access(path, os.W_OK):
        raise _unusable(path, "it cannot be written to")


def _unlinked(path: Path) -> Path:
    """Return the path in the real folder; refuse a file that is a link, which SQLite follows."""
    path = real_path(path.parent) / path.name
    require_own_file(path)
    return path


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: no usable database ({why}); move the file away, or name another with "
        "--tracking-uri"
    )


@contextmanager
def initialize_once(uri: str) -> Iterator[None]:
    """Create the tables of a database: all or none, and in one process at a time."""
    if is_postgres(uri):
        with locked_database(uri):
            yield
        return
    if not is_local(uri):
        yield
        return
    path = _unlinked(path_of(uri))
    with lock_of(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            for abandoned in path.parent.glob(f".{path.name}.*-journal"):
                remove(abandoned)
            write_with(path, _create)
        yield


def _create(path: Path) -> None:
    """Create all tables of a new database file; a killed process leaves an unusable file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quiet_mlflow()
    artifacts = (path.parent / "artifacts").resolve().as_uri()
    store: Any = SqlAlchemyStore
    store(f"sqlite:///{path}", artifacts).engine.dispose()


def require_reachable(uri: str) -> None:
    """Ask a server for its first experiment; a local database is created when first used.

    Raises:
        UserError: if it does not respond, or the file is not a database.
    """
    if is_local(uri):
        require_file(uri)
        require_usable(path_of(uri))
        return
    from mlflow import MlflowClient

    quiet_mlflow()
    try:
        with initialize_once(uri):
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except UserError:
        raise
    except Exception as problem:
        raise unreachable(uri, one_line_of(problem, uri)) from None


def one_line_of(problem: Exception, uri: str) -> str:
    """What MLflow says of a problem, in a line without the password of its address."""
    lines = str(problem).splitlines() or [type(problem).__name__]
    # SQLAlchemy may say first when it happened.
    text = next(filter(is_disk_fault, lines), lines[0])
    if match := NO_RESPONSE.search(text):
        return f"no response ({match[1]})"
    text = text.replace(uri, without_password(uri))
    return textwrap.shorten(text, 200, placeholder=" …")


def unreachable(uri: str, problem: str) -> UserError:
    """What to do about a tracking URI that does not answer."""
    if problem.startswith("--tracking-uri"):
        return UserError(problem)
    way = (
        "fix it in the database, which its user must own"
        if is_postgres(uri)
        else "start the server"
    )
    return UserError(
        f"--tracking-uri {without_password(uri)}: {problem}; {way}, or leave the option out to "
        "use a local database"
    )
