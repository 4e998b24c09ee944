"""MD17, ANI-1x and SPICE beyond the contract: other names, missing labels, broken files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from study.core.errors import UserError
from study.core.quantities.units import HARTREE, KCAL_PER_MOL
from study.datasets.readers import conformers, hdf5, md17
from study.datasets.readers.conformers import Conformers, joined
from study.datasets.readers.detect import settings_of

RNG = np.random.default_rng(0)
METHANOL = np.array([6, 8, 1, 1, 1, 1])
PLACES = RNG.normal(0, 2, (4, 6, 3))
FORCES = RNG.normal(0, 1, (4, 6, 3))


def rmd17(path: Path) -> None:
    np.savez(
        path,
        nuclear_charges=METHANOL.astype(np.uint8),
        coords=PLACES,
        energies=np.arange(4.0),
        forces=FORCES,
        old_indices=np.arange(4),
    )


def ani1x(path: Path, missing: int | None = None) -> None:
    energies = np.arange(4.0)
    if missing is not None:
        energies[missing] = np.nan
    with h5py.File(path, "w") as file:
        for formula, count in (("C1H4O1", 4), ("H2O1", 2)):
            group = file.create_group(formula)
            atoms = len(METHANOL) if count == 4 else 3
            group["atomic_numbers"] = METHANOL[:atoms].astype(np.uint8)
            group["coordinates"] = PLACES[:count, :atoms].astype(np.float32)
            group["wb97x_dz.energy"] = energies[:count]
            group["wb97x_dz.forces"] = FORCES[:count, :atoms].astype(np.float32)
            group["wb97x_tz.energy"] = np.full(count, np.nan)


def test_rmd17_is_one_trajectory_in_vacuum(tmp_path: Path) -> None:
    rmd17(tmp_path / "rmd17_methanol.npz")
    frames = md17.read(tmp_path / "rmd17_methanol.npz")
    assert frames.groups.tolist() == [0, 0, 0, 0]
    assert frames.numbers.tolist() == METHANOL.tolist() * 4
    np.testing.assert_allclose(frames.positions, PLACES.reshape(-1, 3))
    np.testing.assert_allclose(frames.energies, np.arange(4) * KCAL_PER_MOL)
    np.testing.assert_allclose(frames.forces, FORCES.reshape(-1, 3) * KCAL_PER_MOL)
    assert not frames.pbc.any()
    assert not frames.lattices.any()


def test_conformers_without_a_label_are_left_out(tmp_path: Path) -> None:
    ani1x(tmp_path / "ani1x.h5", missing=1)
    frames = hdf5.read_ani1x(tmp_path / "ani1x.h5")
    assert frames.groups.tolist() == [0, 0, 0, 1]
    assert frames.sizes.tolist() == [6, 6, 6, 3]
    np.testing.assert_allclose(frames.energies, HARTREE * np.array([0, 2, 3, 0]))
    expected = np.concatenate([FORCES[[0, 2, 3]].reshape(-1, 3), FORCES[0, :3]])
    np.testing.assert_allclose(frames.forces, HARTREE * expected, rtol=1e-6)


def test_a_file_is_recognised_by_its_content(tmp_path: Path) -> None:
    rmd17(tmp_path / "one.npz")
    ani1x(tmp_path / "two.h5")
    with h5py.File(tmp_path / "three.hdf5", "w") as file:
        group = file.create_group("water")
        arrays = ("atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient")
        for name in arrays:
            group[name] = 0.0
    names = ("one.npz", "two.h5", "three.hdf5", "", "input.data.gz", "four.extxyz")
    kinds = [settings_of(tmp_path / name)["name"] for name in names]
    assert kinds == ["md17_npz", "ani1x_hdf5", "spice_hdf5", "md17_npz", "n2p2_file", "ase_file"]


def without_forces(path: Path) -> None:
    ani1x(path)
    with h5py.File(path, "a") as file:
        del file["H2O1/wb97x_dz.forces"]


def of_another_shape(path: Path) -> None:
    ani1x(path)
    with h5py.File(path, "a") as file:
        del file["H2O1/coordinates"]
        file["H2O1/coordinates"] = np.zeros((2, 4, 3))


def without_groups(path: Path) -> None:
    h5py.File(path, "w").close()


def of_another_kind(path: Path) -> None:
    path.write_bytes(b"no hdf5")


def test_frames_of_a_group_without_forces_have_none(tmp_path: Path) -> None:
    without_forces(tmp_path / "set.h5")
    frames = hdf5.read_ani1x(tmp_path / "set.h5")
    assert not frames.labelled("forces").all()
    assert frames.origin["labels"][0].startswith("no forces among atomic_numbers, coordinates")


@pytest.mark.parametrize(
    ("write", "rule"),
    [
        (of_another_shape, r"group H2O1: .*2 energies and forces of shape \(2, 4, 3\)"),
        (without_groups, "must hold a frame with its labels"),
        (of_another_kind, "is no HDF5 file"),
    ],
)
def test_broken_hdf5_files_are_answered_in_a_line(
    write: Callable[[Path], None], rule: str, tmp_path: Path
) -> None:
    write(tmp_path / "set.h5")
    with pytest.raises(UserError, match=rule):
        hdf5.read_ani1x(tmp_path / "set.h5")


def test_an_npz_file_of_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", z=METHANOL)
    with pytest.raises(UserError, match=r"must hold positions as R or coords .*, but holds z"):
        md17.read(tmp_path / "other.npz")
    np.savez(tmp_path / "bare.npz", z=METHANOL, R=PLACES)
    assert md17.read(tmp_path / "bare.npz").labels == ()
    (tmp_path / "other.npz").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="is no npz file"):
        md17.read(tmp_path / "other.npz")


def test_a_folder_or_file_of_unknown_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set here"):
        settings_of(tmp_path)
    without_groups(tmp_path / "empty.h5")
    with pytest.raises(UserError, match="must be ANI-1, ANI-1x or SPICE, but its first group"):
        settings_of(tmp_path / "empty.h5")


def test_frames_joined_in_chunks_are_those_joined_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    parts = [
        Conformers(
            rng.integers(1, 9, atoms),
            rng.normal(size=(count, atoms, 3)),
            rng.normal(size=count),
            rng.normal(size=(count, atoms, 3)),
            {"charge": rng.normal(size=count)},
            cells=rng.normal(size=(count, 3, 3)) if atoms == 4 else None,
            stresses=rng.normal(size=(count, 3, 3)) if atoms == 4 else None,
        )
        for atoms, count in ((3, 5), (2, 0), (4, 3), (1, 7), (5, 0), (3, 2), (2, 0))
    ]
    whole = joined(parts, Path("set"))
    for at_once in (1, 4, 8):
        monkeypatch.setattr(conformers, "AT_ONCE", at_once)
        assert joined(iter(parts), Path("set")).content_hash() == whole.content_hash()
