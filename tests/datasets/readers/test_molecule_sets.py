"""Published formats beyond the contract: lists of bad molecules, charges, archives, refusals."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from study.core.errors import UserError
from study.core.quantities.units import KCAL_PER_MOL
from study.datasets.config import SDFile
from study.datasets.diagnostics import warnings
from study.datasets.frames import Frames
from study.datasets.inspection import summary
from study.datasets.prepare import prepare
from study.datasets.readers import ase_file, hdf5, iso17, md17, molecule_sets, oc20
from study.datasets.readers import qm9 as readers_qm9
from study.datasets.readers.detect import settings_of
from study.datasets.splits import sizes_of, units_of

# The first molecule of QM9, methane, as in the file `dsgdb9nsd_000001.xyz`.
METHANE = """\
5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 9.06397294*^-1\t 0.133923
1341.307\t1341.3284\t1341.365
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501


def head(bad: list[int]) -> str:
    """QM9's list of molecules that failed: nine lines, the list, a line."""
    rows = [f"  {number}  dsgdb9nsd  O=C" for number in bad]
    return "\n".join([*("#" for _ in range(9)), *rows, f"{len(bad)} molecules"]) + "\n"


@pytest.fixture
def qm9(tmp_path: Path) -> Path:
    folder = tmp_path / "qm9"
    folder.mkdir()
    for number in (1, 2, 10):
        text = METHANE.replace("gdb 1\t", f"gdb {number}\t")
        (folder / f"dsgdb9nsd_{number:06d}.xyz").write_text(text)
    return folder


def test_methane_of_qm9_has_its_twelve_targets_in_their_units(qm9: Path) -> None:
    frames = readers_qm9.read_qm9(qm9)
    found = {name: values[0] for name, values in frames.properties.items()}
    # By hand: one Hartree is 27.2114 eV; the other units stay.
    assert found == pytest.approx(
        {
            "mu": 0,
            "alpha": 13.21,
            "homo": -10.5498,
            "lumo": 3.1864,
            "gap": 13.7363,
            "r2": 35.3641,
            "zpve": 1.21768,
            "u0": -1101.4877,
            "u298": -1101.4098,
            "h298": -1101.3841,
            "g298": -1102.0230,
            "cv": 6.469,
        },
        rel=1e-4,
    )
    assert frames.numbers[:5].tolist() == [6, 1, 1, 1, 1]
    assert frames.positions[4].tolist() == [-0.5238136345, 1.4379326443, 0.906397294]
    assert np.isnan(frames.forces).all()
    assert np.isnan(frames.energies).all()


def test_molecules_on_the_list_of_qm9_are_left_out_wherever_the_files_lie(qm9: Path) -> None:
    assert len(readers_qm9.read_qm9(qm9)) == 3
    (qm9 / "uncharacterized.txt").write_text(head([2]))
    assert len(readers_qm9.read_qm9(qm9)) == 2
    archive = qm9 / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(archive, "w:bz2") as opened:
        for file in sorted(qm9.glob("*.xyz"), reverse=True):
            opened.add(file, file.name)
    assert settings_of(archive)["name"] == "qm9_xyz"
    packed = readers_qm9.read_qm9(archive)
    assert packed.content_hash() == readers_qm9.read_qm9(qm9).content_hash()


SDF = """\
gdb_1
     RDKit          3D

  2  1  0  0  0  0  0  0  0  0999 V2000
   -0.0127    1.0858    0.0080 C   0  0  0  0  0  0  0  0  0  0  0  0
 -100.5000-1000.2500   12.1250 Cl  0  0
  1  2  1  0
M  END
$$$$
"""


def test_an_sdf_is_read_by_columns_from_an_archive_with_the_gap_in_ev(tmp_path: Path) -> None:
    archive = tmp_path / "pcqm4m-v2-train.sdf.tar.gz"
    content = (2 * SDF).encode()
    with tarfile.open(archive, "w:gz") as opened:
        member = tarfile.TarInfo("pcqm4m-v2-train.sdf")
        member.size = len(content)
        opened.addfile(member, io.BytesIO(content))
    # Molecules without a structure come after the others.
    rows = "idx,smiles,homolumogap\n0,CCl,3.0476\n1,CCl,4.5\n2,O,\n"
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(rows.encode()))
    assert settings_of(archive)["name"] == "sdf_file"
    frames = molecule_sets.read_sdf(archive)
    assert frames.numbers.tolist() == [6, 17] * 2
    # Columns of ten may touch each other.
    assert frames.positions[1].tolist() == [-100.5, -1000.25, 12.125]
    assert frames.properties["gap"].tolist() == [3.0476, 4.5]
    assert frames.labels == ("gap",)
    assert frames.origin["labels"] == ["hydrogens look left out: they are 0.0% of the atoms"]
    (tmp_path / "data.csv.gz").unlink()
    assert molecule_sets.read_sdf(archive).labels == ()
    (tmp_path / "whole.sdf").write_text(SDF.replace(" Cl ", " H  "))
    assert molecule_sets.read_sdf(tmp_path / "whole.sdf").origin["labels"] == []


