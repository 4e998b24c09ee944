"""Stresses and virials of files: the numbers that each format's own library has written or reads.

The reference is ASE's EMT potential, whose stress ASE's tests compare with the energy under strain.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from pydantic import ValidationError

from study.core.errors import UserError
from study.core.quantities.units import stress_unit
from study.data import main
from study.datasets.frames import Frames
from study.datasets.readers import ase_file, deepmd, hdf5, md17
from study.datasets.readers.detect import turned
from study.datasets.reading import Labels, Reading, Units
from study.datasets.validation import check

GPA, BOHR, HARTREE = 0.006241509074, 0.529177210903, 27.211386245988
KCAL = 0.0433641042385
"""CODATA 2018, in eV/Å³, Å and eV."""


def copper(seed: int = 0) -> Atoms:
    """A strained and shaken crystal with EMT's energy, forces and stress."""
    atoms = bulk("Cu", cubic=True)
    strain = np.array([[0.02, 0.01, 0.0], [0.01, -0.03, 0.015], [0.0, 0.015, -0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + (1 + 0.1 * seed) * strain), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    atoms.get_forces()
    atoms.get_stress()
    return atoms


def bare(seed: int = 0, **info: Any) -> Atoms:
    """The same with energy and forces alone, and with what else its comment says."""
    atoms = copper(seed)
    labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    made = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, info=info)
    made.calc = SinglePointCalculator(made, **labels)
    return made


STRESSES = np.array([copper(seed).get_stress(voigt=False) for seed in range(3)])
VOLUMES = np.array([copper(seed).get_volume() for seed in range(3)])
VIRIALS = -VOLUMES[:, None, None] * STRESSES


def read_info(path: Path, given: Reading | None = None, **info: Any) -> Frames:
    """What is read of one frame with such a comment."""
    ase.io.write(path / "cu.extxyz", bare(**info))
    return ase_file.read(path / "cu.extxyz", given or Reading())


def stress_of(frames: Frames) -> np.ndarray:
    assert frames.stresses is not None
    return frames.stresses


@pytest.mark.parametrize("name", ["cu.extxyz", "cu.traj", "cu.db", "cu.json"])
def test_what_ase_writes_is_read_as_ase_says(name: str, tmp_path: Path) -> None:
    path, frames = tmp_path / name, [copper(seed) for seed in range(3)]
    if path.suffix in (".db", ".json"):
        with ase.db.connect(path) as database:
            for atoms in frames:
                database.write(atoms)
    else:
        ase.io.write(path, frames)
    read = ase_file.read(path)
    np.testing.assert_allclose(stress_of(read), STRESSES, atol=1e-9)
    assert read.labels == ("energy", "forces", "stress")
    check(read, path)


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virials", "dft_virial"])
def test_virials_are_turned_into_stresses(name: str, tmp_path: Path) -> None:
    # QUIP, MACE and NequIP: virial = −V · stress, eV.
    read = read_info(tmp_path, **{name: VIRIALS[0]})
    np.testing.assert_allclose(stress_of(read), STRESSES[:1], atol=1e-9)


@pytest.mark.parametrize("name", ["REF_stress", "dft_stress", "Stress_Tensor"])
@pytest.mark.parametrize("kind", ["matrix", "voigt"])
def test_stresses_have_well_known_names(name: str, kind: str, tmp_path: Path) -> None:
    voigt = copper().get_stress()
    read = read_info(tmp_path, **{name: voigt if kind == "voigt" else STRESSES[0]})
    np.testing.assert_allclose(stress_of(read), STRESSES[:1], atol=1e-9)


def test_two_that_agree_are_one_and_two_that_disagree_are_refused(tmp_path: Path) -> None:
    both = {"REF_stress": STRESSES[0], "REF_virials": VIRIALS[0]}
    np.testing.assert_allclose(stress_of(read_info(tmp_path, **both)), STRESSES[:1], atol=1e-9)
    both["REF_virials"] = -VIRIALS[0]
    with pytest.raises(UserError, match="`REF_stress` and `REF_virials`, which disagree"):
        read_info(tmp_path, **both)
    for label, sign in (("REF_stress", 1), ("REF_virials", -1)):
        read = read_info(tmp_path, Reading(labels=Labels(stress=label)), **both)
        np.testing.assert_allclose(stress_of(read), sign * STRESSES[:1], atol=1e-9)


def test_other_names_are_told_by_the_user(tmp_path: Path) -> None:
    assert read_info(tmp_path, w=VIRIALS[0], s=STRESSES[0]).stresses is None
    for labels in (Labels(virial="w"), Labels(stress="s")):
        read = read_info(tmp_path, Reading(labels=labels), w=VIRIALS[0], s=STRESSES[0])
        np.testing.assert_allclose(stress_of(read), STRESSES[:1], atol=1e-9)
    with pytest.raises(UserError, match=r"`labels\.virial` must name .* w, but got 'v'"):
        read_info(tmp_path, Reading(labels=Labels(virial="v")), w=VIRIALS[0])
    with pytest.raises(ValidationError, match="two names of one label"):
        Labels(virial="w", stress="s")


def test_units_are_those_of_the_file_or_of_the_user(tmp_path: Path) -> None:
    given = Reading(units=Units(stress="-kbar"))
    for read in (
        read_info(tmp_path, **{"stress-unit": "GPa"}, REF_stress=STRESSES[0] / GPA),
        read_info(tmp_path, given, REF_stress=-STRESSES[0] / (0.1 * GPA)),
    ):
        np.testing.assert_allclose(stress_of(read), STRESSES[:1], atol=1e-8)
    with pytest.raises(UserError, match="the unit of stress must be a stress such as"):
        read_info(tmp_path, **{"stress-unit": "psi"}, REF_stress=STRESSES[0])
    with pytest.raises(
        UserError, match=r"`units\.stress` is of stresses, but `virial` is a virial"
    ):
        read_info(tmp_path, given, virial=VIRIALS[0])


@pytest.mark.parametrize(
    ("unit", "value"),
    {
        "GPa": GPA,
        "kB": 0.1 * GPA,
        "-kbar": -0.1 * GPA,
        "bar": 1e-4 * GPA,
        "eV/Å³": 1.0,
        "eV/Ang**3": 1.0,
        "eV/Ang/Ang/Ang": 1.0,
        "kcal mol^-1 Å^-3": KCAL,
        "Hartree/Bohr^3": HARTREE / BOHR**3,
        "Ry/bohr**3": HARTREE / BOHR**3 / 2,
        "a.u.": 183.6315,
    }.items(),
)
def test_stress_units(unit: str, value: float) -> None:
    assert stress_unit(unit) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("unit", ["eV", "eV/Å", "eV/Å/Å/nm", "GPa/Å", "", "-"])
def test_what_is_no_stress_unit_is_refused(unit: str) -> None:
    with pytest.raises(ValueError, match="must be a stress such as"):
        stress_unit(unit)


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (np.full((3, 3), np.nan), "must have finite numbers as `REF_stress`"),
        (np.arange(9.0).reshape(3, 3), "must have a symmetric `REF_stress`"),
        ("many words", "`REF_stress` must have real numbers"),
    ],
)
def test_what_is_no_stress_is_refused(value: Any, rule: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rule):
        read_info(tmp_path, REF_stress=value)


