"""OC20's LMDB files, as its own scripts write them, and what must not be unpickled."""

from __future__ import annotations

import io
import mmap
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.data import data as data_module

from study.core.errors import UserError
from study.datasets.readers import detect, oc20

NUMBERS = [[29, 29, 8], [29, 1]]
POSITIONS = [[[0, 0, 0], [1.75, 1.75, 0], [0.5, 0.25, 2]], [[0, 0, 0], [0, 0, 1.5]]]
FORCES = [[[0, 0.5, -1], [0.25, 0, 0], [0, 0, 2]], [[0, 0, -0.125], [0, 0, 0.125]]]
ENERGIES = [-1.62, 0.3]
CELL = [[3.6, 0, 0], [1.8, 3.2, 0], [0, 0, 20]]


def fields(index: int) -> dict[str, Any]:
    """What `AtomsToGraphs.convert` and the script set: float32 tensors, an integer, a number."""
    positions = torch.Tensor(POSITIONS[index])
    return {
        "cell": torch.Tensor(CELL).view(1, 3, 3),
        "pos": positions,
        "atomic_numbers": torch.Tensor(NUMBERS[index]),
        "natoms": len(positions),
        "y": ENERGIES[index],
        "force": torch.Tensor(FORCES[index]),
        "fixed": torch.tensor([1.0] + [0.0] * (len(positions) - 1)),
        "tags": torch.LongTensor([0] * len(positions)),
        "edge_index": torch.zeros(2, 1, dtype=torch.long),
    }


def write(file: Path, entries: Sequence[bytes]) -> None:
    opened = lmdb.open(str(file), subdir=False, map_size=2**20, meminit=False, map_async=True)
    with opened, opened.begin(write=True) as transaction:
        for number, entry in enumerate(entries):
            transaction.put(f"{number}".encode("ascii"), entry)
        transaction.put(b"length", pickle.dumps(len(entries), protocol=-1))
    file.with_name(f"{file.name}-lock").unlink()


def pickled(**values: Any) -> bytes:
    return pickle.dumps(Data(**values), protocol=-1)


def pickled_before_2(**values: Any) -> bytes:
    """As torch-geometric 1 did, whose `Data` kept its values as attributes, none left out."""
    old = type("Data", (), {"__module__": data_module.__name__})
    none = dict.fromkeys(("x", "edge_index", "edge_attr", "y", "pos", "normal", "face"))
    made = old()
    made.__dict__.update(none | values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_module, "Data", old)
        return pickle.dumps(made, protocol=-1)


@pytest.mark.parametrize("dump", [pickled, pickled_before_2])
def test_frames_of_either_torch_geometric_are_those_written(
    tmp_path: Path, dump: Callable[..., bytes]
) -> None:
    write(tmp_path / "data.0000.lmdb", [dump(**fields(0), sid=7), dump(**fields(1), sid=9)])
    assert detect.kind_of(tmp_path) == "oc20_folder"
    frames = oc20.read(tmp_path)
    assert frames.sizes.tolist() == [3, 2]
    assert frames.numbers.tolist() == [*NUMBERS[0], *NUMBERS[1]]
    np.testing.assert_array_equal(frames.positions, np.concatenate(POSITIONS))
    np.testing.assert_array_equal(frames.forces, np.concatenate(FORCES))
    np.testing.assert_array_equal(frames.energies, ENERGIES)
    np.testing.assert_allclose(frames.cells, [CELL, CELL], rtol=1e-7)
    assert len(set(frames.groups)) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["data.0000.lmdb"]


def test_later_names_numbers_of_numpy_and_tensors_of_one_number_are_read_too(
    tmp_path: Path,
) -> None:
    entries = []
    for index, energy in enumerate([np.float64(-1.62), torch.tensor([0.3], dtype=torch.float64)]):
        values = fields(index)
        del values["y"]
        values |= {"energy": energy, "forces": values.pop("force"), "sid": torch.LongTensor([4])}
        entries.append(pickled(**values))
    write(tmp_path / "data.0000.lmdb", entries)
    frames = oc20.read(tmp_path)
    np.testing.assert_array_equal(frames.energies, ENERGIES)
    np.testing.assert_array_equal(frames.forces, np.concatenate(FORCES))
    assert len(set(frames.groups)) == 1


