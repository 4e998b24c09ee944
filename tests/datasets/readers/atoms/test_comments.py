"""Comments of xyz files: nothing that a program writes there is lost in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
