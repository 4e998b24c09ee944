"""`python -m study.data`: import, fetch and inspect, and what a study says of a file's data set."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from study import run
from study.console.plan_summary import print_plan_summary
from study.core.errors import UserError
from study.data import main
from study.datasets.diagnostics import warnings
from study.datasets.frames import Frames
from study.datasets.inspection import summary
from study.datasets.parsing.header import read_header
from study.datasets.readers import n2p2
from study.datasets.sources import rpbe
from study.planning.plan import Plan
from study.planning.plan_checks import prepare_datasets
from study.space.search_space import load_space

STRUCTURE = """\
begin
comment src={source}
lattice 10 0 0
lattice 3 10 0
lattice 0 0 10
atom {x} 0 0 O 0 0 0.02 0 0
atom {x} 1.8 0 H 0 0 -0.02 0 0
atom {x} 0 1.8 H 0 0 0 0 0.01
energy -76.4
charge 0
end
"""


def structures(count: int) -> str:
    """One water molecule each, all different, two of each source."""
    return "".join(STRUCTURE.format(source=i // 2, x=0.1 * i) for i in range(count))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "water.input.data"
    path.write_text(structures(10))
    return path


def folders(out: Path) -> list[Path]:
    return sorted(path for path in (out / "data").iterdir() if path.is_dir())


def test_help_appears_without_anything_heavy() -> None:
    program = (
        "import sys\nfrom study.data import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'ase', 'openmm', 'pydantic', 'vesin'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_space_is_loaded_without_reading_arrays_or_files() -> None:
    program = (
        "import sys\nimport study.space.search_space, study.space.trial\n"
        "heavy = {'numpy', 'torch', 'ase', 'openmm', 'vesin', 'scipy'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_import_stores_a_file_and_says_how_a_space_names_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == 0
    (folder,) = folders(tmp_path / "out")
    header = read_header(folder)
    origin = header["origin"]
    assert origin["file"] == "water.input.data"
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin["units"]["energy"] == "Hartree"
    assert header["frames"] == origin["sizes"]["groups"][0][1] * 2 == 10
    printed = capsys.readouterr().out
    assert f"dataset: {{name: n2p2_file, path: {file}}}" in printed
    assert header["content_hash"] in printed


def test_a_file_is_read_once_wherever_it_lies(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["import", str(file), *out]) == 0
    monkeypatch.setattr(n2p2, "read", _never)
    moved = file.rename(tmp_path / "moved.data")
    assert main(["import", str(moved), *out]) == 0
    assert len(folders(tmp_path / "out")) == 1


def _never(_path: Path, _given: object) -> Frames:
    raise AssertionError("must not be read again")


def test_another_content_is_another_data_set(file: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["import", str(file), *out]) == 0
    file.write_text(structures(12))
    assert main(["import", str(file), *out]) == 0
    assert sorted(read_header(folder)["frames"] for folder in folders(tmp_path / "out")) == [10, 12]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (structures(2).replace("energy -76.4", "energy"), ":9: must be `energy E`"),
        (structures(2).replace("0.1 1.8 0 H", "0.1 0 0 H"), "frame 1 (from 0) must not have two"),
    ],
)
def test_a_bad_file_leaves_nothing_behind(
    content: str, rule: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(content)
    assert main(["import", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(str(file))
    assert rule in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_answered_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "no/such.extxyz", "--out", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_inspect_shows_skewed_cells_and_mixed_sizes(
    mixed_water: Frames, triclinic_water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed_water.save(tmp_path / "mixed")
    assert main(["inspect", str(tmp_path / "mixed")]) == 0
    assert "12 to 24" in capsys.readouterr().out
    rows = summary(triclinic_water)
    # Columns of the skewed cell in conftest: cos γ = 1.9 / |b|, with |b| = √(1.9² + 6.5²).
    gamma = np.degrees(np.arccos(1.9 / np.hypot(1.9, 6.5)))
    assert f"{gamma:.2f}" in rows["box angles"]
    assert rows["O-H distance"] == "0.9572 Å in 4 frames"


def test_inspect_of_elements_without_water_leaves_rows_out(water: Frames) -> None:
    rows = summary(replace(water, numbers=np.full(len(water.numbers), 79)))
    assert rows["atoms in all"] == "288 Au"
    assert not {"density", "O-H distance"} & rows.keys()


def test_inspect_finds_nothing_wrong_with_good_frames(water: Frames) -> None:
    assert warnings(replace(water, forces=water.forces / np.sqrt(np.mean(water.forces**2)))) == []


def test_inspect_warns_of_units_copies_contacts_and_missing_groups(water: Frames) -> None:
    assert (
        "are forces and positions in eV/Å" in warnings(replace(water, forces=50 + water.forces))[0]
    )
    assert "are forces and positions" in warnings(replace(water, forces=0 * water.forces))[0]
    copied = water.select(np.array([0, 1, 0, 2, 1]))
    assert any("2 frames repeat an earlier one" in line for line in warnings(copied))
    closer = warnings(replace(water, positions=0.3 * water.positions, cells=0.3 * water.cells))
    assert any(line.startswith("12 frames have atoms closer than 0.5 Å") for line in closer)
    alone = warnings(replace(water, groups=np.zeros(12)))
    assert any("split: {by: frame}" in line for line in alone)


# A study on a file ------------------------------------------------------------------------------

SPACE = """\
question: Does it train?
seeds: [0]
trial:
  dataset: {name: n2p2_file, path: FILE}
  split: {by: trajectory, test: 0.2, validation: 0.2}
  model: {name: egnn, hidden: 8, layers: 1}
  pretrain:
    task: {name: masking, masking_ratio: 1.0}
    epochs: 1
    batch_size: 2
  finetune: {task: {name: energy_forces}, epochs: 1, batch_size: 2, frames: 6}
