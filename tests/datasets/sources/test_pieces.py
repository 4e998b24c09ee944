"""Large files read in pieces: what is stored is that of reading them at once, also after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets import store
from study.datasets.parsing.header import read_header
from study.datasets.prepare import prepare
from study.datasets.readers import hdf5
from study.datasets.readers.atoms import xyz_pieces
from study.datasets.readers.detect import parsed, settings_of
from study.datasets.sources import pieces


def write_hdf5(path: Path) -> Path:
    """Seven molecules, of one of which some conformers were not computed."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(7):
            group, count, atoms = file.create_group(f"m{number}"), 3 + number, 2 + number % 3
            group["atomic_numbers"] = rng.choice([1, 6, 8], atoms).astype(np.uint8)
            places = 1.2 * np.arange(atoms)[:, np.newaxis] + rng.normal(size=(count, atoms, 3)) / 20
            group["coordinates"] = places.astype(np.float32)
            group["wb97x_dz.energy"] = rng.normal(size=count)
            if number == 4:
                group["wb97x_dz.energy"][1] = np.nan
            group["wb97x_dz.forces"] = rng.normal(size=(count, atoms, 3)).astype(np.float32)
    return path


def write_extxyz(path: Path, *, odd: str = "") -> Path:
    """Frames of all kinds: slabs, molecules, groups that come back, a charge, stresses."""
    rng, lines = np.random.default_rng(1), []
    for number in range(24):
        atoms = 2 + number % 3
        said = [
            f"energy={rng.normal():.8f}",
            f"group={'ab7'[number % 3]}" if number % 5 else "",
            'Lattice="9 0 0 0 9.5 0 0.1 0 10"' if number % 2 else "",
            ('pbc="T T F"' if number % 4 == 1 else 'pbc="T T T"') if number % 2 else 'pbc="F F F"',
            "charge=1" if number == 20 else "",
            'stress="1 0 0 0 1 0 0 0 1"' if number == 23 else "",
            "config_type=bulk step=3",
        ]
        names = "species:S:1:pos:R:3:forces:R:3"
        lines += [str(atoms), f"Properties={names} {' '.join(filter(None, said))}"]
        for atom in range(atoms):
            numbers = [1.1 * atom, *rng.normal(size=2) / 20, *rng.normal(size=3)]
            lines.append(f"{'HCO'[atom % 3]} {' '.join(f'{value:.7f}' for value in numbers)}")
        if odd and number == 15:
            lines[-1] = odd
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files have many pieces, which are read here."""
    monkeypatch.setattr(hdf5, "PIECE_BYTES", 700)
    monkeypatch.setattr(xyz_pieces, "PIECE_BYTES", 700)

    def here(work: Any, jobs: dict[int, Any], *_: Any) -> Iterator[tuple[int, Any]]:
        for number, job in reversed(jobs.items()):
            yield number, work(*job)

    monkeypatch.setattr(pieces, "in_processes", here)


def imported(file: Path, out: Path, told: list[tuple[int, int]] | None = None) -> Path:
    dataset = parsed(settings_of(file))
    progress = (lambda *_: None) if told is None else (lambda *done: told.append(done))
    return prepare(dataset, out, 2, progress)


def described(folder: Path) -> dict[str, Any]:
    header = read_header(folder)
    header.pop("stamps")
    return header


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("write", [write_hdf5, write_extxyz])
def test_pieces_give_the_files_that_reading_at_once_gives(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = write(tmp_path / f"set.{'h5' if write is write_hdf5 else 'extxyz'}"), []
    folder = imported(file, tmp_path / "pieces", told)
    assert told[-1][0] == told[-1][1] > 3
    monkeypatch.setattr(pieces, "FEWEST", 1000)
    assert described(folder) == described(imported(file, tmp_path / "once"))
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


@pytest.mark.usefixtures("small_pieces")
def test_an_import_goes_on_from_the_pieces_that_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out, told = write_extxyz(tmp_path / "set.extxyz"), tmp_path / "runs", []
    here = pieces.in_processes

    def killed(work: Any, jobs: dict[int, Any], *rest: Any) -> Iterator[tuple[int, Any]]:
        for number, made in here(work, jobs, *rest):
            if number == 1:
                raise KeyboardInterrupt
            yield number, made

    monkeypatch.setattr(pieces, "in_processes", killed)
    with pytest.raises(KeyboardInterrupt):
        imported(file, out)
    monkeypatch.setattr(pieces, "in_processes", here)
    damaged = max(out.glob("data/*.pieces/*/positions.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    folder = imported(file, out, told)
    # The first is missing, and one is damaged.
    assert told[0] == (told[-1][1] - 2, told[-1][1])
    monkeypatch.setattr(pieces, "FEWEST", 1000)
    assert described(folder) == described(imported(file, tmp_path / "once"))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("odd", ["H 0 0 0 1 2", "H 1e9 0 0 1 1 1", "Xx 1 2 3 1 1 1"])
def test_a_frame_that_is_refused_is_named_as_by_who_reads_all(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_extxyz(tmp_path / "set.extxyz", odd=odd)
    with pytest.raises(UserError) as found:
        imported(file, tmp_path / "pieces")
    monkeypatch.setattr(pieces, "FEWEST", 1000)
    with pytest.raises(UserError) as expected:
        imported(file, tmp_path / "once")
    assert found.value.problems == expected.value.problems
    assert not list(tmp_path.glob("pieces/data/*/"))


@pytest.mark.usefixtures("small_pieces")
def test_pieces_of_which_only_some_declare_units_are_refused(tmp_path: Path) -> None:
    file = write_extxyz(tmp_path / "set.extxyz")
    said, *rest = file.read_text().partition("group=7")
    file.write_text(
        said.replace(" config_type", " energy-unit=Hartree config_type") + "".join(rest)
    )
    with pytest.raises(UserError, match=r"frame 0 \(from 0\) declares units, .*Hartree"):
        imported(file, tmp_path / "runs")


@pytest.mark.usefixtures("small_pieces")
def test_pieces_that_a_kill_has_left_beside_the_set_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write_extxyz(tmp_path / "set.extxyz"), tmp_path / "runs"

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(store, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            imported(file, out)
    assert list(out.glob("data/*.pieces"))
    folder = imported(file, out)
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