def test_dimers_of_a_system_are_a_group_and_keep_their_charge(tmp_path: Path) -> None:
    path = tmp_path / "DES15K.csv"
    path.write_text(
        "system_id,charge0,charge1,elements,xyz,nn_CCSD(T)_all\n"
        "7,0,1,H Na,0 0 0 0 0 2.5,-1.0\n3,-1,0,F H,0 0 0 0 0 1.5,-20\n7,0,1,H Na,0 0 0 0 0 3,-0.5\n"
    )
    frames = molecule_sets.read_dimers(path)
    assert frames.groups[0] == frames.groups[2] != frames.groups[1]
    assert frames.properties["charge"].tolist() == [1, -1, 1]
    energies = np.array([-1, -20, -0.5]) * KCAL_PER_MOL
    np.testing.assert_allclose(frames.properties["interaction_energy"], energies)


def test_iso17_keeps_its_split_and_names_a_wrong_id(tmp_path: Path) -> None:
    for name, count in (("reference", 4), ("test_other", 2)):
        with ase.db.connect(tmp_path / f"{name}.db") as database:
            for number in range(count):
                atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + number / 100]])
                pairs = {"total_energy": -100.0 - number}
                database.write(
                    atoms, key_value_pairs=pairs, data={"atomic_forces": np.ones((2, 3))}
                )
    (tmp_path / "validation_ids.txt").write_text("4\n1\n")
    frames = iso17.read_other(tmp_path)
    assert frames.properties["part"].tolist() == [1, 0, 0, 1, 2, 2]
    assert frames.energies.tolist() == [-100, -101, -102, -103, -100, -101]
    assert sizes_of(frames).published == (2, 2, 2)
    alone = ase_file.read(tmp_path / "reference.db")
    assert alone.labels == ("energy", "forces")
    (tmp_path / "validation_ids.txt").write_text("0\n")
    with pytest.raises(UserError, match="must hold ids from 1 to 4"):
        iso17.read_other(tmp_path)
    with pytest.raises(UserError, match=r"test_within\.db: no such file"):
        iso17.read_within(tmp_path)


def test_frames_of_one_sum_formula_are_dealt_out_together(tmp_path: Path) -> None:
    isomers = [Atoms("HCN"), Atoms("CNH"), Atoms("CO"), Atoms("NCH"), Atoms("H2")]
    for number, atoms in enumerate(isomers):
        atoms.positions[:, 0] = np.arange(len(atoms)) + number / 10
    frames = ase_file.joined(isomers, tmp_path)
    first, second, third, fourth, fifth = units_of(frames, "composition").tolist()
    assert first == second == fourth
    assert len({first, third, fifth}) == 3
    assert sizes_of(frames).compositions == ((1, 2), (3, 1))


def test_an_md22_xyz_is_in_kcal_per_mol(tmp_path: Path) -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    atoms.info["Energy"] = -1000.0
    atoms.new_array("forces", np.array([[0, 0, 23.0], [0, 0, -23.0]]))
    path = tmp_path / "md22_hydroxyl.xyz"
    with path.open("w") as file:
        write_extxyz(file, [atoms, atoms], columns=["symbols", "positions", "forces"])
    assert settings_of(path)["name"] == settings_of(tmp_path)["name"] == "md17_npz"
    frames = md17.read(path)
    # A kcal/mol is 0.0433641 eV.
    np.testing.assert_allclose(frames.energies, -43.3641, rtol=1e-5)
    np.testing.assert_allclose(frames.forces[0], [0, 0, 0.997374], rtol=1e-5)