profiles: {quick: }
"""


def plan_of(tmp_path: Path, file: Path, text: str = SPACE) -> Plan:
    path = tmp_path / "space.yaml"
    path.write_text(text.replace("FILE", str(file)))
    return Plan(load_space(str(path), "quick"), tmp_path / "out", "study", "")


def shown(plan: Plan) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_plan_summary(plan, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def nothing(_done: int, _total: int) -> None:
    """No progress to show."""


def test_a_plan_knows_a_file_only_after_it_is_read(file: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, file)
    assert plan.seconds == 0
    assert f"{file}; to be read (~1 s)" in shown(plan)
    assert not plan.root.exists()
    prepare_datasets(plan, nothing)
    assert plan.seconds > 0
    assert f"{file}; cached" in shown(plan)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("frames: 6", "frames: 7", "`finetune.frames` must be <= 6"),
        ("masking_ratio: 1.0", "masking_ratio: 0.9", "int(0.9 * 1 molecules) is 0"),
        ("test: 0.2", "test: 0.8", "must leave a trajectory to train on"),
    ],
)
def test_a_file_too_small_for_a_trial_is_refused_before_any_training(
    old: str, new: str, rule: str, file: Path, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, file, SPACE.replace(old, new))
    with pytest.raises(UserError) as refused:
        prepare_datasets(plan, nothing)
    assert rule in str(refused.value)
    assert str(plan.space.path) in str(refused.value)
    with pytest.raises(UserError):
        prepare_datasets(plan, nothing)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("energy -76.4", "energy", ":9: must be `energy E`"),
        ("0.1 1.8 0 H", "0.1 nan 0 H", "must "),
        (" O ", " Xx ", "Xx"),
    ],
)
def test_a_study_on_a_bad_file_is_refused_in_a_line_and_writes_nothing(
    old: str, new: str, rule: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = structures(10)
    assert old in content
    file.write_text(content.replace(old, new))
    out = tmp_path / "out"
    space = plan_of(tmp_path, file).space.path
    assert run.main(["--space", str(space), "--profile", "quick", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(str(file))
    assert rule in line
    assert not out.exists()


def test_masking_anything_but_water_is_refused(file: Path, tmp_path: Path) -> None:
    file.write_text(structures(10).replace(" O ", " S "))
    with pytest.raises(UserError, match="nothing but water"):
        prepare_datasets(plan_of(tmp_path, file), nothing)


# Fetching, from a server on this machine --------------------------------------------------------


class _Server(BaseHTTPRequestHandler):
    """Serves one file with ranges; breaks off once after `breaks_at` bytes."""

    content = b""
    breaks_at = -1
    status = 0
    ranges: list[str] = []  # noqa: RUF012 - reset by the fixture

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(type(self).status or (206 if start else 200))
        rest = self.content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        end, type(self).breaks_at = type(self).breaks_at, -1
        self.wfile.write(rest[:end] if end >= 0 else rest)

    def log_message(self, *_arguments: object) -> None:
        """Silence."""


def archive(name: str = "training-data_H2O/input.data.RPBE_D3", text: str = "") -> bytes:
    """A tar.gz with the structures, beside those of another functional."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for member, content in (
            ("training-data_H2O/input.data.BLYP_D3", "begin"),
            ("training-data_H2O/input.data.RPBE", "begin"),
            (name, text or structures(10)),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    """Stands for Zenodo; the published set has ten structures here."""
    _Server.content, _Server.breaks_at, _Server.status = archive(), -1, 0
    _Server.ranges = []
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}/training-data_H2O.tar.gz"
    per_atom = -76.4 * 27.211386245988 / 3
    facts = {"ADDRESS": address, "SIZE": len(_Server.content), "STRUCTURES": 10, "ATOMS": 30}
    for name, value in (facts | {"MEAN_ENERGY": per_atom}).items():
        monkeypatch.setattr(rpbe, name, value)
    yield _Server
    running.shutdown()
    running.server_close()


