"""Frames from DeePMD-kit's npy systems: folders with `type.raw` and `set.*/*.npy`, in eV and Å.

Format: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html. Frames of one
system are one group: they mostly come from one trajectory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.elements import ATOMIC_NUMBERS
from study.core.errors import UserError
from study.datasets.frames import Frames


def holds_systems(path: Path) -> bool:
    """Whether there is a system in the folder or below it."""
    return path.is_dir() and next(path.rglob("type.raw"), None) is not None


def read(path: Path) -> Frames:
    """All frames of all systems of a folder.

    Raises:
        UserError: one line that names system, file and rule.
    """
    systems = sorted(found.parent for found in path.rglob("type.raw"))
    parts = [(_numbers(system), _arrays(system)) for system in systems]
    counts = [len(arrays["energy"]) for _, arrays in parts]
    if not sum(counts):
        raise UserError(f"{path}: must hold a system with frames, a folder with type.raw and set.*")
    sizes = np.concatenate([np.full(n, len(z)) for (z, _), n in zip(parts, counts, strict=True)])
    atoms = [np.tile(z, n) for (z, _), n in zip(parts, counts, strict=True)]
    return Frames(
        numbers=np.concatenate(atoms),
        positions=np.concatenate([arrays["coord"].reshape(-1, 3) for _, arrays in parts]),
        forces=np.concatenate([arrays["force"].reshape(-1, 3) for _, arrays in parts]),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        cells=np.concatenate([arrays["box"].reshape(-1, 3, 3) for _, arrays in parts]),
        energies=np.concatenate([arrays["energy"] for _, arrays in parts]),
        groups=np.repeat(np.arange(len(parts)), counts),
        origin={"units": {"length": "Å", "energy": "eV", "force": "eV/Å"}, "labels": []},
    )


def _numbers(system: Path) -> NDArray[np.int64]:
    """(N,) atomic numbers of every frame of a system."""
    if (system / "nopbc").exists():
        raise UserError(f"{system}: must be periodic, but has a file `nopbc`; take it out")
    if any(system.glob("set.*/real_atom_types.npy")):
        raise UserError(
            f"{system}: is of the mixed type, whose frames have atoms of their own; write it with "
            "dpdata's `deepmd/npy` format"
        )
    names = system / "type_map.raw"
    try:
        kinds = [int(word) for word in (system / "type.raw").read_text().split()]
        symbols = names.read_text().split()
        return np.array([ATOMIC_NUMBERS[symbols[kind]] for kind in kinds])
    except FileNotFoundError:
        raise UserError(
            f"{names}: must name the elements, such as `O H`; write this file"
        ) from None
    except (ValueError, KeyError, IndexError) as problem:
        raise UserError(
            f"{system}: type.raw must hold a number per atom, each with an element in "
            f"type_map.raw, but there is none for {problem}"
        ) from None


def _arrays(system: Path) -> dict[str, NDArray[np.float64]]:
    """Coordinates, boxes, energies and forces of a system, a row per frame."""
    atoms = len((system / "type.raw").read_text().split())
    widths = {"energy": 1, "coord": 3 * atoms, "force": 3 * atoms, "box": 9}
    sets = sorted(system.glob("set.*"))
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in widths}
    for folder in sets:
        frames = None
        for name, width in widths.items():
            array = _load(folder / f"{name}.npy")
            rows = array.reshape(len(array), -1)
            frames = len(rows) if frames is None else frames
            if rows.shape != (frames, width):
                raise UserError(
                    f"{folder / name}.npy: must have shape {(frames, width)}, but got {array.shape}"
                )
            found[name].append(rows.astype(np.float64))
    joined = {
        name: np.concatenate(parts) if parts else np.empty((0, widths[name]))
        for name, parts in found.items()
    }
    return joined | {"energy": joined["energy"].reshape(-1)}


def _load(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise UserError(f"{path}: must be there and be an array ({problem})") from None
    if array.ndim == 0:
        raise UserError(f"{path}: must have a row per frame, but holds a single number")
    return array
