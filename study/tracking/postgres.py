"""Postgres as MLflow's database, used without a server of MLflow in front of it.

Passwords are libpq's business (`PGPASSWORD`, `~/.pgpass`), so that no file of a study needs one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from study.core.errors import UserError
from study.core.records import without_password

LOCK = int.from_bytes(b"mlflow", "big")
"""Postgres' advisory lock under which studies create MLflow's tables."""

WAIT = 10
"""Seconds to wait for a connection; MLflow itself would try for more than a minute."""

REFUSED = re.compile(r"(mysql|mssql|oracle|postgres|databricks|uc)(?=[+:-]|$)")
"""Schemes by which studies keep no records; a server of MLflow may well use them."""


def is_postgres(uri: str) -> bool:
    """Check for records in a Postgres database that the study itself is to write to."""
    return uri.startswith(("postgresql:", "postgresql+"))


def require_supported(uri: str) -> None:
    """Refuse a tracking URI by which a study could record, but not find its records again.

    Raises:
        UserError: naming a server's command.
    """
    if not (found := REFUSED.match(uri)):
        return
    shown = without_password(uri)
    ways = {
        "postgres": "is no scheme of MLflow's; write postgresql://",
        "databricks": "is not supported, because there a study is no path of a workspace; start "
        "`mlflow server` and name its http:// address, or leave the option out",
    }
    server = (
        "is not used without a server, because no password could reach it but through files; start "
        f"`mlflow server --backend-store-uri {shown}` and name its http:// address"
    )
    scheme = "databricks" if found[1] == "uc" else found[1]
    raise UserError(f"--tracking-uri {shown}: {ways.get(scheme, server)}")


@contextmanager
def locked_database(uri: str) -> Iterator[None]:
    """Connect to a database, and keep all others who ask the same waiting within the block.

    Raises:
        UserError: if the driver is missing, or the database does not let us in.
    """
    from sqlalchemy import create_engine, func, select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        waiting = {"connect_timeout": WAIT}
        engine = create_engine(uri, poolclass=NullPool, connect_args=waiting)
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except ImportError as problem:
        way = "pip install -e '.[postgres]', or name an MLflow server's http:// address"
        raise UserError(f"--tracking-uri {without_password(uri)}: {problem}; {way}") from None
    except (SQLAlchemyError, ValueError) as problem:
        raise UserError(_no_connection(uri, problem)) from None
    with connection:
        connection.execute(select(func.pg_advisory_lock(LOCK)))
        yield


def require_answer(uri: str) -> None:
    """Connect to a database once, if the URI is one of Postgres.

    Raises:
        UserError: if the driver is missing, or the database does not let us in.
    """
    if is_postgres(uri):
        with locked_database(uri):
            pass


def _no_connection(uri: str, problem: Exception) -> str:
    shown = without_password(uri)
    reason = str(problem).splitlines()[0].replace(uri, shown)[:250]
    return (
        f"--tracking-uri {shown}: {reason}; start Postgres, correct the address, or give the "
        "password in PGPASSWORD or ~/.pgpass"
    )
