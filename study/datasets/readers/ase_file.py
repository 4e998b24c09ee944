"""Frames from and to what ASE reads and writes: extxyz, ASE databases, trajectories.

Labels are ASE's: the total `energy` in eV and `forces` in eV/Å, as the calculator gave them,
without constraints; a file may have neither. Keys of a frame's info (or of a database's row) that
are named as in `PROPERTIES` are taken too, in the units there. Frames with the same `group` in
their info (else the same `config_type`) are one group; those with neither may all be correlated and
share a group too. Each frame is periodic where its `pbc` says so: slabs and wires in part,
molecules nowhere. Frames may lack labels that others have.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import write_with
from study.core.errors import UserError, one_line
from study.core.properties import PROPERTIES
from study.datasets.frames import Frames

if TYPE_CHECKING:
    from ase import Atoms

GROUP_KEYS = ("group", "config_type")
"""Keys of a frame's info that name its group; the first that is there counts."""
ROW_LABELS = ("total_energy", "atomic_forces")
"""Energy among a row's key-value pairs, and forces in its data, where no calculator tells them."""
DATABASES = (".db", ".json")
"""Suffixes of ASE databases, whose rows have key-value pairs in place of info."""


def read(path: Path) -> Frames:
    """All frames of a file.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    atoms = list(checked(path))
    if not atoms:
        raise UserError(f"{path}: must hold a frame, but holds none")
    return joined(atoms, path)


def joined(atoms: Sequence[Atoms], path: Path) -> Frames:
    """ASE's structures as frames; those that lack a label get NaN for it.

    Raises:
        UserError: if one has a label that is not a number.
    """
    names = [_group(frame) for frame in atoms]
    known = {name: place for place, name in enumerate(dict.fromkeys(filter(None, names)))}
    known_of = [_properties(frame) for frame in atoms]
    found = [name for name in PROPERTIES if any(name in values for values in known_of)]
    return Frames(
        numbers=np.concatenate([frame.numbers for frame in atoms]),
        positions=np.concatenate([frame.positions for frame in atoms]),
        forces=np.concatenate(_labels(atoms, "forces", path)),
        offsets=np.cumsum([0, *map(len, atoms)]),
        cells=np.stack([frame.cell.array for frame in atoms]),
        energies=np.array(_labels(atoms, "energy", path)),
        groups=np.array([known.get(name, -1) for name in names]),
        origin={
            "units": {"length": "Å", "energy": "eV", "force": "eV/Å"},
            "ase": import_module("ase").__version__,
            "labels": [],
            "absent": ["energy", "forces"],
        },
        pbc=np.stack([frame.pbc for frame in atoms]),
        properties={
            name: np.array([values.get(name, np.nan) for values in known_of]) for name in found
        },
    )


def g2() -> Frames:
    """The molecules of ASE's G2 collection whose electrons are paired, each a group."""
    from ase.collections import g2

    molecules = [g2[name] for name in g2.names]
    paired = [m for m in molecules if not m.get_initial_magnetic_moments().any()]
    frames = joined(paired, Path("g2"))
    return replace(frames, groups=np.arange(len(frames)))


def structures(frames: Frames) -> list[Atoms]:
    """The frames as ASE's structures, each with the labels that it has."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    made = []
    labelled = {name: frames.labelled(name) for name in ("energy", "forces")}
    for index, group in enumerate(frames.groups.tolist()):
        atoms = slice(*frames.offsets[index : index + 2])
        known = {name: values[index] for name, values in frames.properties.items()}
        structure = Atoms(
            numbers=frames.numbers[atoms],
            positions=frames.positions[atoms],
            info={"group": group}
            | {name: float(value) for name, value in known.items() if np.isfinite(value)},
            cell=frames.cells[index],
            pbc=frames.pbc[index],
        )
        labels = {"energy": frames.energies[index], "forces": frames.forces[atoms]}
        labels = {name: value for name, value in labels.items() if labelled[name][index]}
        if labels:
            structure.calc = SinglePointCalculator(structure, **labels)  # type: ignore[no-untyped-call]
        made.append(structure)
    return made


def write(frames: Frames, path: Path) -> None:
    """Write extxyz in eV and Å; `group` in the comment keeps together what belongs together."""
    from ase.io import write

    content = structures(frames)
    write_with(path, lambda temporary: write(temporary, content, format="extxyz"))


@contextmanager
def _unzipped(path: Path) -> Iterator[Path]:
    """The file itself, or what a .gz or .xz holds: ASE jumps about in a file, slow in those."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open}
    if path.suffix not in openers:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        try:
            with openers[path.suffix](path) as zipped, plain.open("wb") as unzipped:
                shutil.copyfileobj(zipped, unzipped)
        except (EOFError, OSError, lzma.LZMAError) as problem:
            raise UserError(f"{path}: cannot be unpacked ({problem})") from None
        yield plain