@pytest.mark.usefixtures("server")
def test_fetch_brings_the_published_set_and_records_what_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 0
    assert "dataset: {name: rpbe_water}" in capsys.readouterr().out
    (folder,) = folders(tmp_path)
    assert read_header(folder)["frames"] == 10
    record = json.loads((tmp_path / "downloads/training-data_H2O.tar.gz.json").read_text())
    assert record["sha256"] == hashlib.sha256(_Server.content).hexdigest()
    assert (record["size"], record["address"]) == (len(_Server.content), rpbe.ADDRESS)


def test_fetch_does_not_download_twice(server: type[_Server], tmp_path: Path) -> None:
    for _ in range(2):
        assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 0
    assert len(server.ranges) == 1


def test_a_download_that_broke_off_goes_on(
    server: type[_Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks_at = 100
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 2
    assert "run again to go on" in capsys.readouterr().err
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 0
    assert server.ranges == ["bytes=0-", "bytes=100-"]


def test_a_server_that_refuses_is_answered_with_the_way_by_hand(
    server: type[_Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 503
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"by hand ({rpbe.SIZE / 1e6:.1f} MB), put it at {rpbe.archive_of(tmp_path)}" in error
    assert error.count("\n") == 1


def test_offline_an_archive_put_there_by_hand_is_taken(
    server: type[_Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rpbe, "ADDRESS", "http://127.0.0.1:1/training-data_H2O.tar.gz")
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 2
    assert "cannot be downloaded" in capsys.readouterr().err
    rpbe.archive_of(tmp_path).write_bytes(server.content)
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (archive(text=structures(8)), "has 10 structures, 30 atoms"),
        (archive(name="input.data.PBE"), "must hold one file input.data.RPBE_D3"),
        (archive()[:-30] + bytes(30), "cannot be unpacked"),
        (b"<html>", "must have about"),
    ],
)
def test_another_content_than_the_published_one_is_refused(
    content: bytes,
    rule: str,
    server: type[_Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.content = content
    if b"<html>" not in content:
        monkeypatch.setattr(rpbe, "SIZE", len(content))
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists() or folders(tmp_path) == []


def test_an_energy_in_other_units_is_not_the_published_set(
    server: type[_Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = archive(text=structures(10).replace("-76.4", "-2078.9"))
    assert main(["fetch", "rpbe", "--out", str(tmp_path)]) == 2
    assert "eV/atom" in capsys.readouterr().err
