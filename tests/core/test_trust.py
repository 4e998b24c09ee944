"""A place of records that results name is used only if it is theirs or this user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core.errors import UserError
from study.core.trust import (
    ACCEPTED,
    accept_place,
    require_own_artifacts,
    tracking_uri_of,
)

SERVER = "http://host:5000"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with a database beside it, and a user who accepted nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv(ACCEPTED, "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs" / "studies" / "mine"
    folder.mkdir(parents=True)
    (tmp_path / "runs" / "mlflow.db").touch()
    (tmp_path / "other.db").touch()
    return folder


def test_a_server_that_results_name_is_not_asked(study: Path) -> None:
    with pytest.raises(UserError, match="name it with --tracking-uri") as refused:
        tracking_uri_of(study, SERVER)
    assert str(study / "study.json") in str(refused.value)


def test_a_server_that_the_user_named_once_is_asked_later(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = "http://me:secret@host:5000"
    assert tracking_uri_of(study, "http://evil.example", named) == named
    monkeypatch.setenv(ACCEPTED, "")
    assert tracking_uri_of(study, SERVER) == SERVER
    with pytest.raises(UserError, match="you have not used before"):
        tracking_uri_of(study, "http://evil.example")
    assert (
        "secret"
        not in (study.parents[2] / "settings")
        .joinpath("pretraining-study", "trusted", "code.txt")
        .read_text()
    )


def test_the_server_of_the_environment_is_the_users(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    assert tracking_uri_of(study, SERVER) == SERVER


def test_the_database_among_the_results_is_used_wherever_they_lie(study: Path) -> None:
    own = f"sqlite:///{study.parents[1]}/mlflow.db"
    for recorded in (own, "sqlite:////home/author/runs/mlflow.db"):
        assert tracking_uri_of(study, recorded) == own


def test_another_database_of_the_user_is_left_alone(study: Path) -> None:
    other = f"sqlite:///{study.parents[2]}/other.db"
    own = f"sqlite:///{study.parents[1]}/mlflow.db"
    assert tracking_uri_of(study, other) == own
    (study.parents[1] / "mlflow.db").unlink()
    with pytest.raises(UserError, match="you have not used before"):
        tracking_uri_of(study, other)
    accept_place(other)
    assert tracking_uri_of(study, other) == other
    with pytest.raises(UserError, match="no such database"):
        tracking_uri_of(study, own)


@pytest.mark.parametrize(
    "place", ["file:///home/victim", "{root}/../outside", "s3://bucket/a", "file://host{root}/a"]
)
def test_artifacts_are_kept_among_the_results(study: Path, place: str) -> None:
    root = study.parents[1]
    location = place.format(root=root)
    require_own_artifacts("http://host:5000", study, location)
    for uri in (f"sqlite:///{root}/mlflow.db", "postgresql://me@host/mlflow"):
        require_own_artifacts(uri, study, f"file://{root}/artifacts/1", f"{root}/artifacts")
        with pytest.raises(UserError, match="keeps artifacts of mine at"):
            require_own_artifacts(uri, study, f"file://{root}/artifacts/1", location)


def test_artifacts_of_moved_results_stay_where_the_user_had_put_them(study: Path) -> None:
    accept_place("file:///old/runs/artifacts")
    uri = f"sqlite:///{study.parents[1]}/mlflow.db"
    require_own_artifacts(uri, study, "file:///old/runs/artifacts/1/models")
    with pytest.raises(UserError, match="keeps artifacts"):
        require_own_artifacts(uri, study, "file:///old/runs/artifacts/../../.ssh")
