"""Outputs of codes: all steps of a whole one; of one that was cut off whole steps, and a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.units import Bohr, Hartree, Ry
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.readers.ase_file import read
from tests.fuzz.files import ENERGIES, FORCES, FRAMES, POSITIONS

CUTS = 40
"""Places at which each output is cut, evenly spread."""


def rows(values: NDArray[np.float64], form: str) -> list[str]:
    """A line for each atom, with `{n}` its number from 1, `{z}` its atomic number, `{s}` symbol."""
    return [
        form.format(*value, n=number + 1, z=(8, 1, 1)[number], s="OHH"[number])
        for number, value in enumerate(values)
    ]


def outcar() -> list[str]:
    lines = [
        " vasp.6.3.0",
        *2 * [" POTCAR:    PAW_PBE O 08Apr2002", " POTCAR:    PAW_PBE H 15Jun2001"],
    ]
    lines += ["   ISPIN  =      1    spin polarized calculation?"]
    lines += ["   ions per type =               1   2"]
    lines += ["   k-points           NKPTS =      1   number of bands    NBANDS=      8"]
    lines += [" k-points in reciprocal lattice and weights: Gamma", "  0.0  0.0  0.0     1.000"]
    lattice = [f"   {a:12.9f} {b:12.9f} {c:12.9f}   0.1 0.0 0.0" for a, b, c in 9 * np.eye(3)]
    for step, (places, energy, forces) in enumerate(zip(POSITIONS, ENERGIES, FORCES, strict=True)):
        lines += [f"--------- Iteration   {step + 1:4d}(   1)  ----------", ""]
        lines += [
            "      direct lattice vectors                 reciprocal lattice vectors",
            *lattice,
        ]
        lines += [
            " POSITION                                       TOTAL-FORCE (eV/Angst)",
            80 * "-",
        ]
        both = np.hstack([places, forces])
        lines += [*rows(both, " {:12.7f} {:12.7f} {:12.7f}  {:13.8f} {:13.8f} {:13.8f}"), 80 * "-"]
        lines += ["  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)", 60 * "-"]
        lines += [f"  free  energy   TOTEN  =    {energy:18.8f} eV", ""]
        lines += [f"  energy  without entropy={energy:18.8f}  energy(sigma->0) ={energy:18.8f}", ""]
    return [*lines, " General timing and accounting informations for this job:", " Elapsed: 1.0"]


def espresso() -> list[str]:
    lines = ["     Program PWSCF v.7.4 starts on 30Dec2024 at 16:10:39", ""]
    lines += ["     bravais-lattice index     =            1"]
    lines += [f"     lattice parameter (alat)  =   {9 / Bohr:12.7f}  a.u."]
    lines += ["     number of atoms/cell      =            3"]
    lines += ["     number of atomic types    =            2"]
    lines += [f"     celldm(1)= {9 / Bohr:11.7f}  celldm(2)=   0.000000  celldm(3)=   0.000000"]
    lines += ["     crystal axes: (cart. coord. in units of alat)"]
    lines += ["               a(1) = (   1.000000   0.000000   0.000000 )"]
    lines += ["               a(2) = (   0.000000   1.000000   0.000000 )"]
    lines += ["               a(3) = (   0.000000   0.000000   1.000000 )"]
    lines += ["   Cartesian axes", "     site n.     atom                  positions (alat units)"]
    form = "         {n}           {s}   tau(   {n}) = ( {:12.9f} {:12.9f} {:12.9f}  )"
    lines += [*rows(POSITIONS[0] / 9, form), ""]
    for step, (places, energy, forces) in enumerate(zip(POSITIONS, ENERGIES, FORCES, strict=True)):
        if step:
            lines += [
                "ATOMIC_POSITIONS (angstrom)",
                *rows(places, "{s}  {:14.9f} {:14.9f} {:14.9f}"),
            ]
            lines += [""]
        lines += [f"!    total energy              =  {energy / Ry:18.10f} Ry", ""]
        lines += ["     Forces acting on atoms (cartesian axes, Ry/au):", ""]
        form = "     atom    {n} type  1   force = {:14.10f} {:14.10f} {:14.10f}"
        lines += [*rows(forces / (Ry / Bohr), form), ""]
    return [*lines, "   JOB DONE.", "=" * 70]


def gaussian() -> list[str]:
    lines = [" Entering Gaussian System, Link 0=g16", ""]
    dashes = " " + 69 * "-"
    for places, energy, forces in zip(POSITIONS, ENERGIES, FORCES, strict=True):
        lines += ["                          Input orientation:", dashes]
        lines += [" Center     Atomic      Atomic             Coordinates (Angstroms)"]
        lines += [" Number     Number       Type             X           Y           Z", dashes]
        lines += [*rows(places, "  {n}  {z}  0  {:13.9f} {:13.9f} {:13.9f}"), dashes]
        lines += [f" SCF Done:  E(RHF) = {energy / Hartree:18.10f}     A.U. after   10 cycles"]
        lines += [" Center     Atomic                   Forces (Hartrees/Bohr)"]
        lines += [" Number     Number              X              Y              Z", dashes]
        form = "  {n}  {z}  {:15.10f} {:15.10f} {:15.10f}"
        lines += [*rows(forces / (Hartree / Bohr), form), dashes]
    return [*lines, " Normal termination of Gaussian 16 at Tue Apr  6 10:00:00 2021."]


def orca() -> list[str]:
    lines = ["                                 * O   R   C   A *", ""]
    for step, (places, energy, forces) in enumerate(zip(POSITIONS, ENERGIES, FORCES, strict=True)):
        lines += ["CARTESIAN COORDINATES (ANGSTROEM)", 33 * "-"]
        lines += [*rows(places, "  {s}   {:14.9f} {:14.9f} {:14.9f}"), ""]
        lines += ["Number of atoms                             ...      3"]
        lines += [f"FINAL SINGLE POINT ENERGY {energy / Hartree:22.12f}", ""]
        lines += ["ORCA SCF GRADIENT CALCULATION", "CARTESIAN GRADIENT", 18 * "-", ""]
        form = "   {n}   {s}   :   {:15.10f} {:15.10f} {:15.10f}"
        lines += [*rows(-forces / (Hartree / Bohr), form), ""]
        if step < FRAMES - 1:
            lines += ["          *  ORCA GEOMETRY RELAXATION STEP  *", ""]
    return [*lines, "                 ****ORCA TERMINATED NORMALLY****", "TOTAL RUN TIME: 0 days"]


OUTPUTS: dict[str, Callable[[], list[str]]] = {
    "OUTCAR": outcar,
    "water.pwo": espresso,
    "water.log": gaussian,
    "orca.out": orca,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_whole_output_is_read_to_its_end(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("\n".join(OUTPUTS[name]()) + "\n")
    frames = read(tmp_path / name)
    assert len(frames) == FRAMES
    np.testing.assert_allclose(frames.positions, POSITIONS.reshape(-1, 3), atol=1e-6)
    np.testing.assert_allclose(frames.energies, ENERGIES, atol=1e-6)
    np.testing.assert_allclose(frames.forces, FORCES.reshape(-1, 3), atol=1e-6)
    assert frames.origin["labels"] == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_was_cut_off_gives_its_whole_steps_and_says_so(
    name: str, tmp_path: Path
) -> None:
    content = ("\n".join(OUTPUTS[name]()) + "\n").encode()
    ends = content.rindex(b"\n", 0, -1)
    path, most, refused = tmp_path / name, 0, []
    for cut in np.linspace(0, ends - 40, CUTS, dtype=int).tolist():
        path.write_bytes(content[:cut])
        try:
            frames = read(path)
        except UserError as problem:
            refused.append(str(problem))
            assert most <= 1
            continue
        count = len(frames)
        (remark,) = frames.origin["labels"]
        assert remark.startswith(f"{name} ends before its program did")
        assert count >= most
        most = count
        np.testing.assert_allclose(frames.positions, POSITIONS[:count].reshape(-1, 3), atol=1e-6)
        np.testing.assert_allclose(frames.energies, ENERGIES[:count], atol=1e-6)
        there = frames.labelled("forces")
        assert there[1:].all()
        given = np.repeat(there, 3)
        known = FORCES[:count].reshape(-1, 3)[given]
        np.testing.assert_allclose(frames.forces[given], known, atol=1e-6)
    assert most >= FRAMES - 1
    assert refused
    assert all(name in line and "\n" not in line for line in refused)


def test_positions_of_gaussian_that_are_turned_against_the_forces_are_refused(
    tmp_path: Path,
) -> None:
    text = "\n".join(gaussian()) + "\n"
    path = tmp_path / "water.log"
    path.write_text(text.replace("Input orientation", "Standard orientation"))
    with pytest.raises(UserError, match=r"water\.log: .*standard orientation alone.*nosymm"):
        read(path)