def test_the_charge_of_a_spice_molecule_is_that_of_its_smiles(tmp_path: Path) -> None:
    smiles = {
        "glycine": ("[H:1][N+:2]([H:3])[O-:4]", 0),
        "calcium": ("[Ca+2:1]", 2),
        "sulfate": ("[O-:1][S:2]([O-:3])=[O:4]", -2),
        "silane": ("[SiH3-:1]", -1),
    }
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        for name, (text, _) in smiles.items():
            group = file.create_group(name)
            group["smiles"] = [text]
            group["atomic_numbers"] = np.array([8])
            group["conformations"] = np.zeros((1, 1, 3))
            group["dft_total_energy"] = np.zeros(1)
            group["dft_total_gradient"] = np.zeros((1, 1, 3))
    frames = hdf5.read_spice(tmp_path / "spice.hdf5")
    assert frames.properties["charge"].tolist() == [smiles[name][1] for name in sorted(smiles)]


def short_qm9(folder: Path) -> Path:
    (folder / "dsgdb9nsd_000001.xyz").write_text(METHANE.replace("6.469", ""))
    return folder


def strange_element(folder: Path) -> Path:
    (folder / "dsgdb9nsd_000001.xyz").write_text(METHANE.replace("C\t-", "Q\t-"))
    return folder


def torn_archive(folder: Path) -> Path:
    path = folder / "dsgdb9nsd.xyz.tar.bz2"
    path.write_bytes(b"BZh91AY no archive")
    return path


def short_table(folder: Path) -> Path:
    (folder / "a.sdf").write_text(SDF + SDF)
    (folder / "a.csv").write_text("homolumogap\n3.0\n")
    return folder / "a.sdf"


def other_table(folder: Path) -> Path:
    (folder / "a.sdf").write_text(SDF)
    (folder / "a.csv").write_text("colour\nred\n")
    return folder / "a.sdf"


def test_a_table_with_other_columns_is_told(tmp_path: Path) -> None:
    frames = molecule_sets.read_sdf(other_table(tmp_path))
    assert frames.labels == ()
    assert any("neither QM9's nor PCQM4Mv2's, but colour" in x for x in frames.origin["labels"])


def torn_sdf(folder: Path) -> Path:
    (folder / "a.sdf").write_text(SDF.replace("  2  1  0", "  3  1  0"))
    return folder / "a.sdf"


def other_csv(folder: Path) -> Path:
    (folder / "a.csv").write_text("elements,xyz\n")
    return folder / "a.csv"


def torn_csv(folder: Path) -> Path:
    names = "system_id,charge0,charge1,elements,xyz,cbs_CCSD(T)_all"
    (folder / "a.csv").write_text(f"{names}\n1,0,0,H H,0 0 zero 0 0 1,-1\n")
    return folder / "a.csv"


def test_pcqm4mv2_takes_the_gap_of_a_molecules_number(tmp_path: Path) -> None:
    folder = tmp_path / "pcqm4m-v2_xyz"
    for number, symbols in {10: "CH", 2: "OH"}.items():
        file = folder / "0000001_0010000" / f"{number}.xyz"
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{symbol} {number}.0 0.5 {place}.0" for place, symbol in enumerate(symbols)]
        file.write_text("\n".join(["2", "0", *rows]) + "\n")
    assert molecule_sets.read_pcqm4mv2(folder).labels == ()
    rows = "".join(f"{number},X,{number}.25\n" for number in range(12))
    raw = tmp_path / "pcqm4m-v2" / "raw"
    raw.mkdir(parents=True)
    (raw / "data.csv.gz").write_bytes(gzip.compress(f"idx,smiles,homolumogap\n{rows}".encode()))
    assert settings_of(folder)["name"] == "pcqm4mv2_xyz"
    assert settings_of(folder / "0000001_0010000")["name"] == "ase_file"
    frames = molecule_sets.read_pcqm4mv2(folder)
    assert frames.numbers.tolist() == [8, 1, 6, 1]
    assert frames.positions[1].tolist() == [2.0, 0.5, 1.0]
    assert frames.properties["gap"].tolist() == [2.25, 10.25]
    assert molecule_sets.table_beside(folder) == [raw / "data.csv.gz"]
    (tmp_path / "data.csv").write_text("idx,smiles,homolumogap\n0,O,1.0\n")
    with pytest.raises(UserError, match=r"2\.xyz: must have a row of .*data\.csv, counted from 0"):
        molecule_sets.read_pcqm4mv2(folder)