def test_frames_without_a_stress_or_a_volume_have_none(tmp_path: Path) -> None:
    path, slab = tmp_path / "mixed.extxyz", fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.info = {"REF_stress": np.eye(3)}
    alone = Atoms("Cu", [[0, 0, 0]], info={"REF_stress": np.zeros((3, 3))})
    for atoms in (slab, alone):
        atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    whole = bare(REF_stress=STRESSES[0])
    ase.io.write(path, [whole, slab, alone, bare(1)])
    read = ase_file.read(path)
    assert read.labelled("stress").tolist() == [True, False, False, False]
    assert "not periodic along all three vectors left out" in " ".join(read.origin["labels"])
    check(read, path)
    assert read.select(np.array([1, 2])).labelled("stress").tolist() == [False, False]
    assert read.select(np.array([1])).labels == ("energy",)


def test_inspect_tells_stresses_and_warns_of_their_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cu.extxyz"
    ase.io.write(path, [bare(seed, REF_stress=STRESSES[seed] / GPA) for seed in range(3)])
    assert main(["inspect", str(path)]) == 0
    assert "are stresses in eV/Å³" in capsys.readouterr().out
    assert main(["inspect", str(path), "--units", "stress=GPa"]) == 0
    told = capsys.readouterr().out
    assert "are stresses" not in told
    pressures = [-np.trace(stress) / 3 / GPA for stress in STRESSES]
    assert f"{min(pressures):.3f} to {max(pressures):.3f} GPa" in told


