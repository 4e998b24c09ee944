"""What is read without ASE is what ASE reads, or is left to it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets.readers.atoms.extxyz import read_frame
from study.datasets.readers.atoms.labelled import Labelled, labelled
from study.datasets.readers.atoms.plain_xyz import PlainReader
from study.datasets.reading import PLAIN, Labels, Reading, Units

ROWS = ["H 0 0.5 -1.25e-1 1 2 3\n", "O 1.0 .5 2. 4 5 6.125\n"]
FORCES = "Properties=species:S:1:pos:R:3:forces:R:3"
PAIRS = [
    ("energy=-1.5 group=a", "energy=2e3 group=b-7"),
    ("energy=-1.5 group=1", "energy=3 group=05"),
    ("energy=1 group=1", "energy=1 group=1.0"),
    ("energy=1 group=a", "energy=1 group=T"),
    ("energy=1 group=a", "energy=1 group=NaN"),
    ("energy=1 Group=a group=b", "energy=1 Group=c group=d"),
    ("energy=1", "energy=nan"),
    ("energy=1", "energy=1e999"),
    ("energy=1", "energy=1_0"),
    ("energy=1", "energy=1d0"),
    ('energy="1"', 'energy="2"'),
    ("energy=1 energy=2", "energy=3 energy=4"),
    ("energy=1 REF_energy=1", "energy=1 REF_energy=2"),
    ("energy=1 free_energy=1", "energy=2 free_energy=5"),
    ("free_energy=1 step=3", "free_energy=2 step=4.5"),
    ("my_number=1", "my_number=2"),
    ("energy=1 energy-unit=eV", "energy=1 energy-unit=Hartree"),
    ("energy=1 units=eV", "energy=1 units=nothing"),
    ("energy=1 charge=1", "energy=1 charge=2"),
    ("energy=1 config_type=bulk T=300", "energy=2 config_type=bulk T=301.5"),
    ("energy=1 config_type=bulk", "energy=2 config_type=slab"),
    ('energy=1 Lattice="9 0 0 0 9 0 0 0 9"', 'energy=1 Lattice="9.5 1 2 3 9 4 5 6 9"'),
    ('Lattice="9 0 0 0 9 0 0 0 9" pbc="T T F"', 'Lattice="9 0 0 0 9 0 0 0 8.5" pbc="T T F"'),
    ('energy=1 pbc="F F F"', 'energy=1 pbc="T F F" Lattice="9 0 0 0 9 0 0 0 9"'),
    ('Lattice="9 0 0 0 9 0 0 0 9"', 'Lattice="9 0 0 0 9 0 0 0"'),
    ('energy=1 stress="1 0 0 0 1 0 0 0 1"', 'energy=1 stress="2 0 0 0 1 0 0 0 1"'),
    ('energy=1 dipole="1 2 3"', 'energy=1 dipole="1 2 4"'),
    ("energy=1 forces=3", "energy=2 forces=4"),
    ("energy=1 name='a b'", "energy=2 name='a c'"),
    ("", ""),
]


def compare(ours: Labelled, theirs: Labelled) -> None:
    for field in fields(Labelled):
        mine, other = (getattr(each, field.name) for each in (ours, theirs))
        if isinstance(other, np.ndarray):
            assert mine.dtype == other.dtype
            assert mine.shape == other.shape
            assert mine.tobytes() == np.ascontiguousarray(other).tobytes(), field.name
        else:
            assert mine == other or (mine != mine and other != other), field.name


def outcome(read: Any) -> Labelled | str:
    try:
        found: Labelled = read()
    except (UserError, ValueError) as problem:
        return str(problem)
    return found


def both(given: Reading, comments: tuple[str, str], rows: list[str]) -> PlainReader:
    """Read two frames by both ways; the second one after the first, which has plain atoms."""
    reader = PlainReader(given)
    for comment, lines in ((comments[0], ROWS), (comments[1], rows)):
        ours = outcome(lambda c=comment, r=lines: reader.frame(c, r))
        theirs = outcome(lambda c=comment, r=lines: labelled(read_frame(c, r), given))
        if isinstance(theirs, str) or isinstance(ours, str):
            assert ours == theirs
        else:
            compare(ours, theirs)
    return reader


@pytest.mark.parametrize("pair", PAIRS)
def test_the_second_of_two_comments_is_read_as_by_ase(pair: tuple[str, str]) -> None:
    for given in (PLAIN, Reading(units=Units(energy="Hartree", length="Bohr"))):
        both(given, (f"{FORCES} {pair[0]}", f"{FORCES} {pair[1]}"), ROWS)


@pytest.mark.parametrize(
    "rows",
    [
        ["H 0 0 0 1 2 3\n", "Cl 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 3\n", "CL 1 1 1 4 5 6\n"],
        ["D 0 0 0 1 2 3\n", "O 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 3\n", "Xx 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 3 7\n", "O 1 1 1 4 5 6 8\n"],
        ["H 0 0 0 1 2\n", "O 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 3 O\n", "1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 nan\n", "O 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 1_0\n", "O 1 1 1 4 5 6\n"],
        ["H 0 0 ٣ 1 2 3\n", "O 1 1 1 4 5 6\n"],
        ["H 0 0 0 1 2 0x1\n", "O 1 1 1 4 5 6"],
        ["H 0 0 0 1 2 3\n", "O 1 1 1 4 5 6\n", "VEC1 9 0 0\n"],
    ],
)
def test_odd_atoms_are_read_or_refused_as_by_ase(rows: list[str]) -> None:
    both(PLAIN, (f"{FORCES} energy=1", f"{FORCES} energy=2"), rows)


@pytest.mark.parametrize(
    ("names", "given"),
    [
        ("species:S:1:pos:R:3:forces_grad:R:3", PLAIN),
        ("species:S:1:pos:R:3:gradient:R:3", Reading(labels=Labels(forces="gradient"))),
        ("species:S:1:forces:R:3:pos:R:3", PLAIN),
        ("species:S:1:pos:R:3:momenta:R:3", PLAIN),
        ("species:S:1:pos:R:3:fx:R:1:fy:R:1:fz:R:1", PLAIN),
        ("species:S:1:pos:R:3:force:R:3", Reading(labels=Labels(energy="mine"))),
        ("species:S:1:pos:R:3", PLAIN),
        ("species:S:1:pos:R:3:forces:R:2:f:R:1", PLAIN),
    ],
)
def test_columns_are_read_as_by_ase(names: str, given: Reading) -> None:
    width = sum(map(int, names.split(":")[2::3]))
    rows = [" ".join(row.split()[:width]) + "\n" for row in ROWS]
    comments = [f"Properties={names} energy={each} mine={7 * each} E=1" for each in (1, 2)]
    reader = PlainReader(given)
    for comment in comments:
        ours = outcome(lambda c=comment: reader.frame(c, rows))
        theirs = outcome(lambda c=comment: labelled(read_frame(c, rows), given))
        if isinstance(theirs, str) or isinstance(ours, str):
            assert ours == theirs
        else:
            compare(ours, theirs)


def test_ase_is_asked_once_for_frames_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from study.datasets.readers.atoms import plain_xyz

    asked: list[str] = []

    def counted(comment: str, rows: list[str]) -> Any:
        asked.append(comment)
        return read_frame(comment, rows)

    monkeypatch.setattr(plain_xyz, "read_frame", counted)
    reader = PlainReader(PLAIN)
    for number in range(20):
        reader.frame(f'{FORCES} energy={number}.5 group=g{number} step={number} pbc="F F F"', ROWS)
    assert len(asked) == 1
