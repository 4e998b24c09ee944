"""Frames written by each format's own library, or as text, in units, order and names that vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from numpy.typing import NDArray

Array = NDArray[np.float64]

# CODATA 2018 and the thermochemical calorie: eV and Å in one of each.
KCAL = 0.0433641042385
ENERGIES = {"eV": 1.0, "Hartree": 27.211386245988, "kcal/mol": KCAL, "kJ/mol": KCAL / 4.184}
LENGTHS = {"Ang": 1.0, "Bohr": 0.529177210903, "nm": 10.0}


@dataclass(frozen=True)
class Sample:
    """Frames of the same atoms, with the units and names in which a file is to have them.

    Args:
        numbers: (N,).
        positions: (F, N, 3).
        energies: (F,).
        forces: (F, N, 3).
        cell: (3, 3).
        pbc: along each vector.
        energy_unit: of the numbers in the file.
        length_unit: likewise.
        seed: of whatever else a writer chooses.
    """

    numbers: NDArray[np.int64]
    positions: Array
    energies: Array
    forces: Array
    cell: Array
    pbc: tuple[bool, bool, bool]
    energy_unit: str
    length_unit: str
    seed: int

    @property
    def symbols(self) -> list[str]:
        return [chemical_symbols[number] for number in self.numbers]

    def pick(self, *names: str) -> str:
        """One of some names."""
        return names[self.seed % len(names)]

    @property
    def force_unit(self) -> str:
        return f"{self.energy_unit}/{self.length_unit}"


def structures(sample: Sample, *, labelled: bool = True) -> list[Atoms]:
    made = []
    for places, energy, forces in zip(
        sample.positions, sample.energies, sample.forces, strict=True
    ):
        atoms = Atoms(sample.numbers, places, cell=sample.cell, pbc=sample.pbc)
        if labelled:
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        made.append(atoms)
    return made


def extxyz(folder: Path, sample: Sample) -> Path:
    made = structures(sample, labelled=False)
    force = sample.pick("forces", "REF_forces", "dft_force", "Force")
    for atoms, energy, forces in zip(made, sample.energies, sample.forces, strict=True):
        units = {"energy-unit": sample.energy_unit, "length_unit": sample.length_unit}
        pairs = [*units.items(), (sample.pick("energy", "REF_energy", "Energy", "etot"), energy)]
        atoms.info |= dict(pairs if sample.seed % 2 else reversed(pairs))
        atoms.new_array(force, forces)
    ase.io.write(folder / "set.extxyz", made, format="extxyz", write_results=False)
    return folder / "set.extxyz"


def traj(folder: Path, sample: Sample) -> Path:
    ase.io.write(folder / "set.traj", structures(sample))
    return folder / "set.traj"


def json_database(folder: Path, sample: Sample) -> Path:
    with ase.db.connect(folder / "set.json") as database:
        for atoms in structures(sample):
            database.write(atoms)
    return folder / "set.json"


def schnetpack(folder: Path, sample: Sample) -> Path:
    energy, force = sample.pick("energy", "total_energy"), sample.pick("forces", "force")
    with ase.db.connect(folder / "set.db") as database:
        database.metadata = {
            "_distance_unit": sample.length_unit,
            "_property_unit_dict": {energy: sample.energy_unit, force: sample.force_unit},
        }
        for atoms, value, forces in zip(
            structures(sample, labelled=False), sample.energies, sample.forces, strict=True
        ):
            database.write(atoms, data={energy: np.array([value]), force: forces})
    return folder / "set.db"


def sgdml(folder: Path, sample: Sample) -> Path:
    arrays: list[tuple[str, Any]] = [
        (sample.pick("z", "nuclear_charges"), sample.numbers),
        (sample.pick("R", "coords"), sample.positions),
        (sample.pick("E", "energies"), sample.energies.reshape((-1, 1)[: 1 + sample.seed % 2])),
        (sample.pick("F", "forces"), sample.forces),
        ("lattice", sample.cell.T),
        ("e_unit", sample.energy_unit),
        ("r_unit", sample.length_unit),
    ]
    np.savez(folder / "set.npz", **dict(arrays if sample.seed % 2 else reversed(arrays)))
    return folder / "set.npz"


def physnet(folder: Path, sample: Sample) -> Path:
    frames, atoms = sample.positions.shape[:2]
    padding = ((0, 0), (0, sample.seed % 3))
    np.savez(
        folder / "set.npz",
        N=np.full(frames, atoms),
        Z=np.pad(np.tile(sample.numbers, (frames, 1)), padding),
        R=np.pad(sample.positions, (*padding, (0, 0))),
        E=sample.energies,
        F=np.pad(sample.forces, (*padding, (0, 0))),
        e_unit=sample.energy_unit,
        r_unit=sample.length_unit,
    )
    return folder / "set.npz"


def hdf5(names: tuple[str, str, str, str], sign: int = 1) -> Callable[[Path, Sample], Path]:
    def write(folder: Path, sample: Sample) -> Path:
        values = (sample.numbers, sample.positions, sample.energies, sign * sample.forces)
        units = (None, sample.length_unit, sample.energy_unit, sample.force_unit)
        with h5py.File(folder / "set.h5", "w") as file:
            group = file.create_group("deep/group")
            for name, array, unit in zip(names, values, units, strict=True):
                group[name] = array
                if unit:
                    group[name].attrs[sample.pick("units", "unit")] = unit
        return folder / "set.h5"

    return write


def deepmd(folder: Path, sample: Sample) -> Path:
    system, frames = folder / "system", len(sample.energies)
    kinds = list(dict.fromkeys(sample.symbols))
    (system / "set.000").mkdir(parents=True)
    (system / "type_map.raw").write_text(sample.pick(" ", "\n").join(kinds))
    types = [str(kinds.index(symbol)) for symbol in sample.symbols]
    (system / "type.raw").write_text(sample.pick("\n", " ").join(types) + "\n")
    arrays = {
        "coord": sample.positions.reshape(frames, -1),
        "energy": sample.energies.reshape(frames, 1) if sample.seed % 2 else sample.energies,
        "force": sample.forces.reshape(frames, -1),
        "box": np.tile(sample.cell.reshape(9), (frames, 1)),
    }
    for name, values in arrays.items():
        if sample.seed % 3:
            np.save(system / "set.000" / f"{name}.npy", values)
        else:
            np.savetxt(system / f"{name}.raw", values, fmt="%.17g")
    if not sample.seed % 3:
        (system / "set.000").rmdir()
    return folder


def n2p2(folder: Path, sample: Sample) -> Path:
    lines = []
    for places, energy, forces in zip(
        sample.positions, sample.energies, sample.forces, strict=True
    ):
        lattice = [f"lattice {' '.join(f'{x:.17g}' for x in row)}" for row in sample.cell]
        atoms = [
            f"atom {' '.join(f'{x:.17g}' for x in place)} {symbol} 0 0 "
            f"{' '.join(f'{x:.17g}' for x in force)}"
            for symbol, place, force in zip(sample.symbols, places, forces, strict=True)
        ]
        parts = [lattice, atoms, [f"energy {energy:.17g}"], ["charge 0"]]
        parts = parts if sample.seed % 2 else parts[::-1]
        lines += ["begin", *(line for part in parts for line in part), "end"]
    (folder / "set.data").write_text("\n".join(lines) + "\n")
    return folder / "set.data"


def dump(folder: Path, sample: Sample) -> Path:
    names = sample.pick("x y z", "xu yu zu")
    (ax, _, _), (bx, by, _), (cx, cy, cz) = sample.cell
    bounds = [
        f"{min(0, bx, cx, bx + cx):.17g} {ax + max(0, bx, cx, bx + cx):.17g} {bx:.17g}",
        f"{min(0, cy):.17g} {by + max(0, cy):.17g} {cx:.17g}",
        f"0 {cz:.17g} {cy:.17g}",
    ]
    flags = " ".join("pp" if along else "ff" for along in sample.pbc)
    lines = []
    for step, (places, forces) in enumerate(zip(sample.positions, sample.forces, strict=True)):
        rows = [
            f"{number} {symbol} {' '.join(f'{x:.17g}' for x in (*place, *force))}"
            for number, (symbol, place, force) in enumerate(
                zip(sample.symbols, places, forces, strict=True), start=1
            )
        ]
        lines += ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(rows))]
        lines += [f"ITEM: BOX BOUNDS xy xz yz {flags}", *bounds]
        lines += [f"ITEM: ATOMS id element {names} fx fy fz", *reversed(rows)]
    (folder / "set.dump").write_text("\n".join(lines) + "\n")
    return folder / "set.dump"


def sdf(folder: Path, sample: Sample) -> Path:
    records = []
    for places in sample.positions:
        rows = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0"
            for symbol, (x, y, z) in zip(sample.symbols, places, strict=True)
        ]
        count = f"{len(rows):3d}  0  0  0  0  0  0  0  0  0999 V2000"
        records += ["molecule", "  by hand", "", count, *rows, "M  END", "$$$$"]
    (folder / "set.sdf").write_text("\n".join(records) + "\n")
    return folder / "set.sdf"


ALL = {"cell", "pbc", "energy", "forces"}
FORMATS: dict[str, tuple[Callable[[Path, Sample], Path], set[str], tuple[str, str]]] = {
    "extxyz": (extxyz, ALL, ("", "")),
    "traj": (traj, ALL, ("eV", "Ang")),
    "json": (json_database, ALL, ("eV", "Ang")),
    "schnetpack": (schnetpack, ALL, ("", "")),
    "sgdml": (sgdml, {"cell", "energy", "forces"}, ("", "")),
    "physnet": (physnet, {"energy", "forces"}, ("", "")),
    "ani1": (
        hdf5(("species", "coordinates", "energies", "forces")),
        {"energy", "forces"},
        ("", ""),
    ),
    "ani1x": (
        hdf5(("atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces")),
        {"energy", "forces"},
        ("", ""),
    ),
    "spice": (
        hdf5(("atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient"), -1),
        {"energy", "forces"},
        ("", ""),
    ),
    "deepmd": (deepmd, {"cell", "energy", "forces"}, ("eV", "Ang")),
    "n2p2": (n2p2, {"cell", "energy", "forces"}, ("Hartree", "Bohr")),
    "dump": (dump, {"cell", "pbc", "forces"}, ("eV", "Ang")),
    "sdf": (sdf, set(), ("eV", "Ang")),
}
"""By format: what writes it, what it keeps besides atoms, its units if it declares none."""
