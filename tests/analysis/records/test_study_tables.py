"""Tables are read back, and damaged or mixed ones are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.records.mlflow_reader import Run
from analysis.records.parquet_tables import TABLES_VERSION, sha256
from analysis.records.study_tables import Study, load
from study.core.errors import UserError
from tests.hostile import altered

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:sqlalchemy",  # MLflow's use of SQLAlchemy.
    "ignore::DeprecationWarning:mlflow",
)


@pytest.mark.parametrize("name", ["trials.parquet", "curves.parquet", "studies.parquet"])
@pytest.mark.usefixtures("exported")
def test_a_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    whole = (tmp_path / name).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 20)):
        (tmp_path / name).write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        # A flip may hit the name of the export, which no checksum of a page covers.
        with pytest.raises(UserError, match=f"{name} is damaged|are of different exports"):
            load(tmp_path)


@pytest.mark.usefixtures("exported")
def test_a_torn_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "trials.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load(tmp_path)


@pytest.mark.usefixtures("exported")
def test_tables_of_another_schema_are_refused(tmp_path: Path) -> None:
    manifest = json.loads((tmp_path / "tables.json").read_text())
    (tmp_path / "tables.json").write_text(json.dumps(manifest | {"schema": 0}))
    with pytest.raises(UserError, match=f"have schema 0, this program reads {TABLES_VERSION}"):
        load(tmp_path)


@pytest.mark.usefixtures("exported")
def test_a_strange_manifest_is_a_line_or_without_consequence(tmp_path: Path) -> None:
    path, refused = tmp_path / "tables.json", []
    for value in altered(json.loads(path.read_text()), 1):
        path.write_text(json.dumps(value))
        try:
            load(tmp_path)
        except UserError as problem:
            refused.append(str(problem))
    assert len(refused) > 40
    assert all(str(tmp_path) in each and "\n" not in each for each in refused)
    assert all("`python -m analysis.export`" in each for each in refused)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "\0", "", "7"])
@pytest.mark.usefixtures("exported")
def test_a_manifest_that_is_none_is_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "tables.json").write_text(text)
    with pytest.raises(UserError, match=r"^\S+tables.json is damaged or missing; [^\n]*$"):
        load(tmp_path)


@pytest.mark.usefixtures("exported")
def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "tables.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["../elsewhere"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"tables.json is damaged"):
        load(tmp_path)


@pytest.mark.parametrize("content", [pa.table({"x": [1]}), pa.table({})])
@pytest.mark.parametrize("name", ["trials.parquet", "curves.parquet", "studies.parquet"])
@pytest.mark.usefixtures("exported")
def test_a_table_of_other_columns_that_the_manifest_vouches_for_is_a_line(
    tmp_path: Path, name: str, content: pa.Table
) -> None:
    pq.write_table(content, tmp_path / name)
    manifest = json.loads((tmp_path / "tables.json").read_text())
    manifest["sha256"][name] = sha256((tmp_path / name).read_bytes())
    (tmp_path / "tables.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"export` again$"):
        load(tmp_path)


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_tables_of_two_exports_are_refused(
    tabulate: Callable[..., Study],
    scratch: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
) -> None:
    from study.core.atomic_io import write_with

    written = []

    def killed(path: Path, write: Callable[[Path], None]) -> None:
        if len(written) == killed_at:
            raise KeyboardInterrupt
        written.append(path)
        write_with(path, write)

    tabulate(scratch(0, 0, 0.1))
    monkeypatch.setattr("analysis.records.parquet_tables.write_with", killed)
    monkeypatch.setattr(
        "analysis.records.parquet_tables.write_json", lambda *_: killed(tmp_path, lambda _: None)
    )
    with pytest.raises(KeyboardInterrupt):
        tabulate(scratch(0, 0, 0.1), scratch(1, 1, 0.1))
    with pytest.raises(UserError, match="are of different exports"):
        load(tmp_path / "tables")
    monkeypatch.undo()
    assert len(tabulate(scratch(0, 0, 0.1), scratch(1, 1, 0.1)).trials) == 2


def test_an_export_while_the_tables_are_read_is_noticed(
    tabulate: Callable[..., Study],
    scratch: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tabulate(scratch(0, 0, 0.1))
    read, reads = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        reads.append(path.name)
        if len(reads) == 3:  # The manifest and one table are read.
            monkeypatch.undo()
            tabulate(scratch(0, 0, 0.2))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(UserError, match="are of different exports"):
        load(tmp_path / "tables")
