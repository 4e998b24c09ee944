"""What cannot end well is refused before anything is paid, and before anything is written."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from study import run
from study.driver import run_study

SPACE = """\
question: Does it begin?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 4}
  model: {name: egnn, hidden: 8, layers: 2}
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 2}
profiles: {quick: }
"""

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space, whose data must never be begun."""

    def paid(*_: object) -> None:
        pytest.fail("the study has begun")

    for name in ("read_datasets", "prepare_datasets"):
        monkeypatch.setattr(run_study, name, paid)
    (tmp_path / "begin.yaml").write_text(SPACE)
    return tmp_path


def refused(here: Path, capsys: pytest.CaptureFixture[str], code: int, *options: str) -> str:
    """The line that a study is refused with; nothing was written."""
    before = sorted(here.rglob("*"))
    space = ["--space", str(here / "begin.yaml"), "--profile", "quick"]
    out = [] if "--out" in options else ["--out", str(here / "runs")]
    assert run.main([*space, *out, *options]) == code
    assert sorted(here.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("address", ["nowhere", "head:", ":6379", "head:port", "ray://", "h:99999"])
def test_what_is_no_address_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    line = refused(here, capsys, 2, "--address", address)
    assert line.startswith(f"--address {address}: must be HOST:PORT")


def test_an_address_at_which_nobody_answers_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "no response" in refused(here, capsys, 2, "--address", address)


def test_a_foreign_database_is_refused_and_not_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "accounts.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE accounts (number INTEGER)")
    before = path.read_bytes()
    assert "accounts" in refused(here, capsys, 2, "--tracking-uri", f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "uri",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_database_in_memory_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    line = refused(here, capsys, 2, "--tracking-uri", uri)
    assert line.startswith(f"--tracking-uri {uri}: must name a file")


def test_a_server_that_does_not_answer_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(here, capsys, 2, "--tracking-uri", "http://127.0.0.1:9")
    assert line.startswith("--tracking-uri http://127.0.0.1:9: no response")


@pytest.mark.parametrize(
    ("uri", "way"),
    [
        ("mysql+pymysql://me:secret@host/db", "--backend-store-uri mysql+pymysql://host/db`"),
        ("mssql+pyodbc://me:secret@host/db", "--backend-store-uri mssql+pyodbc://host/db`"),
        ("databricks", "name its http:// address"),
        ("databricks-uc://profile", "name its http:// address"),
        ("postgres://me:secret@host/db", "write postgresql://"),
    ],
)
def test_a_store_that_studies_do_not_use_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], uri: str, way: str
) -> None:
    line = refused(here, capsys, 2, "--tracking-uri", uri)
    assert way in line
    assert "secret" not in line


def test_a_folder_that_cannot_be_written_to_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in ("/proc/runs", str(here / "begin.yaml" / "runs")):
        options = ("--out", out, "--tracking-uri", f"sqlite:///{here}/mlflow.db")
        assert "choose another --out" in refused(here, capsys, 2, *options)


@pytest.mark.parametrize("place", ["data", "work", "studies/begin-quick", "artifacts", "mlflow.db"])
def test_a_link_among_the_results_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (here / "elsewhere").mkdir()
    (here / "runs" / place).parent.mkdir(parents=True)
    (here / "runs" / place).symlink_to(here / "elsewhere")
    line = refused(here, capsys, 2)
    assert re.match(rf"{here / 'runs' / place}: is a (symbolic )?link", line)


def test_a_disk_that_is_too_small_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    line = refused(here, capsys, 71)
    assert "but only 0 MB are free" in line
    assert line.startswith(str(here / "runs"))
