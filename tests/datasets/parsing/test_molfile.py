"""Molfiles whose counts do not fit, or which were cut off, are refused."""

from __future__ import annotations

import pytest

from study.core.errors import UserError
from study.datasets.parsing.molfile import sdf_molecule
from study.datasets.reading import PLAIN

LINES = [
    "water\n",
    " by hand\n",
    "\n",
    "  3  2  0  0  0  0  0  0  0  0999 V2000\n",
    "    0.0000    0.0000    0.0000 O   0  0\n",
    "    0.8000    0.6000    0.0000 H   0  0\n",
    "   -0.8000    0.6000    0.0000 H   0  0\n",
    "  1  2  1  0\n",
    "  1  3  1  0\n",
    "M  CHG  1   1   0\n",
    "M  END\n",
]
FACTORS = PLAIN.factors(("Å", "eV", "eV/Å"))


def test_a_whole_molecule_is_read() -> None:
    assert sdf_molecule(LINES, "a.sdf", FACTORS)[0] == ["O", "H", "H"]


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_counts_that_leave_out_an_atom_are_refused(count: int) -> None:
    lines = [*LINES[:3], f"  {count}{LINES[3][3:]}", *LINES[4:]]
    with pytest.raises(UserError, match=r"must have .*(atoms|numbers)"):
        sdf_molecule(lines, "a.sdf", FACTORS)


@pytest.mark.parametrize("kept", [7, 8, 9, 10])
def test_a_molecule_without_its_end_is_refused(kept: int) -> None:
    with pytest.raises(UserError, match="is the file complete"):
        sdf_molecule(LINES[:kept], "a.sdf", FACTORS)


@pytest.mark.parametrize("more", [LINES, LINES[:8], LINES[3:]])
def test_two_molecules_in_one_are_refused(more: list[str]) -> None:
    with pytest.raises(UserError, match=r"must end with `\$\$\$\$` before the next"):
        sdf_molecule(LINES + more, "a.sdf", FACTORS)
