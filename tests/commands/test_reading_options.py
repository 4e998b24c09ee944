"""What the command line says of a file, in the forms of a command line and of a space."""

from __future__ import annotations

import pytest

from study.commands.reading_options import ReadingOptions
from study.core.errors import UserError


@pytest.mark.parametrize(
    "text", ["energy=a,forces=b", "{energy: a, forces: b}", " energy = a , forces=b"]
)
def test_pairs_are_read_in_both_forms(text: str) -> None:
    options = ReadingOptions(units=None, labels=text, species="[O, H]")
    assert options.keys() == {"labels": {"energy": "a", "forces": "b"}, "species": ["O", "H"]}


def test_a_key_is_told_once() -> None:
    with pytest.raises(UserError, match="--units: must name energy once"):
        ReadingOptions(units="energy=eV,energy=Hartree", labels=None, species=None).keys()
