"""Readers of files by the name of their kind, and which kind a file is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from study.core.errors import UserError
from study.datasets.frames import HEADER, Frames
from study.datasets.readers import (
    ase_file,
    deepmd,
    gamd,
    hdf5,
    iso17,
    md17,
    molecule_sets,
    n2p2,
    oc20,
    qm9,
)


def settings_of(file: Path) -> dict[str, str]:
    """What a space writes for a file or folder: *.data is n2p2's, what is not known is ASE's."""
    from study.datasets.readers.detect import kind_of

    return {"name": kind_of(file), "path": str(file)}


Reader = Callable[[Path], Frames]

READERS: dict[str, Reader] = {
    "rpbe_water": n2p2.read,
    "n2p2_file": n2p2.read,
    "ase_file": ase_file.read,
    "deepmd_npy": deepmd.read,
    "gamd_npz": gamd.read,
    "md17_npz": md17.read,
    "ani1_hdf5": hdf5.read_ani1,
    "ani1x_hdf5": hdf5.read_ani1x,
    "spice_hdf5": hdf5.read_spice,
    "qm9_xyz": qm9.read_qm9,
    "sdf_file": molecule_sets.read_sdf,
    "pcqm4mv2_xyz": molecule_sets.read_pcqm4mv2,
    "dimers_csv": molecule_sets.read_dimers,
    "iso17_within": iso17.read_within,
    "iso17_other": iso17.read_other,
    "oc20_folder": oc20.read,
}
"""By name of the data set."""


SUFFIXES = {".data": "n2p2_file", ".sdf": "sdf_file", ".csv": "dimers_csv"}
"""Of files that nothing else tells apart; any other is ASE's."""


def kind_of(path: Path) -> str:
    """Name of the data set that a file or folder is, told by its content or suffix.

    Raises:
        UserError: if it is a folder of nothing known, or an HDF5 file of neither kind.
    """
    if deepmd.holds_systems(path):
        return "deepmd_npy"
    if gamd.holds_frames(path):
        return "gamd_npz"
    if md17.holds_molecules(path):
        return "md17_npz"
    if iso17.holds_reference(path):
        return "iso17_other"
    if qm9.holds_qm9(path) or "dsgdb9nsd" in path.name:
        return "qm9_xyz"
    if molecule_sets.holds_pcqm4mv2(path):
        return "pcqm4mv2_xyz"
    if oc20.holds_frames(path):
        return "oc20_folder"
    if path.is_dir() and any(hdf5.files_of(path)):
        return hdf5.kind_of(hdf5.files_of(path)[0])
    oc20.refuse_lmdb(path)
    if path.is_dir():
        raise UserError(
            f"{path}: no data set here: neither DeePMD's type.raw, nor GAMD's data_*_*.npz, nor "
            "MD17's *.npz, nor ISO17's reference.db, nor QM9's dsgdb9nsd_*.xyz, nor "
            "PCQM4Mv2's N.xyz, nor OC20's *.extxyz with *.txt"
        )
    if path.suffix in (".h5", ".hdf5", ".hdf"):
        return hdf5.kind_of(path)
    plain = path.name.removesuffix(".gz").removesuffix(".tar")
    return SUFFIXES.get(Path(plain).suffix, "ase_file")


def read_set(place: Path) -> Frames:
    """The frames of a stored set, of a file or folder of another program, or ASE's `g2`.

    Raises:
        UserError: if it is none of these, or damaged.
    """
    if str(place) == "g2" and not place.exists():
        return ase_file.g2()
    if not place.exists():
        raise UserError(f"{place}: no such file or folder")
    if (place / HEADER).exists():
        return Frames.load(place)
    return READERS[kind_of(place)](place)
