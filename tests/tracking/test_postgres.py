"""What is said of a Postgres that cannot be used; `python -m tests.postgres` uses a real one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from study.core.errors import UserError
from study.tracking.postgres import require_answer
from study.tracking.publish import _credentials

URI = "postgresql://me:secret@127.0.0.1:9/mlflow"


def refusal(uri: str) -> str:
    with pytest.raises(UserError) as refused:
        require_answer(uri)
    (line,) = refused.value.problems
    assert line.startswith("--tracking-uri postgresql://me@127.0.0.1:9/mlflow: ")
    assert "secret" not in line
    return line


def test_a_missing_driver_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    line = refusal(URI)
    assert "psycopg" in line
    assert "pip install -e '.[postgres]'" in line


def test_a_database_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def refused(*_: object, **__: object) -> ModuleType:
        raise OperationalError("", {}, OSError("no way in\nthere"))

    monkeypatch.setattr("sqlalchemy.create_engine", refused)
    line = refusal(URI)
    assert "no way in; start Postgres" in line
    assert "~/.pgpass" in line


def test_other_addresses_are_not_asked() -> None:
    require_answer("http://127.0.0.1:9")
    require_answer("sqlite:////nowhere/mlflow.db")


@pytest.mark.parametrize(
    ("uri", "password"),
    [
        ("postgresql://me:a%2540b@host/db", "a%40b"),
        ("postgresql://me@host/db?password=a%40b", "a@b"),
    ],
)
def test_a_password_in_the_address_reaches_the_report_by_the_environment(
    uri: str, password: str
) -> None:
    assert _credentials(uri) == {"PGPASSWORD": password}
    assert _credentials("postgresql://me@host/db") == {}
