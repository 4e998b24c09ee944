"""Writes frames in the formats of published data sets, as their publishers have them."""

from __future__ import annotations

import csv
import gzip
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from study.core.quantities.elements import SYMBOLS
from study.core.quantities.units import (
    BOHR,
    HARTREE,
    HARTREE_PER_BOHR,
    KCAL_PER_MOL,
    KJ_PER_MOL,
    KJ_PER_MOL_PER_NM,
)
from study.datasets.frames import Frames


def parts(frames: Frames) -> list[Frames]:
    return [frames.select(np.array([index])) for index in range(len(frames))]


def write_n2p2(frames: Frames, path: Path) -> None:
    lines = []
    for part in parts(frames):
        lines += ["begin", f"comment src={part.groups[0]}"]
        lines += [f"lattice {' '.join(map(repr, row))}" for row in (part.cells[0] / BOHR).tolist()]
        rows = np.hstack([part.positions / BOHR, part.forces / HARTREE_PER_BOHR]).tolist()
        for number, row in zip(part.numbers, rows, strict=True):
            words = [*map(repr, row)]
            symbol = {8: "O", 1: "H"}[int(number)]
            lines.append(f"atom {' '.join(words[:3])} {symbol} 0 0 {' '.join(words[3:])}")
        lines += [f"energy {part.energies[0] / HARTREE}", "charge 0", "end"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


def write_extxyz(frames: Frames, path: Path) -> None:
    made = []
    for part in parts(frames):
        atoms = Atoms(part.numbers, part.positions, cell=part.cells[0], pbc=True)
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(part.energies[0]), forces=part.forces
        )
        atoms.info["group"] = int(part.groups[0])
        made.append(atoms)
    ase.io.write(path, made)


def write_deepmd(frames: Frames, folder: Path) -> None:
    for group in np.unique(frames.groups):
        part = frames.select(np.flatnonzero(frames.groups == group))
        system, count = folder / f"system{group}", len(part)
        (system / "set.000").mkdir(parents=True)
        kinds = part.numbers[: part.sizes[0]] == 8
        (system / "type.raw").write_text("\n".join(str(int(kind)) for kind in kinds))
        (system / "type_map.raw").write_text("H O")
        arrays = {
            "coord": part.positions,
            "force": part.forces,
            "box": part.cells,
            "energy": part.energies,
        }
        for name, array in arrays.items():
            np.save(system / "set.000" / f"{name}.npy", array.reshape(count, -1))


def write_gamd(frames: Frames, folder: Path) -> None:
    folder.mkdir()
    for number, part in enumerate(parts(frames)):
        np.savez(
            folder / f"data_{part.groups[0]}_{number}.npz",
            pos=part.positions,
            forces=part.forces / KJ_PER_MOL_PER_NM,
            energy=part.energies / KJ_PER_MOL,
        )


def conformers(frames: Frames) -> list[tuple[str, dict[str, Any]]]:
    """Elements, positions, energies and forces of each group."""
    found = []
    for group in np.unique(frames.groups):
        part = frames.select(np.flatnonzero(frames.groups == group))
        shape = (len(part), -1, 3)
        arrays = {
            "z": part.numbers[: part.sizes[0]],
            "R": part.positions.reshape(shape),
            "E": part.energies,
            "F": part.forces.reshape(shape),
        }
        found.append((f"water{group}", arrays))
    return found


def write_md17(frames: Frames, folder: Path) -> None:
    folder.mkdir()
    for name, arrays in conformers(frames):
        labels = {"E": arrays["E"][:, None] / KCAL_PER_MOL, "F": arrays["F"] / KCAL_PER_MOL}
        np.savez(folder / f"{name}.npz", **(arrays | labels))


