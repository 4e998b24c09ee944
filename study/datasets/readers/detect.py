"""Which kind of data set a file or folder is, and its frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from study.core.components import resolve
from study.core.config import shipped
from study.core.errors import UserError
from study.core.paths import Address
from study.datasets.config import AnyDataset, DatasetConfig
from study.datasets.frames import Frames
from study.datasets.parsing.guard import guarded, printable, require_plain
from study.datasets.parsing.header import HEADER
from study.datasets.readers import ase_file, hdf5, oc20
from study.datasets.reading import Stored
from study.datasets.sources.remote import local


def settings_of(file: Path | Address, **said: Any) -> dict[str, Any]:
    """What a space writes for a file or folder.

    Args:
        file: which; one that lies elsewhere is copied here to be looked at.
        said: units, labels and species, where the user tells them.
    """
    return {"name": kind_of(local(file)), "path": str(file)} | {k: v for k, v in said.items() if v}


def kind_of(path: Path) -> str:
    """Name of the data set that a file or folder is, told by its content or name.

    Raises:
        UserError: if it is of no known kind.
    """
    if path.exists():
        require_plain(path)
    with guarded(path):
        for kind in _kinds():
            if kind.recognizer and resolve(kind.recognizer)(path):
                return kind.space_name()
    oc20.refuse_lmdb(path)
    if path.is_dir():
        there = ", ".join(sorted(printable(file.name) for file in path.iterdir())[:8])
        raise UserError(
            f"{path}: no data set here: neither DeePMD's type.raw, nor GAMD's data_*_*.npz, nor "
            "MD17's *.npz, nor ISO17's reference.db, nor QM9's dsgdb9nsd_*.xyz, nor "
            "PCQM4Mv2's N.xyz, nor OC20's *.extxyz with *.txt, nor *.extxyz, OUTCAR or "
            f"vasprun.xml, but {there or 'nothing'}"
        )
    return hdf5.kind_of(path)


def read_set(place: Path | Address, **said: Any) -> Frames:
    """The frames of a stored set, of a file or folder of another program, or ASE's `g2`.

    Args:
        place: where they are, here or elsewhere.
        said: units, labels and species, where the user tells them.

    Raises:
        UserError: if it is none of these, or damaged.
    """
    path = local(place)
    if str(path) == "g2" and not path.exists():
        return ase_file.g2()
    require_plain(path)
    if (path / HEADER).exists():
        return Frames.load(path)
    return read_frames(parsed(settings_of(path, **said)), path)


def parsed(settings: dict[str, Any]) -> Any:
    """The settings of a data set, from what a command line says.

    Raises:
        UserError: naming the option that does not suit.
    """
    from pydantic import TypeAdapter, ValidationError

    kind: TypeAdapter[DatasetConfig] = TypeAdapter(AnyDataset)
    try:
        return kind.validate_python(settings)
    except ValidationError as error:
        name = settings["name"]
        raise UserError(
            *(
                f"--{'.'.join(map(str, each['loc'][2:])) or 'dataset'}: "
                f"{_in_words(each['msg'], each['type'], name)}, but got {each['input']!r}"
                for each in error.errors()
            )
        ) from None


def _in_words(message: str, kind: str, name: str) -> str:
    if kind == "extra_forbidden":
        return f"is not known for {name}"
    return message.removeprefix("Value error, ")


def read_frames(dataset: Stored, path: Path) -> Frames:
    """All frames of a file or folder, sane ones.

    Raises:
        UserError: one line that names file, frame and rule.
    """
    require_plain(path)
    with guarded(path):
        frames: Frames = resolve(dataset.reader)(path, dataset.reading)
    return turned(frames)


def turned(frames: Frames) -> Frames:
    """The frames with right-handed cells: two vectors change places, and the lattice stays."""
    left = frames.pbc.all(axis=1) & (np.linalg.det(frames.cells) < 0)
    if not left.any():
        return frames
    cells = frames.cells.copy()
    cells[left] = cells[left][:, [1, 0, 2]]
    remark = f"left-handed cells of {int(left.sum())} frames turned"
    origin = frames.origin | {"labels": [*frames.origin.get("labels", []), remark]}
    return replace(frames, cells=cells, origin=origin)


def _kinds() -> list[type[Stored]]:
    """The classes of settings of all files, in the order in which they are asked."""
    return [kind for kind in shipped(DatasetConfig).values() if issubclass(kind, Stored)]
