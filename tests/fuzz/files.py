"""Small files of every format, all with the same molecules of water."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

FRAMES = 6
PLACES = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]) + 4.0


def water(number: int) -> Atoms:
    """A molecule of water in a box, a little off its place, with labels."""
    rng = np.random.default_rng(number)
    atoms = Atoms("OHH", PLACES + rng.normal(scale=0.02, size=(3, 3)), cell=[9, 9, 9], pbc=True)
    forces = rng.normal(size=(3, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=-14.0 - 0.1 * number, forces=forces)
    return atoms


WATERS = [water(number) for number in range(FRAMES)]
POSITIONS = np.array([atoms.positions for atoms in WATERS])
ENERGIES = np.array([atoms.get_potential_energy() for atoms in WATERS])
FORCES = np.array([atoms.get_forces() for atoms in WATERS])


def write_data(path: Path) -> None:
    lines = []
    for places, energy, forces in zip(POSITIONS, ENERGIES, FORCES, strict=True):
        lines += ["begin", "lattice 9 0 0", "lattice 0 9 0", "lattice 0 0 9"]
        for symbol, place, force in zip("OHH", places, forces, strict=True):
            numbers = " ".join(f"{x:.8f}" for x in place)
            pushes = " ".join(f"{x:.8f}" for x in force)
            lines.append(f"atom {numbers} {symbol} 0 0 {pushes}")
        lines += [f"energy {energy:.8f}", "charge 0", "end"]
    path.write_text("\n".join(lines) + "\n")


def write_dump(path: Path) -> None:
    lines = []
    for step, (places, forces) in enumerate(zip(POSITIONS, FORCES, strict=True)):
        lines += ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", "3"]
        lines += ["ITEM: BOX BOUNDS pp pp pp", "0 9", "0 9", "0 9"]
        lines.append("ITEM: ATOMS id element x y z fx fy fz")
        for number, (symbol, place, force) in enumerate(zip("OHH", places, forces, strict=True)):
            words = " ".join(f"{x:.6f}" for x in (*place, *force))
            lines.append(f"{number + 1} {symbol} {words}")
    path.write_text("\n".join(lines) + "\n")


def write_md17(path: Path) -> None:
    np.savez(path, z=np.array([8, 1, 1]), R=POSITIONS, E=ENERGIES, F=FORCES)


def write_zipped_npz(path: Path) -> None:
    np.savez_compressed(path, z=np.array([8, 1, 1]), R=POSITIONS, E=ENERGIES, F=FORCES)


def write_hdf5(path: Path, names: tuple[str, str, str]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("H2O")
        group["atomic_numbers"] = np.array([8, 1, 1])
        for name, values in zip(names, (POSITIONS, ENERGIES, FORCES), strict=True):
            group[name] = values


def write_ani1x(path: Path) -> None:
    write_hdf5(path, ("coordinates", "wb97x_dz.energy", "wb97x_dz.forces"))


def write_spice(path: Path) -> None:
    write_hdf5(path, ("conformations", "dft_total_energy", "dft_total_gradient"))


def write_database(path: Path) -> None:
    with ase.db.connect(path) as database:
        for atoms in WATERS:
            database.write(atoms)


def write_sdf(path: Path) -> None:
    records = []
    for places in POSITIONS:
        rows = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0"
            for symbol, (x, y, z) in zip("OHH", places, strict=True)
        ]
        records += ["water", " x", "", "  3  0  0  0 V2000", *rows, "M  END", "$$$$"]
    path.write_text("\n".join(records) + "\n")


def write_csv(path: Path) -> None:
    head = "charge0,charge1,system_id,elements,xyz,cbs_CCSD(T)_all"
    rows = [
        f"0,0,{n},O H H,{' '.join(map(str, places.ravel()))},-1.0"
        for n, places in enumerate(POSITIONS)
    ]
    path.write_text("\n".join([head, *rows]) + "\n")


def write_extxyz(path: Path) -> None:
    ase.io.write(path, WATERS, format="extxyz")


def write_traj(path: Path) -> None:
    ase.io.write(path, WATERS, format="traj")


def write_qm9(path: Path) -> None:
    rows = [
        f"{s}\t{x:.5f}\t{y:.5f}\t{z:.5f}\t0.1" for s, (x, y, z) in zip("OHH", PLACES, strict=True)
    ]
    targets = "\t".join(["1.5"] * 15)
    path.write_text("\n".join(["3", f"gdb 3\t{targets}\t", *rows, "1\t2", "O\tO", "I\tI"]) + "\n")


def write_v3000(path: Path) -> None:
    records = []
    for places in POSITIONS:
        rows = [
            f"M  V30 {number} {symbol} {x:.4f} {y:.4f} {z:.4f} 0"
            for number, (symbol, (x, y, z)) in enumerate(zip("OHH", places, strict=True), start=1)
        ]
        records += ["water", " x", "", "  0  0  0     0  0            999 V3000"]
        records += ["M  V30 BEGIN CTAB", "M  V30 COUNTS 3 0 0 0 0", "M  V30 BEGIN ATOM", *rows]
        records += ["M  V30 END ATOM", "M  V30 END CTAB", "M  END", "$$$$"]
    path.write_text("\n".join(records) + "\n")


def write_packed(path: Path) -> None:
    """An extxyz, zipped in the way that the name says."""
    plain = path.with_name("plain.extxyz")
    write_extxyz(plain)
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[path.suffix]
    path.write_bytes(pack(plain.read_bytes()))
    plain.unlink()


def write_physnet(path: Path) -> None:
    kinds = np.tile([8, 1, 1], (FRAMES, 1))
    np.savez(path, N=np.full(FRAMES, 3), Z=kinds, R=POSITIONS, E=ENERGIES, F=FORCES)


def write_ani1(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("ani/water")
        group["species"] = np.array([b"O", b"H", b"H"])
        group["coordinates"], group["energies"] = POSITIONS, ENERGIES


def write_vasprun(path: Path) -> None:
    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in "OHH")
    points = (
        "<varray name='kpointlist'><v>0 0 0</v></varray><varray name='weights'><v>1</v></varray>"
    )
    rows = ["<modeling>", f"<kpoints>{points}</kpoints>"]
    rows += [f"<atominfo><array name='atoms'><set>{atoms}</set></array></atominfo>"]
    rows += _vasp_structure(POSITIONS[0], " name='initialpos'")
    for places, energy, forces in zip(POSITIONS, ENERGIES, FORCES, strict=True):
        sums = [
            "<energy>",
            *(f"<i name='e_{kind}_energy'>{energy:.8f}</i>" for kind in ("fr", "wo_entrp", "0")),
            "</energy>",
        ]
        rows += ["<calculation>", "<scstep>", *sums, "</scstep>", *_vasp_structure(places)]
        rows += ["<varray name='forces'>", *_vasp_rows(forces), "</varray>", *sums]
        rows.append("</calculation>")
    path.write_text("\n".join(["<?xml version='1.0'?>", *rows, "</modeling>"]) + "\n")


def _vasp_structure(places: NDArray[np.float64], name: str = "") -> list[str]:
    rows = [f"<structure{name}>", "<crystal><varray name='basis'>", *_vasp_rows(9 * np.eye(3))]
    rows += ["</varray></crystal>", "<varray name='positions'>", *_vasp_rows(places / 9)]
    return [*rows, "</varray>", "</structure>"]


def _vasp_rows(values: NDArray[np.float64]) -> list[str]:
    return [f"<v>{x:.10f} {y:.10f} {z:.10f}</v>" for x, y, z in values]


WRITERS: dict[str, Callable[[Path], None]] = {
    "water.data": write_data,
    "water.dump": write_dump,
    "water.npz": write_md17,
    "zipped.npz": write_zipped_npz,
    "ani1x.h5": write_ani1x,
    "spice.h5": write_spice,
    "water.db": write_database,
    "water.sdf": write_sdf,
    "water.csv": write_csv,
    "water.extxyz": write_extxyz,
    "water.extxyz.gz": write_packed,
    "water.traj": write_traj,
    "some.xyz": write_qm9,
}
"""What the suite damages."""
ALL = WRITERS | {
    "water.json": write_database,
    "v3000.sdf": write_v3000,
    "water.extxyz.xz": write_packed,
    "water.extxyz.bz2": write_packed,
    "physnet.npz": write_physnet,
    "ani1.h5": write_ani1,
    "vasprun.xml": write_vasprun,
}
"""What the long check damages."""
