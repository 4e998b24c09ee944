"""The n2p2 reader: right numbers in eV and Å, groups from comments, errors that name a line."""

from __future__ import annotations

import gzip
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.core.errors import UserError
from study.core.quantities.elements import SYMBOLS
from study.core.quantities.units import BOHR, HARTREE, HARTREE_PER_BOHR
from study.datasets.frames import Frames
from study.datasets.readers.n2p2 import read
from study.datasets.splits import sizes_of
from study.datasets.validation import check

DATA = Path(os.environ.get("STUDY_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
TWO = """\
 begin
comment from somewhere src=b7 labels=made up
lattice 10.0 0.0 0.0
lattice 1.0 11.0 0.0
lattice 0.0 2.0 12.0
atom 1.0 2.0 3.0 O -0.2 0.0 0.01 -0.02 0.03
atom -0.5 2.0 3.0 H 0.1 0.0 -0.01 0.02 -0.03
energy -76.5
charge 0.0
 end

begin
lattice 5 0 0
lattice 0 5 0
lattice 0 0 5
atom 1 1 1 Cl 0 0 0 0 1e-3
charge 0
energy -460.0
end
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "input.data"
    path.write_text(TWO)
    return path


def real_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}; STUDY_TEST_DATA names the folder with {name}")
    return path


def test_the_factors_are_those_of_codata_2018() -> None:
    # a0 = 0.529177210903e-10 m; Eh = 4.3597447222071e-18 J / 1.602176634e-19 J/eV.
    assert pytest.approx(0.529177210903, rel=1e-15) == BOHR
    assert pytest.approx(4.3597447222071e-18 / 1.602176634e-19, rel=1e-12) == HARTREE
    assert pytest.approx(51.42206747632, rel=1e-12) == HARTREE_PER_BOHR


def test_two_structures_have_the_numbers_computed_by_hand(file: Path) -> None:
    frames = read(file)
    assert frames.numbers.tolist() == [8, 1, 17]
    assert frames.offsets.tolist() == [0, 2, 3]
    # 1 Bohr = 0.529177 Å, so 10, 11 and 12 Bohr are 5.29177, 5.82095 and 6.35013 Å.
    expected = [[5.29177, 0, 0], [0.529177, 5.82095, 0], [0, 1.058354, 6.35013]]
    np.testing.assert_allclose(frames.cells[0], expected, atol=1e-5)
    np.testing.assert_allclose(frames.positions[1], [-0.264589, 1.058354, 1.587532], atol=1e-6)
    # 1 Hartree/Bohr = 51.42207 eV/Å; 76.5 Hartree = 2081.67105 eV, 460 Hartree = 12517.23767 eV.
    np.testing.assert_allclose(frames.forces[0], [0.5142207, -1.0284413, 1.542662], atol=1e-6)
    np.testing.assert_allclose(frames.energies, [-2081.67105, -12517.23767], atol=1e-5)
    assert frames.origin["labels"] == ["made up"]


def test_a_zipped_file_reads_like_the_plain_one(file: Path) -> None:
    zipped = file.with_name("other.gz")
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    assert read(zipped).content_hash() == read(file).content_hash()


def test_frames_of_one_source_are_a_group_and_those_without_share_one(tmp_path: Path) -> None:
    frame = TWO[: TWO.index(" end") + 5]
    comments = ["src=3", "src=4 T=300K", "nothing", "kind=ice src=3", "resrc=4"]
    path = tmp_path / "input.data"
    path.write_text("".join(re.sub("comment.*", f"comment {c}", frame) for c in comments))
    first, second, neither, again, other = read(path).groups.tolist()
    assert first == again
    assert neither == other
    assert len({first, second, neither}) == 3


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    numbers = st.floats(-1e4, 1e4).map(lambda value: value + 0.0)
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    kinds = [data.draw(st.integers(1, 118)) for _ in range(sum(sizes))]
    values = np.reshape([data.draw(numbers) for _ in range(6 * sum(sizes))], (-1, 6))
    cells = np.reshape([data.draw(numbers) for _ in range(9 * len(sizes))], (-1, 3, 3))
    energies = [data.draw(numbers) for _ in sizes]
    path = tmp_path_factory.mktemp("written") / "input.data"
    path.write_text(as_text(np.array(kinds), values, cells, energies, np.cumsum([0, *sizes])))
    frames = read(path)
    assert frames.numbers.tolist() == kinds
    assert frames.sizes.tolist() == sizes
    np.testing.assert_array_equal(frames.positions, BOHR * values[:, :3])
    np.testing.assert_array_equal(frames.forces, HARTREE_PER_BOHR * values[:, 3:])
    np.testing.assert_array_equal(frames.cells, BOHR * cells)
    np.testing.assert_array_equal(frames.energies, HARTREE * np.array(energies))


def as_text(
    kinds: np.ndarray,
    values: np.ndarray,
    cells: np.ndarray,
    energies: list[float],
    offsets: np.ndarray,
) -> str:
    """In the units of the file, all digits."""
    lines = []
    for index, energy in enumerate(energies):
        lines += ["begin", "comment"]
        lines += [f"lattice {' '.join(map(repr, row))}" for row in cells[index].tolist()]
        for atom in range(offsets[index], offsets[index + 1]):
            words = [repr(value) for value in values[atom].tolist()]
            symbol = SYMBOLS[kinds[atom] - 1]
            lines.append(f"atom {' '.join(words[:3])} {symbol} 0.1 0.0 {' '.join(words[3:])}")
        lines += [f"energy {energy!r}", "charge 0.0", "end"]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("old", "new", "line", "rule"),
    [
        ("0.03\natom", "\natom", 6, "has 9 columns"),
        ("0.01 -0.02 0.03", "0.01 -0.02 0.03 0.04", 6, "has 11 columns"),
        ("lattice 10.0 0.0 0.0", "lattice 10.0 0.0", 3, "lattice x y z"),
        ("energy -76.5", "energy", 8, "energy E"),
        (" O ", " Ox ", 6, "must name an element in column 5, but got 'Ox'"),
        ("1.0 2.0 3.0 O", "nan 2.0 3.0 O", 6, "finite numbers"),
        ("1.0 2.0 3.0 O", "inf 2.0 3.0 O", 6, "finite numbers"),
        ("1.0 2.0 3.0 O", "1.0 2..0 3.0 O", 6, "finite numbers"),
        ("0.01 -0.02 0.03", "0.01 -0.02 ****", 6, "finite numbers"),
        ("energy -76.5", "energy NaN", 8, "finite numbers"),
        ("lattice 1.0 11.0 0.0\n", "", 9, "three lattice vectors or none, but this one has 2"),
        ("energy -76.5", "energy -76.5\nenergy -1", 11, "one energy, but this one has 2"),
        ("energy -76.5\n", "", 9, "one energy, but this one has 0"),
        (" end\n", "", 11, "begins in line 1 must `end` first"),
        ("\nbegin", "\n", 13, "must be `begin`"),
        ("charge 0.0", "stress 0.0", 9, "must be comment, lattice"),
        ("atom 1 1 1 Cl 0 0 0 0 1e-3", "", 19, "must have an atom"),
        ("atom 1 1 1 Cl 0 0 0 0 1e-3", "atom 1 1 1 Cl 0 0 0 0", 16, "has 9 columns"),
    ],
)
def test_a_malformed_file_is_answered_with_its_line(
    file: Path, old: str, new: str, line: int, rule: str
) -> None:
    assert old in TWO
    file.write_text(TWO.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(rule)) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}:{line}: ")
    assert len(refused.value.problems) == 1
    assert "\n" not in str(refused.value)


def test_a_file_cut_anywhere_in_a_structure_is_refused(file: Path) -> None:
    first_end = TWO.index(" end") + 5
    for length in range(1, first_end - 1, 7):
        file.write_text(TWO[:length])
        with pytest.raises(UserError, match=re.escape(str(file))):
            read(file)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_structures_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(UserError, match="must hold a structure"):
        read(file)


def test_a_torn_archive_is_refused(file: Path) -> None:
    file.write_bytes(gzip.compress(file.read_bytes())[:-20])
    with pytest.raises(UserError, match="cannot be read to its end"):
        read(file)


def independent(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies per atom and force components in atomic units, and atoms per structure."""
    structures = re.split(r"^\s*end\s*$", text, flags=re.MULTILINE)[:-1]
    atoms = [re.findall(r"^atom.*", structure, re.MULTILINE) for structure in structures]
    energies = [float(re.findall(r"^energy\s+(\S+)", s, re.MULTILINE)[0]) for s in structures]
    forces = np.array([line.split()[-3:] for lines in atoms for line in lines], dtype=float)
    counts = np.array(list(map(len, atoms)))
    return np.array(energies) / counts, forces, counts


def test_the_twenty_real_structures_agree_with_an_independent_reading() -> None:
    path = real_file("rpbe_d3_real20.input.data")
    frames = read(path)
    energies, forces, counts = independent(path.read_text())
    np.testing.assert_array_equal(frames.sizes, counts)
    assert np.bincount(counts // 3)[[16, 32, 64]].tolist() == [11, 2, 7]
    per_atom = frames.energies / frames.sizes
    np.testing.assert_allclose(per_atom, energies * 27.211386245988, rtol=1e-14)
    np.testing.assert_allclose(frames.forces, forces * 27.211386245988 / 0.529177210903, rtol=1e-14)
    # The whole set's mean is -25.521 Hartree, -694.4713 eV.
    assert energies.mean() == pytest.approx(-25.521, abs=5e-4)
    assert per_atom.mean() == pytest.approx(-694.4713, abs=0.02)
    check(frames, path)
    assert sizes_of(frames).waters == 16


def test_the_large_file_is_read_in_seconds_with_its_known_totals() -> None:
    path = real_file("rpbe_nnp_input.data.gz")
    began = time.process_time()
    frames = read(path)
    assert time.process_time() - began < 20
    check(frames, path)
    assert (len(frames), len(frames.numbers)) == (7241, 590_004)
    assert frames.sizes.mean() / 3 == pytest.approx(27.2, abs=0.05)
    edges = np.linalg.norm(frames.cells, axis=2)
    assert (edges.min(), edges.max()) == pytest.approx((6.9, 16.4), abs=0.05)
    energies, forces, counts = independent(gzip.decompress(path.read_bytes()).decode())
    np.testing.assert_array_equal(frames.sizes, counts)
    np.testing.assert_allclose(frames.energies / frames.sizes, energies * HARTREE, rtol=1e-14)
    np.testing.assert_allclose(frames.forces.std(), forces.std() * HARTREE_PER_BOHR, rtol=1e-12)
    # That of the published set, whose labels these stand in for.
    assert np.sqrt(np.mean(frames.forces**2)) == pytest.approx(1.225, rel=0.05)
    assert len(np.unique(frames.groups)) == 200
    assert frames.origin["labels"] == ["RPBE-D3-NNP(not DFT)"]


def one(**changes: object) -> Frames:
    """A single frame of two atoms."""
    values = {
        "numbers": np.array([8, 1]),
        "positions": np.array([[0, 0, 0], [1.0, 0, 0]]),
        "forces": np.zeros((2, 3)),
        "offsets": np.array([0, 2]),
        "cells": 5 * np.eye(3)[None],
        "energies": np.zeros(1),
        "groups": np.zeros(1),
    }
    return Frames(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"energies": np.array([np.inf])}, "finite numbers only"),
        ({"forces": np.array([[0, 0, 0], [0, np.nan, 0]])}, "finite numbers only"),
        ({"forces": np.full((2, 3), np.inf)}, "finite numbers only"),
        ({"cells": np.zeros((1, 3, 3))}, "a cell with a volume"),
        ({"cells": np.diag([5.0, 5, 0])[None]}, "a cell with a volume"),
        ({"cells": np.diag([5.0, 5, -5])[None]}, "right-handed"),
        ({"positions": np.zeros((2, 3))}, "two atoms in the same place"),
        ({"positions": np.array([[0, 0, 0], [10.0, -5, 5]])}, "periodic images included"),
    ],
)
def test_frames_that_no_model_can_learn_from_are_refused(
    changes: dict[str, np.ndarray], rule: str
) -> None:
    check(one(), Path("some.data"))
    with pytest.raises(UserError, match=rule) as refused:
        check(one(**changes), Path("some.data"))
    assert str(refused.value).startswith("some.data: frame 0 (from 0) must")