def test_entries_follow_their_number_and_groups_the_list_beside_the_file(tmp_path: Path) -> None:
    values = [fields(0) | {"y": float(number)} for number in range(12)]
    write(tmp_path / "data.0001.lmdb", [pickled(**each) for each in values])
    systems = [f"random{number // 4},frame{number}" for number in range(12)]
    (tmp_path / "data_log.0001.txt").write_text("\n".join(systems) + "\n")
    frames = oc20.read(tmp_path)
    assert frames.energies.tolist() == list(range(12))
    assert frames.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    (tmp_path / "data_log.0001.txt").write_text("random0,frame0\n")
    with pytest.raises(UserError, match=r"data_log\.0001\.txt: must have a line for each of 12"):
        oc20.read(tmp_path)


def test_a_test_set_has_no_labels(tmp_path: Path) -> None:
    unlabelled = fields(0)
    del unlabelled["y"], unlabelled["force"]
    write(tmp_path / "data.0000.lmdb", [pickled(**unlabelled)])
    assert oc20.read(tmp_path).labels == ()


class Runs:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class HiddenInATensor:
    """Pickled as the storage of a tensor, whose bytes are a file of torch's that runs code."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes]]:
        raw = io.BytesIO()
        torch.save(Runs(Path.touch, self.victim), raw, _use_new_zipfile_serialization=False)
        return torch.storage._load_from_bytes, (raw.getvalue(),)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda victim: Runs(Path.touch, victim), r"asks for pathlib.*, which was not run"),
        (lambda victim: Runs(subprocess.call, ["touch", str(victim)]), r"asks for subprocess"),
        (
            lambda victim: Runs(eval, f"__import__('os').mkdir({str(victim)!r})"),
            r"asks for builtins\.eval",
        ),
        (HiddenInATensor, r"a tensor must hold numbers alone"),
    ],
)
def test_a_pickle_that_runs_code_is_refused_in_a_line_and_not_run(
    tmp_path: Path, make: Callable[[Path], Any], rule: str
) -> None:
    victim = tmp_path / "was_run"
    harmful = pickled(**fields(0), extra=make(victim))
    write(tmp_path / "data.0000.lmdb", [pickled(**fields(1)), harmful])
    with pytest.raises(UserError, match=rf"lmdb: entry 1: .*{rule}") as refused:
        oc20.read(tmp_path)
    assert "\n" not in str(refused.value)
    assert not victim.exists()
    pickle.loads(harmful)  # it would have run
    assert victim.exists()


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (pickled(**fields(0))[:-40], "cannot be read"),
        (pickle.dumps([1, 2]), "cannot be read"),
        (pickled(**(fields(0) | {"pos": torch.zeros(2, 3)})), "cannot be read"),
        (pickled(**(fields(0) | {"force": torch.zeros(2, 3)})), "must have `forces` of shape"),
        (pickled(**(fields(0) | {"atomic_numbers": torch.Tensor([0, 1, 2])})), "1 to 118"),
        (pickled(pos=torch.zeros(1, 3)), "atomic_numbers"),
    ],
)
def test_a_malformed_entry_is_named_in_a_line(tmp_path: Path, entry: bytes, rule: str) -> None:
    write(tmp_path / "data.0000.lmdb", [entry])
    with pytest.raises(UserError, match=rf"data\.0000\.lmdb: entry 0.*{rule}") as refused:
        oc20.read(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("pages", [2, 3, 30])
def test_a_file_that_was_cut_off_is_refused_and_does_not_end_the_process(
    tmp_path: Path, pages: int
) -> None:
    file = tmp_path / "data.0000.lmdb"
    write(file, [pickled(**fields(number % 2)) for number in range(40)])
    content = file.read_bytes()
    assert len(content) > 31 * mmap.PAGESIZE
    file.write_bytes(content[: pages * mmap.PAGESIZE])
    read = (
        "import sys; from pathlib import Path; from study.datasets.readers import oc20; "
        "oc20.read(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", read, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "it was cut off: get it again" in done.stderr.splitlines()[-1]


def test_what_is_no_lmdb_folder_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data.0000.lmdb").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"data\.0000\.lmdb: is no whole LMDB file"):
        oc20.read(tmp_path)
    with pytest.raises(UserError, match=r"must be named by its folder"):
        detect.kind_of(tmp_path / "data.0000.lmdb")
    (tmp_path / "0.extxyz").write_text("")
    with pytest.raises(UserError, match=r"must hold either .* two folders"):
        oc20.read(tmp_path)
    (tmp_path / "0.extxyz").unlink()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r"pip install lmdb"):
        oc20.read(tmp_path)
