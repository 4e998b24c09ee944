"""How a file is to be read, where it does not say so itself: units, names of labels, elements."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from study.core.config import Config
from study.core.quantities.elements import atomic_number
from study.core.quantities.units import energy_unit, force_unit, length_unit, stress_unit
from study.datasets.base_config import DatasetConfig

if TYPE_CHECKING:
    from study.datasets.frames import Frames


def _checked_by(rule: Callable[[str], float]) -> AfterValidator:
    """Refuse a word by a rule, whose message need not repeat the word."""

    def check(word: str) -> str:
        try:
            rule(word)
        except ValueError as problem:
            raise ValueError(str(problem).partition(", but got")[0]) from None
        return word

    return AfterValidator(check)


Element = Annotated[str, _checked_by(atomic_number)]


class Units(Config):
    """Units of a file, where they are not those that its format has or the file declares."""

    energy: Annotated[str, _checked_by(energy_unit)] | None = None
    """Of energies: eV, meV, Hartree, mHartree, Rydberg, kcal/mol or kJ/mol."""
    length: Annotated[str, _checked_by(length_unit)] | None = None
    """Of positions and cells: Å, Bohr, nm or pm."""
    forces: Annotated[str, _checked_by(force_unit)] | None = None
    """Of forces, such as Hartree/Bohr; energy over length when left out."""
    stress: Annotated[str, _checked_by(stress_unit)] | None = None
    """Of stresses, such as GPa or kbar; energy over volume when left out. A minus before it, as in
    -kbar, is of numbers that are positive under pressure; ASE's are negative then."""


PER_ATOM = re.compile(r"per_?atom|/_?atom|_pa$", re.IGNORECASE)
"""What says that an energy is divided by the number of atoms."""


def _of_all_atoms(name: str) -> str:
    if PER_ATOM.search(name):
        raise ValueError("must name total energies, and this one is per atom by its name")
    return name


class Labels(Config):
    """Names of the columns, keys or arrays of a file that are its labels."""

    energy: Annotated[str, Field(min_length=1), AfterValidator(_of_all_atoms)] | None = None
    """Of the total energy of a frame."""
    forces: Annotated[str, Field(min_length=1)] | None = None
    """Of the forces on its atoms."""
    stress: Annotated[str, Field(min_length=1)] | None = None
    """Of the stress of a periodic frame, or of its virial by a well-known name of such."""
    virial: Annotated[str, Field(min_length=1)] | None = None
    """Of the virial, −volume × stress, in the unit of energies; in the place of `stress`."""

    @model_validator(mode="after")
    def _one_stress(self) -> Self:
        if self.stress and self.virial:
            raise ValueError("`stress` and `virial` are two names of one label; leave one out")
        return self


@dataclass(frozen=True)
class Factors:
    """What the numbers of a file are multiplied by.

    Args:
        length: Å in its unit.
        energy: eV in its unit.
        force: eV/Å in its unit.
        stress: eV/Å³ in its unit.
        names: of the units of length, energy and force, and of stress where one is told.
        remarks: on units that the user has set against those that the file declares.
        told: whether the file declares or the user sets any unit.
    """

    length: float
    energy: float
    force: float
    stress: float
    names: dict[str, str]
    remarks: tuple[str, ...] = ()
    told: bool = False