@pytest.mark.parametrize(
    ("write", "read", "rule"),
    [
        (short_qm9, readers_qm9.read_qm9, r"dsgdb9nsd_000001\.xyz: cannot be read"),
        (strange_element, readers_qm9.read_qm9, r"molecule 0 \(from 0\): cannot be read .*'Q'"),
        (torn_archive, readers_qm9.read_qm9, r"tar\.bz2: cannot be read"),
        (short_table, molecule_sets.read_sdf, "must have a row of its table for each molecule"),
        (torn_sdf, molecule_sets.read_sdf, r"molecule 0 \(from 0\)"),
        (other_csv, molecule_sets.read_dimers, "must have the columns charge0, charge1"),
        (torn_csv, molecule_sets.read_dimers, r"a\.csv:2: cannot be read .*zero"),
    ],
)
def test_what_cannot_be_read_is_named_in_a_line(
    write: Callable[[Path], Path], read: Callable[[Path], object], rule: str, qm9: Path
) -> None:
    with pytest.raises(UserError, match=rule) as refused:
        read(write(qm9))
    assert "\n" not in str(refused.value)


OC20 = (
    '3\nLattice="9.0 0.0 0.0 0.0 8.0 -4.0 0.0 0.0 29.0" '
    "Properties=species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3 "
    'energy=-181.54722937 free_energy=-181.54878652 pbc="T T T"\n'
    "Cu      0.25000000      0.50000000      9.00000000  F 0      0.01000000 -0.02000000 0.03\n"
    "Cu      1.25000000      1.50000000     11.00000000  T 1      0.00000000  0.50000000 0.00\n"
    "H       1.25000000      1.50000000     12.50000000  T 2     -0.00000000  0.00000000 0.25\n"
)


def test_oc20_gives_adsorption_energies_and_the_forces_of_fixed_atoms_too(tmp_path: Path) -> None:
    (tmp_path / "0.extxyz.xz").write_bytes(lzma.compress((2 * OC20).encode()))
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(b"random7,frame0,-180.5\nrandom3,frame9,1\n"))
    assert settings_of(tmp_path)["name"] == "oc20_folder"
    frames = oc20.read(tmp_path)
    assert frames.numbers.tolist() == [29, 29, 1] * 2
    np.testing.assert_allclose(frames.energies, [-1.04722937, -182.54722937], atol=1e-9)
    assert frames.forces[0].tolist() == [0.01, -0.02, 0.03]
    assert frames.cells[0, 1].tolist() == [0, 8, -4]
    assert frames.groups.tolist() == [0, 1]


def test_inspect_warns_of_an_element_that_may_be_tested_unlearned(tmp_path: Path) -> None:
    made = [molecule(name) for name in ("CH3CH2OH", "CH3COF", "CH3COF", "H2CO")]
    for atoms, group in zip(made, "abbc", strict=True):
        atoms.info["group"] = group
    found = warnings(ase_file.joined(made, tmp_path))
    assert [line.partition(":")[0] for line in found if "alone" in line] == [
        "F is in one group alone"
    ]
    made[0] = molecule("CF4")
    made[0].info["group"] = "a"
    assert not any("alone" in line for line in warnings(ase_file.joined(made, tmp_path)))


def test_pairs_of_oc20_must_belong_together(tmp_path: Path) -> None:
    atoms = Atoms("Cu", cell=5 * np.eye(3), pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((1, 3)))
    ase.io.write(tmp_path / "0.extxyz", [atoms, atoms])
    with pytest.raises(UserError, match=r"must have a \.txt"):
        oc20.read(tmp_path)
    (tmp_path / "0.txt").write_text("random1,frame0,-3.0\n")
    with pytest.raises(UserError, match=r"0\.txt: must have a line for each of 2 frames"):
        oc20.read(tmp_path)
    (tmp_path / "0.txt").write_text("random1,frame0,-3.0\nrandom1,frame1\n")
    with pytest.raises(UserError, match=r"0\.txt:2: must be `system,frame,reference energy`"):
        oc20.read(tmp_path)
    (tmp_path / "0.txt").unlink()
    (tmp_path / "0.txt.xz").write_bytes(lzma.compress(b"no,text")[:-8])
    with pytest.raises(UserError, match=r"0\.txt\.xz: cannot be read"):
        oc20.read(tmp_path)


@pytest.mark.parametrize("named", ["data.0000.lmdb", "."])
def test_lmdb_of_oc20_is_refused_with_a_way_out(tmp_path: Path, named: str) -> None:
    file = tmp_path / "data.0000.lmdb"
    file.write_bytes(b"any")
    for read in (oc20.read, settings_of):
        with pytest.raises(UserError) as refused:
            read(tmp_path / named)
        (problem,) = refused.value.problems
        assert problem.startswith(f"{file}: LMDB files are not read")
        assert "fetch oc20_200k" in problem
        assert "ase.io.write" in problem


