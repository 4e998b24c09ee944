"""Options that say what a file does not: units, names of labels, elements of atom types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from study.core.errors import UserError

UNITS_HELP = "of a file that tells others or none, such as energy=eV,length=Å"
LABELS_HELP = "names of labels in a file, such as energy=REF_energy,forces=REF_forces"
SPECIES_HELP = "elements of atom types, in their order, such as O,H"


def add_options(command: Any) -> None:
    """Add them to a command that reads a file."""
    command.add_argument("--units", metavar="KEY=UNIT,...", help=UNITS_HELP)
    command.add_argument("--labels", metavar="KEY=NAME,...", help=LABELS_HELP)
    command.add_argument("--species", metavar="O,H", help=SPECIES_HELP)


@dataclass(frozen=True)
class ReadingOptions:
    """What they say.

    Args:
        units: as KEY=UNIT, separated by commas.
        labels: as KEY=NAME, separated by commas.
        species: elements, separated by commas.
    """

    units: str | None
    labels: str | None
    species: str | None

    def keys(self) -> dict[str, Any]:
        """What they say, as keys of a data set in a space.

        Raises:
            UserError: if one is not of their form.
        """
        found: dict[str, Any] = {}
        for name, text in (("units", self.units), ("labels", self.labels)):
            if text:
                found[name] = _pairs(text, f"--{name}")
        if self.species:
            found["species"] = [word.strip() for word in self.species.strip("[] ").split(",")]
        return found


def _pairs(text: str, option: str) -> dict[str, str]:
    """Of `energy=eV,forces=eV/Å`, or the same as in a space, `{energy: eV, forces: eV/Å}`."""
    pairs: dict[str, str] = {}
    for part in text.strip("{} ").split(","):
        key, sign, value = part.partition("=" if "=" in part else ":")
        if not sign or not key.strip() or not value.strip():
            raise UserError(f"{option}: must be such as energy=NAME,forces=NAME, but got {text!r}")
        if key.strip() in pairs:
            raise UserError(f"{option}: must name {key.strip()} once, but got {text!r}")
        pairs[key.strip()] = value.strip()
    return pairs
