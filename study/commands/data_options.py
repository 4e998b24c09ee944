"""What the command lines of `study.data` ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.commands.reading_options import ReadingOptions
from study.core.paths import Address
from study.datasets.sizes import SplitBy


@dataclass(frozen=True)
class SimulateOptions:
    """TIP3P water to simulate.

    Args:
        molecules: in the box.
        trajectories: independent simulations.
        frames: kept of each.
        temperature: K.
        flexible: whether bonds and angles are.
        seed: of all simulations.
        out: folder of all results.
        workers: cores to use.
    """

    molecules: int
    trajectories: int
    frames: int
    temperature: float
    flexible: bool
    seed: int
    out: Path
    workers: int


@dataclass(frozen=True)
class FetchOptions:
    """A published data set to download.

    Args:
        name: in the catalog, or rpbe.
        out: folder of all results.
    """

    name: str
    out: Path


@dataclass(frozen=True)
class ImportOptions(ReadingOptions):
    """A file or folder to read into the store.

    Args:
        file: what to read.
        out: folder of all results.
        workers: cores to use.
    """

    file: Path | Address
    out: Path
    workers: int


@dataclass(frozen=True)
class LabelOptions:
    """Structures to label with an ASE calculator.

    Args:
        set: whose structures.
        calculator: its name, or where it is made.
        out: file for what is labelled.
        atoms: how many a structure may have, as 4 or 4-9.
        elements: symbols it may have, separated by commas; any when left out.
        workers: cores to use.
    """

    set: Path | Address
    calculator: str
    out: Path
    atoms: str
    elements: str | None
    workers: int


@dataclass(frozen=True)
class SampleOptions(LabelOptions):
    """Frames to make by dynamics from such structures.

    Args:
        frames: of each structure.
        temperature: K.
        spacing: fs between frames.
        seed: of velocities and heat bath.
    """

    frames: int
    temperature: float
    spacing: float
    seed: int


@dataclass(frozen=True)
class InspectOptions(ReadingOptions):
    """A data set to describe."""

    set: Path | Address


@dataclass(frozen=True)
class VerifyOptions:
    """Data sets to check.

    Args:
        set: those named; all stored ones when left out.
        out: folder of all results.
    """

    set: list[Path | Address]
    out: Path


@dataclass(frozen=True)
class SplitOptions(ReadingOptions):
    """A data set to divide.

    Args:
        set: which.
        folder: for the three files.
        by: what stays together.
        test: fraction or number of units.
        validation: fraction or number of the rest.
        seed: of the split.
    """

    set: Path | Address
    folder: Path
    by: SplitBy
    test: float
    validation: float
    seed: int


@dataclass(frozen=True)
class ExportOptions(ReadingOptions):
    """A data set to write as extxyz.

    Args:
        set: which.
        file: to write.
        every: take only each so many-th frame.
    """

    set: Path | Address
    file: Path
    every: int


DataOptions = (
    SimulateOptions
    | FetchOptions
    | ImportOptions
    | LabelOptions
    | InspectOptions
    | VerifyOptions
    | SplitOptions
    | ExportOptions
)
