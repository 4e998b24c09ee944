"""Comments of xyz files: nothing that a program writes there is lost in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.readers.ase_file import read

HARTREE = 27.211386245988
"""eV, CODATA 2018."""
CELL = "9 0 0 0 8 0 0 0 7"
ATOMS = "O 1.0 1.0 1.0\nH 1.0 1.0 2.0\n"


def written(path: Path, comment: str) -> Path:
    path.write_text(f"2\n{comment}\n{ATOMS}" * 2)
    return path


@pytest.mark.parametrize(
    ("flags", "pbc"),
    [
        ('pbc="T T F"', [True, True, False]),
        ("pbc=T T F", [True, True, False]),
        ("pbc=TTF", [True, True, False]),
        ('pbc="TTF"', [True, True, False]),
        ('PBC="1 1 0"', [True, True, False]),
        ("pbc=True True False", [True, True, False]),
        ("pbc=[F, F, T]", [False, False, True]),
        ('pbc="F F F"', [False, False, False]),
        ("", [True, True, True]),
    ],
)
def test_flags_of_periodicity_are_read_in_any_form(
    flags: str, pbc: list[bool], tmp_path: Path
) -> None:
    path = written(tmp_path / "water.extxyz", f'Lattice="{CELL}" energy=-5.0 {flags}')
    frames = read(path)
    assert frames.pbc.tolist() == [pbc, pbc]
    assert frames.energies.tolist() == [-5.0, -5.0]


@pytest.mark.parametrize(
    "cell",
    [
        f'lattice="{CELL}"',
        f'LATTICE="{CELL}"',
        f'cell="{CELL}"',
        f"cell={{{CELL}}}",
        "cell=[[9, 0, 0], [0, 8, 0], [0, 0, 7]]",
        f"box='{CELL}'",
    ],
)
def test_a_cell_of_another_name_is_the_cell(cell: str, tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water.extxyz", f"{cell} energy=-5.0"))
    np.testing.assert_allclose(frames.cells[1], np.diag([9, 8, 7]))
    assert frames.pbc.all()
    assert frames.energies.tolist() == [-5.0, -5.0]


def test_a_cell_of_edges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must have its cell as `Lattice="):
        read(written(tmp_path / "water.extxyz", 'cell="9 8 7" energy=-5.0'))


@pytest.mark.parametrize(
    "comment",
    [
        " i =        5, time =        2.500, E =       -17.5",
        " i = 5, E = -17.5",
        "Coordinates from ORCA-job water E -17.5",
        " energy: -17.5 gnorm: 0.000402 xtb: 6.4.1 (unknown)",
        "SCF energy: -17.5 xtb",
    ],
)
def test_energies_of_programs_are_in_hartree(comment: str, tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water.xyz", comment))
    np.testing.assert_allclose(frames.energies, -17.5 * HARTREE, rtol=1e-9)


@pytest.mark.parametrize("comment", ["-76.323", "step 3 of 5, total -76.323 Ha"])
def test_a_comment_that_no_rule_reads_is_told(comment: str, tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water.xyz", comment))
    assert frames.labels == ()
    assert f"comments such as {comment!r} are not read" in frames.origin["labels"][0]


def test_an_energy_behind_a_colon_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "water.xyz", f'Lattice="{CELL}" energy: -5.0')
    with pytest.raises(UserError, match="as `energy=NUMBER`, but got 'energy: -5'"):
        read(path)


@pytest.mark.parametrize("flags", ['"p p f"', "xy", '"T T"', "None"])
def test_other_flags_of_periodicity_are_refused(flags: str, tmp_path: Path) -> None:
    path = written(tmp_path / "water.extxyz", f'Lattice="{CELL}" energy=-5.0 pbc={flags}')
    with pytest.raises(UserError, match=r"frame 0 .*`pbc` as three of T and F"):
        read(path)


@pytest.mark.parametrize(
    "cell",
    [
        "energy=-5.0 cell=9.0 8.0 7.0",
        "energy=-5.0 box=9.0",
        'energy=-5.0 cellpar="9 8 7 90 90 90"',
        f'energy=-5.0 lattice_vectors="{CELL}"',
        "Cell: 9.0 0 0 0 8 0 0 0 7 energy=-5.0",
        "# CELL(abcABC): 9.0 8.0 7.0 90.0 90.0 90.0 Step: 1 Bead: 0 positions{angstrom}",
        'energy=-5.0 Lattice="9 8 7"',
        "energy=-5.0 box=9 Angstrom",
        "energy=-5.0 box=9nm",
        'energy=-5.0 cell="9 8 7"',
    ],
)
def test_a_cell_that_is_not_read_is_refused(cell: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"frame 0 .*must have its cell as `Lattice=.*but got"):
        read(written(tmp_path / "water.extxyz", cell))


@pytest.mark.parametrize(
    "words",
    [
        "supercell=2",
        "cell_id=5",
        "lattice_type=fcc",
        "box wet 1.5",
        'cell="None"',
        'comment="unit cell 1 1 1 of ice, box=9.0, energy: -1.0"',
        'comment="pbc=none, stress = big, lattice = fcc"',
        "box=xy nmr=5",
        "energy=-5",
    ],
)
def test_other_words_are_no_cell(words: str, tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water.extxyz", f"{words} energy=-5.0"))
    assert not frames.pbc.any()
    assert frames.energies.tolist() == [-5.0, -5.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("box=3", "`box` with a whole number"),
        ("box=3 nmr=5", "`box` with a whole number"),
        ('cell="5"', "`cell` with a whole number"),
        ("unit_cell=1", "`unit_cell` with a whole number"),
        ("size=2 nm", "`nm` behind `size` is taken for its unit"),
    ],
)
def test_an_index_and_a_size_are_told_and_change_nothing(
    words: str, told: str, tmp_path: Path
) -> None:
    frames = read(written(tmp_path / "water.extxyz", f"{words} energy=-5.0"))
    assert not frames.pbc.any()
    assert frames.energies.tolist() == [-5.0, -5.0]
    assert frames.positions[:2].tolist() == [[1, 1, 1], [1, 1, 2]]
    (remark,) = frames.origin["labels"]
    assert remark.startswith(told)


@pytest.mark.parametrize(
    "comment",
    [
        f'i = 5, time = 2.5, E = -17.5, Lattice="{CELL}" pbc="T T F"',
        f'Lattice="{CELL}" Properties=species:S:1:pos:R:3 pbc="T T F" Step=5 Time=2.5 Energy=-17.5',
    ],
)
def test_cp2k_tells_energies_in_hartree_beside_a_cell(comment: str, tmp_path: Path) -> None:
    frames = read(written(tmp_path / "water-pos-1.extxyz", comment))
    np.testing.assert_allclose(frames.energies, -17.5 * HARTREE, rtol=1e-9)
    np.testing.assert_allclose(frames.cells[1], np.diag([9, 8, 7]))
    assert frames.pbc.tolist() == [[True, True, False]] * 2


@pytest.mark.parametrize(
    ("energies", "rule"),
    [
        ("energy=-5.0 energy=-6.0", "must have `energy` once, but got -5.0 and -6.0"),
        ("potential energy = -5.0 kinetic energy = 0.5", "got `kinetic energy`"),
        ("binding energy=-5.0", "write `binding_energy`"),
    ],
)
def test_one_number_is_the_energy(energies: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rule):
        read(written(tmp_path / "water.extxyz", energies))


@pytest.mark.parametrize("name", ["stress", "virial"])
def test_six_numbers_are_a_stress_and_three_or_odd_ones_none(name: str, tmp_path: Path) -> None:
    factor = 1 if name == "stress" else -1 / (9 * 8 * 7)

    def read_with(numbers: str) -> NDArray[np.float64] | None:
        comment = f'Lattice="{CELL}" energy=-5.0 {name}="{numbers}"'
        return read(written(tmp_path / "water.extxyz", comment)).stresses

    expected = factor * np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]])
    for numbers in ("1 2 3 4 5 6", "1 6 5 6 2 4 5 4 3"):
        np.testing.assert_allclose(read_with(numbers), [expected] * 2)
    for odd in ("1 2 3", "1 6 5 0 2 4 0 0 3"):
        with pytest.raises(UserError, match=rf"frame 0 .*`{name}`"):
            read_with(odd)