def test_export_keeps_stresses(tmp_path: Path) -> None:
    path, out = tmp_path / "cu.extxyz", tmp_path / "out.extxyz"
    ase.io.write(path, [bare(0, virial=VIRIALS[0]), bare(1)])
    assert main(["export", str(path), str(out)]) == 0
    first, second = ase.io.read(out, ":")
    np.testing.assert_allclose(first.get_stress(voigt=False), STRESSES[0], atol=1e-9)
    assert "stress" not in second.calc.results


def test_frames_store_stresses_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "cu.extxyz", [copper(seed) for seed in range(3)])
    read = ase_file.read(tmp_path / "cu.extxyz")
    read.save(tmp_path / "set")
    loaded = Frames.load(tmp_path / "set")
    np.testing.assert_array_equal(stress_of(loaded), stress_of(read))
    assert loaded.content_hash() == read.content_hash()
    without = replace(read, stresses=np.full((3, 3, 3), np.nan))
    assert without.stresses is None
    assert without.content_hash() == replace(read, stresses=None).content_hash()
    assert without.content_hash() != read.content_hash()
    without.save(tmp_path / "plain")
    assert not (tmp_path / "plain" / "stresses.npy").exists()


def test_a_left_handed_cell_is_turned_and_its_stress_stays(tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    ase.io.write(tmp_path / "cu.extxyz", atoms)
    read = turned(ase_file.read(tmp_path / "cu.extxyz"))
    assert np.linalg.det(read.cells[0]) > 0
    # ASE's stress is in Cartesian axes, which do not turn.
    np.testing.assert_allclose(stress_of(read)[0], copper().get_stress(voigt=False), atol=1e-9)


def test_deepmd_has_virials(tmp_path: Path) -> None:
    frames = [copper(seed) for seed in range(3)]
    part = tmp_path / "system" / "set.000"
    part.mkdir(parents=True)
    (part.parent / "type.raw").write_text("0 " * len(frames[0]))
    (part.parent / "type_map.raw").write_text("Cu")
    np.save(part / "coord.npy", [atoms.positions.ravel() for atoms in frames])
    np.save(part / "box.npy", [atoms.cell.array.ravel() for atoms in frames])
    np.save(part / "virial.npy", VIRIALS.reshape(3, 9))
    np.testing.assert_allclose(stress_of(deepmd.read(tmp_path)), STRESSES, atol=1e-12)
    (part.parent / "nopbc").touch()
    assert deepmd.read(tmp_path).stresses is None


def test_npz_files_have_stresses_in_their_unit_of_energy(tmp_path: Path) -> None:
    frames, path = [copper(0), copper(0), copper(0)], tmp_path / "cu.npz"
    arrays = {
        "z": frames[0].numbers,
        "R": np.stack([atoms.positions for atoms in frames]),
        "E": np.array([atoms.get_potential_energy() for atoms in frames]) / KCAL,
        "lattice": frames[0].cell.array.T,
    }
    expected = np.tile(STRESSES[0], (3, 1, 1))
    for name, values in (("stress", expected / KCAL), ("virials", VIRIALS[[0, 0, 0]] / KCAL)):
        np.savez(path, **arrays, **{name: values})
        np.testing.assert_allclose(stress_of(md17.read(path)), expected, rtol=1e-6)
    np.savez(path, **arrays, press=expected / GPA)
    given = Reading(labels=Labels(stress="press"), units=Units(stress="GPa"))
    np.testing.assert_allclose(stress_of(md17.read(path, given)), expected, rtol=1e-6)
    assert md17.read(path).stresses is None
    with pytest.raises(UserError, match=r"`labels\.stress` must name an array .* got 'push'"):
        md17.read(path, Reading(labels=Labels(stress="push")))


def test_formats_without_a_cell_refuse_names_of_stresses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="frames of this format have no cell"):
        hdf5.read_ani1x(tmp_path / "ani.h5", Reading(labels=Labels(stress="stress")))


