"""Frames from and to what ASE reads and writes: extxyz, databases, trajectories, outputs of codes.

Labels are the total energy in eV, forces in eV/Å and the stress in eV/Å³, under the names of
`parsing.label_names` or those that the user gives; other units are taken from the file
(`energy-unit`, `length-unit`, `force-unit`, `stress-unit` in a comment, SchNetPack's metadata) or
from the user. A frame may lack any label.
Keys of a frame's info (or of a database's row) that are named as in `PROPERTIES` are taken too, in
the units there. Frames with the same `group` in their info are one group; those without may all be
correlated and share a group, in a folder one for each file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from study.core.atomic_io import write_with
from study.core.errors import UserError
from study.core.paths import follow_links
from study.core.quantities.properties import PROPERTIES
from study.datasets.frames import Frames
from study.datasets.parsing.guard import guarded, printable
from study.datasets.parsing.stress import TO_VOIGT
from study.datasets.parsing.text import is_tar, unzipped
from study.datasets.readers.atoms import code_output, database, extxyz, lammps_dump, vasp_xml
from study.datasets.readers.atoms.across_frames import (
    candidates,
    columns_of,
    remarks_on,
    require_alike,
    require_asked,
)
from study.datasets.readers.atoms.folder import (
    files_of,
    passed_over_remarks,
)
from study.datasets.readers.atoms.labelled import Labelled, columns, labelled
from study.datasets.reading import PLAIN, Reading

if TYPE_CHECKING:
    from ase import Atoms


def read(path: Path, given: Reading = PLAIN) -> Frames:
    """All frames of a file, or of all files of a folder.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    files = files_of(path) if path.is_dir() else [path]
    made: list[Labelled] = []
    empty: list[str] = []
    there: set[str] = set()
    for file in files:
        atoms = list(checked(file, given))
        for frame in atoms if path.is_dir() else ():
            frame.info.setdefault("group", f"file {file.relative_to(path)}")
        made += _labelled(atoms, file, given)
        empty += [] if atoms else [printable(file.name)]
        there |= set().union(*map(columns, atoms[:100]))
    extxyz.require_frames(len(made), path)
    require_asked(made, there, path, given)
    frames, _ = frames_of(made)
    frames.origin["labels"] += [
        *(passed_over_remarks(path) if path.is_dir() else ()),
        *chain(*map(_cut_off_remarks, files)),
        *(f"{len(empty)} files hold no frame, such as {each}" for each in empty[:1]),
    ]
    return frames


def _cut_off_remarks(file: Path) -> list[str]:
    return [*vasp_xml.remarks(file), *code_output.remarks(file)]


def may_read(path: Path) -> bool:
    """Whether it may be a file that ASE reads, or a folder of such."""
    if path.is_dir():
        return bool(files_of(path))
    return path.suffix not in (".h5", ".hdf5", ".hdf", ".lmdb")


def joined(atoms: Sequence[Atoms], path: Path, given: Reading = PLAIN) -> Frames:
    """ASE's structures as frames.

    Raises:
        UserError: naming the first frame that cannot be taken.
    """
    made = _labelled(atoms, path, given)
    require_asked(made, set().union(*map(columns, atoms[:100])), path, given)
    return frames_of(made)[0]


def _labelled(atoms: Sequence[Atoms], path: Path, given: Reading) -> list[Labelled]:
    """ASE's structures of a file with their labels."""
    made = []
    for number, frame in enumerate(atoms):
        with guarded(f"{path}: frame {number} (from 0)", "cannot be taken"):
            made.append(labelled(frame, given))
    with guarded(path):
        require_alike(made)
    return made