def write_ani1x(frames: Frames, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, arrays in conformers(frames):
            group = file.create_group(name)
            group["atomic_numbers"] = arrays["z"]
            group["coordinates"] = arrays["R"].astype(np.float32)
            group["wb97x_dz.energy"] = arrays["E"] / HARTREE
            group["wb97x_dz.forces"] = arrays["F"] / HARTREE


def write_spice(frames: Frames, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, arrays in conformers(frames):
            group = file.create_group(name)
            group["atomic_numbers"] = arrays["z"]
            group["conformations"] = arrays["R"] / BOHR
            group["dft_total_energy"] = arrays["E"] / HARTREE
            group["dft_total_gradient"] = -arrays["F"] / HARTREE_PER_BOHR


def write_ani1(frames: Frames, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, arrays in conformers(frames):
            group = file.create_group(f"gdb11_s01/gdb11_s01-{name}")
            group["species"] = np.array([SYMBOLS[z - 1].encode() for z in arrays["z"]])
            group["coordinates"] = arrays["R"].astype(np.float32)
            group["energies"] = arrays["E"] / HARTREE
            group["coordinatesHE"] = arrays["R"][:1].astype(np.float32)
            group["energiesHE"] = arrays["E"][:1] / HARTREE


def write_qm9(frames: Frames, folder: Path) -> None:
    """As published: exponents such as 1.5*^-6, frequencies and names after the atoms."""
    folder.mkdir()
    for number, part in enumerate(parts(frames), start=1):
        targets = [repr(0.1 * column + 0.01 * number) for column in range(15)]
        targets[10] = repr(float(part.energies[0] / HARTREE)).replace("e", "*^")
        rows = [
            "\t".join([SYMBOLS[z - 1], *(f"{x:.10f}" for x in place), "1.5*^-6"])
            for z, place in zip(part.numbers, part.positions, strict=True)
        ]
        lines = [str(len(rows)), f"gdb {number}\t" + "\t".join(targets), *rows]
        lines += ["1341.307\t3000.0", "O\tO", "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2"]
        (folder / f"dsgdb9nsd_{number:06d}.xyz").write_text("\n".join(lines) + "\n")


def write_sdf(frames: Frames, path: Path) -> None:
    """As QM9's, with its table beside."""
    names = [
        "mol_id",
        "A",
        "B",
        "C",
        "mu",
        "alpha",
        "homo",
        "lumo",
        "gap",
        "r2",
        "zpve",
        "u0",
        "u298",
        "h298",
        "g298",
        "cv",
        "u0_atom",
    ]
    records, rows = [], [",".join(names)]
    for number, part in enumerate(parts(frames), start=1):
        atoms = [
            f"{x:10.5f}{y:10.5f}{z:10.5f} {SYMBOLS[kind - 1]:<3} 0  0  0  0  0"
            for kind, (x, y, z) in zip(part.numbers, part.positions, strict=True)
        ]
        head = [f"gdb_{number}", "     RDKit          3D", "", f"{len(atoms):3d}  1  0  0 V2000"]
        records += [*head, *atoms, "  1  2  1  0", "M  END", "$$$$"]
        energy = float(part.energies[0] / HARTREE)
        rows.append(f"gdb_{number},{'0.0,' * 10}{energy!r},{'0.0,' * 4}0.0")
    path.write_text("\n".join(records) + "\n")
    path.with_name(f"{path.name}.csv").write_text("\n".join(rows) + "\n")


def write_pcqm4mv2(frames: Frames, folder: Path) -> None:
    """In two folders; the table beside, with the energies in place of gaps."""
    rows = ["idx,smiles,homolumogap"]
    for number, part in enumerate(parts(frames)):
        rows.append(f"{number},O,{float(part.energies[0])!r}")
        atoms = [
            f"{SYMBOLS[kind - 1]} {x!r} {y!r} {z!r}"
            for kind, (x, y, z) in zip(part.numbers, part.positions.tolist(), strict=True)
        ]
        file = folder / f"part{number // 10}" / f"{number}.xyz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([str(len(atoms)), f"{number}", *atoms]) + "\n")
    (folder.parent / "data.csv").write_text("\n".join(rows) + "\n")


def write_dimers(frames: Frames, path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        columns = ["smiles0", "smiles1", "charge0", "charge1", "natoms0", "natoms1", "system_id"]
        table.writerow([*columns, "elements", "xyz", "cbs_CCSD(T)_all", "nn_CCSD(T)_all"])
        for part in parts(frames):
            symbols = " ".join(SYMBOLS[z - 1] for z in part.numbers)
            places = " ".join(map(repr, part.positions.ravel().tolist()))
            energy = part.energies[0] / KCAL_PER_MOL
            table.writerow(["O", "O", 0, 0, 3, 21, part.groups[0], symbols, places, energy, 7.0])


def write_iso17(frames: Frames, folder: Path) -> None:
    """Nine reference frames, of which those with ids 2 and 5 validate, and three to test on."""
    folder.mkdir()
    (folder / "validation_ids.txt").write_text("2\n5\n")
    for name, chosen in (
        ("reference", parts(frames)[:9]),
        ("test_within", parts(frames)[9:]),
        ("test_other", parts(frames)[9:]),
    ):
        with ase.db.connect(folder / f"{name}.db") as database:
            for part in chosen:
                database.write(
                    Atoms(part.numbers, part.positions),
                    key_value_pairs={"total_energy": float(part.energies[0])},
                    data={"atomic_forces": part.forces},
                )


def write_oc20(frames: Frames, folder: Path) -> None:
    """Two pairs of files, one of them compressed; total energies, and what to take off them."""
    folder.mkdir()
    references = np.arange(len(frames)) - 300.5
    total = replace(frames, energies=frames.energies + references)
    for name, first in (("0", 0), ("1", 6)):
        write_extxyz(total.select(np.arange(first, first + 6)), folder / f"{name}.extxyz")
        lines = [
            f"random{frames.groups[i]},frame{i},{references[i]}" for i in range(first, first + 6)
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    for file in (folder / "1.extxyz", folder / "1.txt"):
        file.with_name(f"{file.name}.xz").write_bytes(lzma.compress(file.read_bytes()))
        file.unlink()
