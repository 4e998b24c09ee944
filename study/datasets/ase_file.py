"""Frames from any file that ASE reads with labels: extxyz, ASE databases, trajectories.

Labels are ASE's: the total `energy` in eV and `forces` in eV/Å, as the calculator gave them,
without constraints. Frames with the same `group` in their info (else the same `config_type`) are
one group; those with neither may all be correlated and share a group too. Molecules without a cell
get one with so much vacuum that images never meet.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.datasets.conformers import box
from study.errors import UserError
from study.frames import Frames

if TYPE_CHECKING:
    from ase import Atoms

GROUP_KEYS = ("group", "config_type")
"""Keys of a frame's info that name its group; the first that is there counts."""
DATABASES = (".db", ".json")
"""Suffixes of ASE databases, whose rows have key-value pairs in place of info."""


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    with _unzipped(path) as plain:
        atoms = list(_checked(plain, path))
    if not atoms:
        raise UserError(f"{path}: must hold a frame, but holds none")
    names = [_group(frame) for frame in atoms]
    known = list(dict.fromkeys(name for name in names if name))
    return Frames(
        numbers=np.concatenate([frame.numbers for frame in atoms]),
        positions=np.concatenate([frame.positions for frame in atoms]),
        forces=np.concatenate([_result(frame, "forces") for frame in atoms]),
        offsets=np.cumsum([0, *map(len, atoms)]),
        cells=np.stack(
            [frame.cell.array if frame.pbc.all() else box(frame.positions) for frame in atoms]
        ),
        energies=np.array([_result(frame, "energy") for frame in atoms]),
        groups=np.array([known.index(name) if name else -1 for name in names]),
        origin={
            "units": {"length": "Å", "energy": "eV", "force": "eV/Å"},
            "ase": import_module("ase").__version__,
            "labels": [],
        },
    )


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """The file itself, or what a .gz holds: ASE jumps about in a file, which gzip makes slow."""
    if path.suffix != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        try:
            with gzip.open(path) as zipped, plain.open("wb") as unzipped:
                shutil.copyfileobj(zipped, unzipped)
        except (EOFError, OSError) as problem:
            raise UserError(f"{path}: cannot be unpacked ({problem})") from None
        yield plain


def _checked(plain: Path, path: Path) -> Iterator[Atoms]:
    """ASE's frames, each after a look at its labels and cell."""
    number = -1
    try:
        for number, frame in enumerate(_frames(plain)):
            _require_labels(frame, f"{path}: frame {number} (from 0)")
            yield frame
    except UserError:
        raise
    # ASE's readers raise whatever a malformed file makes them stumble over.
    except Exception as problem:
        what = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise UserError(
            f"{path}: frame {number + 1} (from 0) not readable by ASE: {what}"
        ) from None


def _frames(plain: Path) -> Iterator[Atoms]:
    try:
        io, db = import_module("ase.io"), import_module("ase.db")
    except ImportError as problem:
        raise UserError(f"{plain.name}: is read with ASE ({problem}); pip install ase") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if plain.suffix in DATABASES:
            for row in db.connect(plain).select():
                yield row.toatoms(add_additional_information=True)
        else:
            yield from io.iread(plain, index=":")


def _require_labels(frame: Atoms, where: str) -> None:
    if broken := _problem(frame):
        raise UserError(f"{where} {broken}")


def _problem(frame: Atoms) -> str:
    """The rule that a frame breaks, or nothing."""
    if len(frame) == 0:
        return "must have an atom"
    if frame.numbers.min() < 1:
        return "must name the element of every atom"
    for name, shape in (("energy", ()), ("forces", (len(frame), 3))):
        found = _result(frame, name)
        if found is None:
            return f"has no `{name}`: the total energy in eV, and forces in eV/Å, are needed"
        if np.shape(found) != shape:
            return f"must have `{name}` of shape {shape}, but got {np.shape(found)}"
    if frame.pbc.any() and not frame.pbc.all():
        return (
            "must be periodic in all directions or in none, but pbc is "
            f"{frame.pbc.tolist()}; slabs are not supported yet"
        )
    return ""


def _result(frame: Atoms, name: str) -> NDArray[np.float64] | None:
    results: dict[str, Any] = frame.calc.results if frame.calc else {}
    return results.get(name)


def _group(frame: Atoms) -> str:
    """Name of the frame's group; empty when the file does not tell."""
    info = frame.info | frame.info.get("key_value_pairs", {})
    return next((f"{key}={info[key]}" for key in GROUP_KEYS if key in info), "")