def frames_of(made: Sequence[Labelled]) -> tuple[Frames, list[str]]:
    """Labelled structures as frames, and the names of their groups."""
    names = list(dict.fromkeys(each.group for each in made if each.group))
    places = {name: place for place, name in enumerate(names)}
    found = [name for name in PROPERTIES if any(name in each.properties for each in made)]
    frames = Frames(
        numbers=np.concatenate([each.numbers for each in made]),
        positions=np.concatenate([each.positions for each in made]),
        forces=np.concatenate([each.forces for each in made]),
        offsets=np.cumsum([0, *(len(each.numbers) for each in made)]),
        cells=np.stack([each.cell for each in made]),
        energies=np.array([each.energy for each in made]),
        groups=np.array([places.get(each.group, -1) for each in made]),
        origin={
            "units": made[0].factors.names,
            "ase": import_module("ase").__version__,
            "labels": remarks_on(made),
            "columns": columns_of(made),
            "candidates": candidates(made),
            "absent": ["energy", "forces", "stress"],
        },
        stresses=np.stack([each.stress for each in made]),
        pbc=np.stack([each.pbc for each in made]),
        properties={
            name: np.array([each.properties.get(name, np.nan) for each in made]) for name in found
        },
    )
    return frames, names


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
    labelled = {name: frames.labelled(name) for name in ("energy", "forces", "stress")}
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
        if frames.stresses is not None:
            labels["stress"] = frames.stresses[index][TO_VOIGT]
        labels = {name: value for name, value in labels.items() if labelled[name][index]}
        if labels:
            structure.calc = SinglePointCalculator(structure, **labels)  # type: ignore[no-untyped-call]
        made.append(structure)
    return made


def write(frames: Frames, path: Path) -> None:
    """Write extxyz in eV and Å; `group` in the comment keeps together what belongs together."""
    from ase.io import write

    content = structures(frames)
    write_with(follow_links(path), lambda temporary: write(temporary, content, format="extxyz"))


def checked(path: Path, given: Reading = PLAIN) -> Iterator[Atoms]:
    """ASE's frames of a file, each after a look at its atoms.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    yield from whole(_frames(path, given), path)


def whole(frames: Iterator[Atoms], path: Path) -> Iterator[Atoms]:
    """The frames, each after a look at its atoms; see `checked`."""
    for number, frame in enumerate(_named(frames, path)):
        require_whole(frame, f"{path}: frame {number} (from 0)")
        yield frame


def _named(frames: Iterator[Atoms], path: Path) -> Iterator[Atoms]:
    """The frames, with whatever a library raises named by the frame that it stumbles over."""
    number = 0
    while True:
        with guarded(f"{path}: frame {number} (from 0)", "not readable by ASE"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
        number += 1


def _frames(path: Path, given: Reading) -> Iterator[Atoms]:
    try:
        io = import_module("ase.io")
    except ImportError as problem:
        raise UserError(f"{path.name}: is read with ASE ({problem}); pip install ase") from None
    if is_tar(path):
        raise UserError(f"{path}: is a tar; unpack it, and name the folder or file that comes out")
    if extxyz.is_xyz(path):
        yield from extxyz.frames(path)
    elif lammps_dump.is_dump(path):
        yield from lammps_dump.frames(path, given)
    else:
        with unzipped(path) as plain, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if database.is_database(plain):
                yield from database.frames(plain)
                return
            _require_elements(plain, path)
            # Names are names: ASE would take what follows an @ for numbers of frames.
            yield from code_output.frames(
                plain,
                lambda file: io.iread(
                    str(file.absolute()), index=":", do_not_split_by_at_sign=True
                ),
            )


def _require_elements(plain: Path, path: Path) -> None:
    """Refuse formats in which ASE takes numbers of atom types for those of elements."""
    kind = import_module("ase.io.formats").filetype(str(plain.absolute()))
    if kind.startswith("lammps") and (
        kind != "lammps-data" or "Masses" not in plain.read_text(errors="replace")
    ):
        raise UserError(
            f"{path}: has atom types of LAMMPS, which are no elements; write a custom dump as "
            "text, and name the elements with `species`"
        )


def require_whole(frame: Atoms, where: str) -> None:
    """Refuse a frame that has no atom, or one of no element.

    Args:
        frame: of any source.
        where: it is, for the message.

    Raises:
        UserError: one line that names the rule that it breaks.
    """
    if len(frame) == 0:
        raise UserError(f"{where} must have an atom")
    if frame.numbers.min() < 1 or frame.numbers.max() > 118:
        raise UserError(f"{where} must name the element of every atom")