def test_units_in_a_comment_count(file: Path) -> None:
    file.write_text(TWO.replace("comment from", "comment energy_unit=eV length_unit=Ang from"))
    frames = read(file)
    np.testing.assert_allclose(frames.energies, [-76.5, -460.0])
    np.testing.assert_allclose(frames.positions[0], [1, 2, 3])
    np.testing.assert_allclose(frames.forces[0], [0.01, -0.02, 0.03])


def test_two_units_of_one_thing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "input.data"
    path.write_text(
        TWO.replace("from somewhere", "energy_unit=eV") + TWO.replace("from", "energy_unit=Ha")
    )
    with pytest.raises(UserError, match=r"input\.data:21: must have the `energy_unit` of earlier"):
        read(path)


@pytest.mark.parametrize("words", ["eV Angstrom", "units: eV", "energies in kcal/mol"])
def test_another_unit_among_the_words_of_a_comment_is_refused(words: str, tmp_path: Path) -> None:
    path = tmp_path / "input.data"
    path.write_text(TWO.replace("from somewhere", words))
    with pytest.raises(UserError, match=r"has the word `.*` without a key"):
        read(path)
    path.write_text(TWO.replace("from somewhere", "Bohr, Ha and Au"))
    assert len(read(path)) == 2


@pytest.mark.parametrize("words", ["converted from eV and Angstrom", "box 20 Angstrom"])
def test_units_of_other_things_in_a_comment_are_none(words: str, tmp_path: Path) -> None:
    path = tmp_path / "input.data"
    path.write_text(TWO)
    energies = read(path).energies.tolist()
    path.write_text(TWO.replace("from somewhere", words))
    assert read(path).energies.tolist() == energies