VASPRUN = """<modeling>
<generator><i name="program" type="string">vasp </i></generator>
<kpoints><varray name="kpointlist"></varray><varray name="weights"></varray></kpoints>
<atominfo><atoms>4 </atoms><types>1 </types>
<array name="atoms"><set>{kinds}</set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis">{cell}</varray></crystal>
<varray name="positions">{places}</varray></structure>
<calculation>
<scstep><energy><i name="e_fr_energy">1.0</i><i name="e_0_energy">1.0</i></energy></scstep>
<structure><crystal><varray name="basis">{cell}</varray></crystal>
<varray name="positions">{places}</varray></structure>
<varray name="forces">{forces}</varray><varray name="stress">{stress}</varray>
<energy><i name="e_fr_energy">1.0</i><i name="e_wo_entrp">1.0</i>
<i name="e_0_energy">1.0</i></energy>
</calculation></modeling>
"""


def test_vasp_prints_kilobars_that_are_positive_under_pressure(tmp_path: Path) -> None:
    atoms, path = copper(), tmp_path / "vasprun.xml"

    def lines(rows: np.ndarray) -> str:
        return "".join(f"<v>{' '.join(f'{value:.10f}' for value in row)}</v>" for row in rows)

    text = VASPRUN.format(
        kinds="<rc><c>Cu</c><c>1</c></rc>" * len(atoms),
        cell=lines(atoms.cell.array),
        places=lines(atoms.get_scaled_positions()),
        forces=lines(atoms.get_forces()),
        stress=lines(-STRESSES[0] / (0.1 * GPA)),
    )
    path.write_text(f'<?xml version="1.0"?>\n{text}')
    np.testing.assert_allclose(stress_of(ase_file.read(path)), STRESSES[:1], atol=1e-8)


PWSCF = """
     Program PWSCF v.7.2 starts on 29Nov2026 at 12: 0: 0

     number of atoms/cell      =            4
     number of atomic types    =            1
     celldm(1)=   1.88972612  celldm(2)=   0.000000  celldm(3)=   0.000000
     crystal axes: (cart. coord. in units of alat)
{cell}
     site n.     atom                  positions (alat units)
{places}
!    total energy              =    -100.00000000 Ry
          total   stress  (Ry/bohr**3)                   (kbar)     P=        0.00
{stress}
"""


def test_quantum_espresso_prints_the_opposite_sign(tmp_path: Path) -> None:
    atoms, path = copper(), tmp_path / "cu.pwo"
    length = 1.88972612 * BOHR

    def lines(rows: np.ndarray, head: str = "") -> str:
        return "\n".join(f"{head}{' '.join(f'{value:.10f}' for value in row)}" for row in rows)

    axes = [
        f"               a({number}) = ( {lines([row])} )"
        for number, row in enumerate(atoms.cell.array / length, 1)
    ]
    places = [
        f"         {number}           Cu  tau(   {number}) = (  {lines([row])}  )"
        for number, row in enumerate(atoms.positions / length, 1)
    ]
    stress = lines(-STRESSES[0] / (HARTREE / BOHR**3 / 2))
    text = PWSCF.format(cell="\n".join(axes), places="\n".join(places), stress=stress)
    path.write_text(text)
    read = ase_file.read(path)
    np.testing.assert_allclose(read.positions, atoms.positions, atol=1e-6)
    np.testing.assert_allclose(stress_of(read), STRESSES[:1], atol=1e-7)
