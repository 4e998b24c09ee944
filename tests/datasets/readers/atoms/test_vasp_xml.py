"""VASP's XML: what was cut off is told, and rows that are missing are no zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from study.core.errors import UserError
from study.datasets.readers.ase_file import read
from tests.fuzz.files import ENERGIES, FORCES, FRAMES, POSITIONS, write_vasprun


@pytest.fixture
def vasprun(tmp_path: Path) -> Path:
    write_vasprun(tmp_path / "vasprun.xml")
    return tmp_path / "vasprun.xml"


def test_all_steps_are_read(vasprun: Path) -> None:
    frames = read(vasprun)
    np.testing.assert_allclose(frames.positions, POSITIONS.reshape(-1, 3), atol=1e-8)
    np.testing.assert_allclose(frames.forces, FORCES.reshape(-1, 3), atol=1e-8)
    np.testing.assert_allclose(frames.energies, ENERGIES, atol=1e-8)
    assert frames.origin["labels"] == []


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_was_cut_off_is_told(vasprun: Path, *, folder: bool) -> None:
    text = vasprun.read_text()
    vasprun.write_text(text[: text.rindex("<varray name='forces'>")])
    frames = read(vasprun.parent if folder else vasprun)
    assert len(frames) == FRAMES - 1
    assert frames.origin["labels"] == [
        "vasprun.xml was cut off: a step that is not whole is left out"
    ]


@pytest.mark.parametrize("name", ["positions", "forces", "basis"])
def test_a_row_that_is_missing_is_refused(vasprun: Path, name: str) -> None:
    lines = vasprun.read_text().splitlines()
    place = max(number for number, line in enumerate(lines) if f"'{name}'" in line)
    vasprun.write_text("\n".join(lines[: place + 1] + lines[place + 2 :]))
    with pytest.raises(UserError, match=rf"step 5 \(from 0\) must have 3 rows of {name}, not 2"):
        read(vasprun)
