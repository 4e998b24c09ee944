"""Frames labelled by ASE calculators: their numbers, resumption, and what is refused."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from study.data import main
from study.datasets.frames import Frames
from study.datasets.readers import ase_file
from study.datasets.readers.detect import read_set
from study.datasets.sources.labeling import Sampling, label_frames

FACTORY = """\
from pathlib import Path
from ase.calculators.emt import EMT

class Watched(EMT):
    def calculate(self, atoms, *rest):
        with Path("{log}").open("a") as log:
            log.write("one\\n")
        if "N" in atoms.symbols and Path("{log}.stop").exists():
            raise RuntimeError("out of luck")
        super().calculate(atoms, *rest)
"""


def nothing(_done: int, _total: int) -> None:
    """No progress to show."""


def structures() -> list[Atoms]:
    """Molecules, and a periodic cell, with elements that EMT knows."""
    return [
        Atoms("OH2", [[0, 0, 0], [0, 0, 1.0], [0, 0.9, -0.3]]),
        Atoms("N2", [[0, 0, 0], [0, 0, 1.2]]),
        bulk("Cu", cubic=True) * (2, 2, 2),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "structures.extxyz"
    ase.io.write(path, structures())
    return path


def assert_labels_are_those_of_emt(frames: Frames) -> None:
    for atoms in ase_file.structures(frames):
        labels = atoms.calc.results
        atoms.calc = EMT()
        assert labels["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(labels["forces"], atoms.get_forces(), atol=1e-6)
        assert ("stress" in labels) == atoms.pbc.all()
        if atoms.pbc.all():
            np.testing.assert_allclose(labels["stress"], atoms.get_stress(), atol=1e-6)


def test_label_writes_the_numbers_of_the_calculator_for_molecules_and_crystals(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labelled.extxyz"
    arguments = ["label", str(file), "--calculator", "ase.calculators.emt:EMT", "--out", str(out)]
    assert main([*arguments, "--workers", "1"]) == 0
    assert "3 frames" in capsys.readouterr().out
    assert read_set(file).labels == ()
    labelled = read_set(out)
    assert labelled.labels == ("energy", "forces", "stress")
    assert_labels_are_those_of_emt(labelled)
    assert [bool(atoms.pbc.all()) for atoms in ase_file.structures(labelled)] == [False] * 2 + [
        True
    ]
    assert main([*arguments, "--workers", "1"]) == 2
    assert "must not exist yet" in capsys.readouterr().err


def test_sampling_relaxes_first_and_ends_in_the_same_bits_after_a_failure(tmp_path: Path) -> None:
    log = tmp_path / "log"
    factory = tmp_path / "mine.py"
    factory.write_text(FACTORY.format(log=log))
    pair = [Atoms("CO", [[0, 0, 0], [0, 0, 1.1]]), structures()[1]]
    frames = ase_file.joined(pair, tmp_path)
    sampling = Sampling(frames=4, temperature=300, spacing=2.0, equilibration=2.0)
    teacher = f"{factory}:Watched"
    whole = label_frames(frames, teacher, tmp_path / "whole.extxyz", sampling, 2, nothing)
    calculations = len(log.read_text().split())
    largest = np.linalg.norm(whole.forces, axis=1)
    first = np.concatenate([largest[0:2], largest[8:10]])
    assert first.max() < 0.01 < largest[2:8].max()
    assert whole.groups.tolist() == frames.groups.repeat(4).tolist()
    assert_labels_are_those_of_emt(whole)

    stop = Path(f"{log}.stop")
    stop.touch()
    log.write_text("")
    arguments = (frames, teacher, tmp_path / "again.extxyz", sampling)
    with pytest.raises(Exception, match=r"structure 1 \(from 0\), N2: .*out of luck"):
        label_frames(*arguments, 1, nothing)
    stop.unlink()
    again = label_frames(*arguments, 1, nothing)
    # One calculation failed, and nothing else was done twice.
    assert len(log.read_text().split()) == calculations + 1
    assert again.content_hash() == whole.content_hash()
    assert not list(tmp_path.glob("*.partial*"))


def test_charge_and_multiplicity_reach_the_calculator(tmp_path: Path) -> None:
    factory = tmp_path / "mine.py"
    factory.write_text(
        "from ase.calculators.calculator import Calculator, all_changes\n"
        "class Electrons(Calculator):\n"
        "    implemented_properties = ['energy', 'forces']\n"
        "    def calculate(self, atoms, properties, system_changes=all_changes):\n"
        "        charge = atoms.get_initial_charges().sum()\n"
        "        unpaired = atoms.get_initial_magnetic_moments().sum()\n"
        "        self.results = {'energy': charge + 10 * unpaired, 'forces': atoms.positions * 0}\n"
    )
    ion, radical = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]), Atoms("O")
    ion.info["charge"], radical.info["multiplicity"] = -1, 3
    frames = ase_file.joined([ion, radical], tmp_path)
    taught = label_frames(frames, f"{factory}:Electrons", tmp_path / "out.extxyz", None, 1, nothing)
    assert taught.energies.tolist() == [-1, 20]
    stored = read_set(tmp_path / "out.extxyz")
    np.testing.assert_array_equal(stored.properties["charge"], [-1, np.nan])
    np.testing.assert_array_equal(stored.properties["multiplicity"], [np.nan, 3])


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--calculator", "no.such:Thing"], "--calculator: must be GFN2-xTB or"),
        (["--calculator", "ase.calculators.emt:EMT", "--elements", "H,Xx"], "but got Xx"),
        (["--calculator", "ase.calculators.emt:EMT", "--atoms", "few"], "must be as 4 or 4-9"),
        (["--calculator", "ase.calculators.emt:EMT", "--atoms", "99"], "no structure of this"),
        (["--calculator", "ase.calculators.emt:EMT", "--frames", "0"], "--frames: must be above 0"),
    ],
)
def test_a_teacher_that_cannot_work_is_answered_in_a_line(
    arguments: list[str],
    rule: str,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.extxyz"
    assert main(["sample", str(file), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["structures.extxyz"]


def test_the_molecules_of_g2_have_paired_electrons_and_can_be_chosen() -> None:
    molecules = read_set(Path("g2"))
    assert molecules.labels == ()
    assert len(np.unique(molecules.groups)) == len(molecules) > 100
    assert set(molecules.sizes.tolist()) >= {2, 14}


def test_tight_binding_forces_are_the_slope_of_its_energy(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    ahead, water, behind = structures()[0], structures()[0], structures()[0]
    ahead.positions[1, 2] += 1e-3
    behind.positions[1, 2] -= 1e-3
    frames = ase_file.joined([ahead, water, behind], tmp_path)
    taught = label_frames(frames, "GFN2-xTB", tmp_path / "out.extxyz", None, 1, nothing)
    slope = (taught.energies[0] - taught.energies[2]) / 2e-3
    assert taught.forces[4, 2] == pytest.approx(-slope, abs=1e-3)
    # Published for one molecule of water: -5.07 Hartree (doi:10.1021/acs.jctc.8b01176).
    assert taught.energies[1] / 27.2114 == pytest.approx(-5.07, abs=0.02)


def test_what_is_exported_reads_back_the_same(tmp_path: Path) -> None:
    made = structures()
    for number, atoms in enumerate(made):
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(number), forces=np.full((len(atoms), 3), 0.5)
        )
        atoms.info |= {"group": number, "gap": 5.5 + number, "r2": 35.0}
    frames = ase_file.joined(made, tmp_path)
    ase_file.write(frames, tmp_path / "out.extxyz")
    stored = read_set(tmp_path / "out.extxyz")
    assert stored.content_hash() == frames.content_hash()
    assert stored.labels == ("energy", "forces", "gap", "r2")