def checked(path: Path) -> Iterator[Atoms]:
    """ASE's frames of a file, each after a look at its shape and cell.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    number = -1
    try:
        with _unzipped(path) as plain:
            for number, frame in enumerate(_frames(plain)):
                require_whole(frame, f"{path}: frame {number} (from 0)")
                yield frame
    except UserError:
        raise
    # ASE's readers raise whatever a malformed file makes them stumble over.
    except Exception as problem:
        what = one_line(problem)
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
                yield _with_labels(row.toatoms(add_additional_information=True))
        else:
            yield from io.iread(plain, index=":")


def _with_labels(frame: Atoms) -> Atoms:
    """A row of a database; its energy and forces may lie where ISO17 has them."""
    energy = _info(frame).get(ROW_LABELS[0])
    forces = frame.info.get("data", {}).get(ROW_LABELS[1])
    labels = {"energy": energy, "forces": forces}
    if frame.calc is None and (energy is not None or forces is not None):
        known = {name: value for name, value in labels.items() if value is not None}
        point = import_module("ase.calculators.singlepoint").SinglePointCalculator
        frame.calc = point(frame, **known)
    return frame


def require_whole(frame: Atoms, where: str) -> None:
    """Look at the shape and cell of a frame.

    Args:
        frame: of any source.
        where: it is, for the message.

    Raises:
        UserError: one line that names the rule that it breaks.
    """
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
        if found is not None and np.shape(found) != shape:
            return f"must have `{name}` of shape {shape}, but got {np.shape(found)}"
    return ""


def _result(frame: Atoms, name: str) -> NDArray[np.float64] | None:
    results: dict[str, Any] = frame.calc.results if frame.calc else {}
    return results.get(name)


def _labels(atoms: Sequence[Atoms], name: str, path: Path) -> list[NDArray[np.float64]]:
    """A label of each frame; NaN of those that do not have it."""
    found = [_result(frame, name) for frame in atoms]
    for number, label in enumerate(found):
        if label is not None and not np.isfinite(label).all():
            raise UserError(
                f"{path}: frame {number} (from 0) must have finite numbers as `{name}`; correct "
                "it, or leave the label out of this frame"
            )
    shapes = [(len(frame), 3) if name == "forces" else () for frame in atoms]
    return [
        np.full(shape, np.nan) if label is None else label
        for label, shape in zip(found, shapes, strict=True)
    ]


def _properties(frame: Atoms) -> dict[str, float]:
    """Numbers of a frame that are named as in `PROPERTIES`."""
    info = _info(frame)
    return {
        name: float(info[name])
        for name in PROPERTIES
        if isinstance(info.get(name), int | float | np.number)
    }


def _info(frame: Atoms) -> dict[str, Any]:
    """What is written beside a frame, in its info or as key-value pairs of a database."""
    pairs: dict[str, Any] = frame.info.get("key_value_pairs", {})
    return frame.info | pairs


def _group(frame: Atoms) -> str:
    """Name of the frame's group; empty when the file does not tell."""
    info = _info(frame)
    return next((f"{key}={info[key]}" for key in GROUP_KEYS if key in info), "")