@dataclass(frozen=True)
class Reading:
    """What the user says of a file.

    Args:
        units: of its numbers.
        labels: their names.
        species: elements of atom types, in their order: LAMMPS counts types from 1, DeePMD from 0.
    """

    units: Units = field(default_factory=Units)
    labels: Labels = field(default_factory=Labels)
    species: tuple[str, ...] = ()

    def factors(self, default: tuple[str, str, str], **declared: Any) -> Factors:
        """What to multiply by.

        Args:
            default: units of length, energy and forces that the format has.
            declared: what the file declares: units of length, energy, forces, stress.

        Raises:
            ValueError: if the file declares a unit that nobody knows, and the user sets no other.
        """
        said = {name: str(unit) for name, unit in declared.items() if unit}
        length = self.units.length or said.get("length") or default[0]
        energy = self.units.energy or said.get("energy") or default[1]
        forces = self.units.forces or (
            f"{energy}/{length}"
            if self._scales
            else said.get("forces") or (f"{energy}/{length}" if said else default[2])
        )
        stress = self.units.stress or ("" if self._scales else said.get("stress"))
        remarks = tuple(
            f"{name} read in {mine}, though the file says {said[name]}"
            for name in ("length", "energy", "forces", "stress")
            if name in said and (mine := getattr(self.units, name)) and mine != said[name]
        )
        names = {"length": length, "energy": energy, "force": forces}
        names |= {"stress": stress} if stress else {}
        scale = _known(length_unit, length, "length")
        unit = _known(energy_unit, energy, "energy")
        return Factors(
            scale,
            unit,
            _known(force_unit, forces, "forces"),
            _known(stress_unit, stress, "stress") if stress else unit / scale**3,
            names,
            remarks,
            bool(said) or self.units != Units(),
        )

    @property
    def _scales(self) -> bool:
        """Whether the user tells units that those of forces and stress follow."""
        return bool(self.units.energy or self.units.length)

    def elements(self) -> list[int]:
        """Atomic numbers of `species`."""
        return [atomic_number(symbol) for symbol in self.species]


PLAIN = Reading()
"""Everything as the file or its format says."""


@dataclass(frozen=True)
class Divisible:
    """How a large file or folder is read in pieces, each by itself.

    Args:
        divide: tells the pieces, as JSON values; none where it must be read at once.
        read: gives the frames of a piece, and names of their groups in the order of their numbers.
    """

    divide: Callable[[Path], Sequence[Any]]
    read: Callable[[Path, Reading, Any], tuple[Frames, list[str]]]


def _known(unit: Any, name: str, key: str) -> float:
    try:
        return float(unit(name))
    except ValueError as problem:
        raise ValueError(
            f"the unit of {key} {problem}; say which it is with `units: {{{key}: …}}`"
        ) from None


class Stored(DatasetConfig):
    """What lies on a disk, in the format of another program."""

    maker = "study.datasets.store"
    reader: ClassVar[str] = ""
    """Gives all frames of a path: module and function."""
    recognizer: ClassVar[str] = ""
    """Tells whether a path is such a set: module and function; none if its name must tell."""
    pieces: ClassVar[str] = ""
    """Tells how it is read in pieces: module and a mapping of `Divisible` by the name of a set."""
    beside: ClassVar[str] = ""
    """Names the files that are read with a path: module and function."""
    place: ClassVar[Literal["file", "folder", "either"]] = "file"

    path: str = Field(min_length=1)
    """The file or folder, relative to the space's folder; or the address of a file, such as
    s3://bucket/water.extxyz."""
    units: Units | None = None
    """Of the file's numbers, where it does not tell them and its format has others."""

    @property
    def label(self) -> str:
        """The file, from the current folder if it is below, or its address."""
        return self._place

    @property
    def _place(self) -> str:
        if "://" in self.path:
            return self.path
        file = Path(self.path)
        return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)

    def import_command(self, root: Path) -> str:
        """The command that reads it.

        Args:
            root: folder of all results.
        """
        said = self.model_dump(mode="json", exclude={"name", "path"}, exclude_none=True)
        words = ["python", "-m", "study.data", "import", self._place]
        for key, value in said.items():
            pairs = (
                [f"{name}={each}" for name, each in value.items()] if key != "species" else value
            )
            words += [f"--{key}", ",".join(pairs)]
        usual = root.absolute() == Path("runs").absolute()
        return shlex.join(words if usual else [*words, "--out", str(root)])

    @property
    def reading(self) -> Reading:
        """What the user says of the file."""
        return Reading(
            units=self.units or Units(),
            labels=getattr(self, "labels", None) or Labels(),
            species=tuple(getattr(self, "species", None) or ()),
        )


class Named(Stored):
    """What has names for its labels."""

    labels: Labels | None = None
    """Names of the labels, where they are not the well-known ones."""


class Typed(Named):
    """What may have atom types in place of elements."""

    species: tuple[Element, ...] | None = Field(default=None, strict=False)
    """Elements of the atom types, in their order: from 1 in LAMMPS dumps, from 0 in DeePMD."""