def test_inspect_tells_of_molecules_their_properties_and_what_no_model_sees(qm9: Path) -> None:
    frames = readers_qm9.read_qm9(qm9)
    rows = summary(frames)
    assert rows["in vacuum"] == "3 frames"
    assert not {"box edges", "density", "energy", "largest force"} & rows.keys()
    assert rows["homo"].startswith("-10.55 eV, mean")
    assert "cal/mol/K" in rows["cv"]
    assert not any("Hartree" in line for line in warnings(frames))
    strange = {"charge": np.array([0.0, 1.0, -1.0]), "gap": frames.properties["gap"] / 27.2}
    found = warnings(replace(frames, properties=strange))
    assert any("2 frames have a total charge other than 0" in line for line in found)
    assert any("half of `gap` is below 1.0 eV" in line for line in found)


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(1.0, ""), (1 / 27.2114, "Hartree"), (23.0605, "kcal/mol"), (96.4853, "kJ/mol")],
)
def test_inspect_knows_the_unit_of_total_energies_without_forces(
    factor: float, unit: str, tmp_path: Path
) -> None:
    # Total energies of atoms (Hartree, from any textbook on DFT) and bonds of some eV.
    atoms = {"H": -0.5, "C": -37.8, "O": -75.1}
    made = []
    for number, formula in enumerate(["CH4", "H2O", "CO", "CO2", "C2H6", "CH3OH"]):
        molecule = Atoms(formula)
        molecule.positions[:, 0] = 1.1 * np.arange(len(molecule))
        total = sum(27.2114 * atoms[symbol] for symbol in molecule.get_chemical_symbols())
        energy = factor * (total - 4.0 * len(molecule) + number)
        molecule.calc = SinglePointCalculator(molecule, energy=energy)
        made.append(molecule)
    frames = ase_file.joined(made, tmp_path)
    elements = summary(frames)["energy of elements"]
    assert elements.startswith("H ")
    found = [line for line in warnings(frames) if "looks like" in line]
    assert found == ([f"`energy` looks like a total energy in {unit}, not in eV"] if unit else [])


def test_inspect_compares_forces_and_energies_of_molecules_too(tmp_path: Path) -> None:
    made = []
    for number in range(12):
        length = 1.0 + 0.01 * number
        molecule = Atoms("OH", [[0, 0, 0], [0, 0, length]])
        # A spring of 40 eV/Å², with energies in kcal/mol.
        pull = 40 * (length - 1.2)
        forces = [[0, 0, pull], [0, 0, -pull]]
        energy = 23.06 * 20 * (length - 1.2) ** 2
        molecule.calc = SinglePointCalculator(molecule, energy=energy, forces=forces)
        made.append(molecule)
    found = warnings(ase_file.joined(made, tmp_path))
    assert any("energies are in kcal/mol and forces in eV/Å" in line for line in found)


def test_another_table_beside_it_makes_another_set(tmp_path: Path) -> None:
    file = tmp_path / "a.sdf"
    file.write_text(SDF)
    folders = []
    for gap in ("3.0", "4.0"):
        (tmp_path / "a.csv").write_text(f"homolumogap\n{gap}\n")
        dataset = SDFile(name="sdf_file", path=str(file))
        folders.append(prepare(dataset, tmp_path, 1, lambda _done, _total: None))
    assert [Frames.load(folder).properties["gap"].tolist() for folder in folders] == [[3.0], [4.0]]


@pytest.mark.parametrize("name", ["mol.sdf.bz2", "mol.SDF", "mol.sd", "mol.mol"])
def test_an_sdf_of_any_name_is_read_to_its_end(name: str, tmp_path: Path) -> None:
    content = (3 * SDF).encode()
    (tmp_path / name).write_bytes(bz2.compress(content) if ".bz2" in name else content)
    assert settings_of(tmp_path / name)["name"] == "sdf_file"
    assert len(molecule_sets.read_sdf(tmp_path / name)) == 3


def test_rows_without_a_molecule_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(SDF)
    (tmp_path / "a.csv").write_text("homolumogap\n3.0\n4.5\n\n")
    labels = molecule_sets.read_sdf(tmp_path / "a.sdf").origin["labels"]
    assert "1 rows of a.csv have no molecule" in labels
