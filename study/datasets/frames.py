"""Labelled configurations as flat arrays, in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from study.core.atomic_io import write_json
from study.core.errors import readable
from study.core.hashing import digest
from study.core.quantities.properties import PROPERTIES
from study.datasets.parsing import array_files
from study.datasets.parsing.array_files import REMADE, load_arrays
from study.datasets.parsing.arrays import checked_numbers, ragged_hashes, repeated
from study.datasets.parsing.header import HEADER, verified_header

ARRAYS: dict[str, np.dtype[Any]] = {
    "numbers": np.dtype(np.uint8),
    "positions": np.dtype(np.float64),
    "forces": np.dtype(np.float64),
    "offsets": np.dtype(np.int64),
    "cells": np.dtype(np.float64),
    "energies": np.dtype(np.float64),
    "groups": np.dtype(np.int64),
}
"""Every stored array with its type, in the order in which the content hash reads them."""

OPTIONAL = ("pbc", "stresses")
"""Arrays that are stored where they say anything."""

OWN = "property-"
"""What the files of properties begin with."""


@dataclass(frozen=True)
class Frames:
    """Many labelled configurations, one after the other; frame i owns atoms offsets[i:i+2].

    Args:
        numbers: (ΣN,) atomic numbers.
        positions: (ΣN, 3) Å.
        forces: (ΣN, 3) eV/Å; NaN on all atoms of a frame without forces.
        offsets: (frames + 1,) first atom of each frame, then the number of all atoms.
        cells: (frames, 3, 3) Å, rows are lattice vectors; a row without periodicity means nothing.
        energies: (frames,) total energies, eV; NaN of a frame without an energy.
        groups: (frames,) frames of one group (one trajectory, one source) are correlated.
        origin: how the frames were made: recipe, versions, seeds. Not part of the content hash.
        properties: what else is known of each frame, (frames,) by its name in `PROPERTIES`, in the
            unit there; NaN where it is not known.
        stresses: (frames, 3, 3) eV/Å³ as ASE counts it, the derivative of the energy by strain over
            the volume; NaN of a frame without one. Kept only where some frame has one.
        pbc: (frames, 3) whether the frame repeats along each lattice vector; everywhere when left
            out. Slabs repeat along two, isolated molecules along none.
    """

    numbers: NDArray[np.uint8]
    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    offsets: NDArray[np.int64]
    cells: NDArray[np.float64]
    energies: NDArray[np.float64]
    groups: NDArray[np.int64]
    origin: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    stresses: NDArray[np.float64] | None = None
    pbc: NDArray[np.bool_] = field(default_factory=lambda: np.ones(3, np.bool_))

    def __post_init__(self) -> None:
        """Bring every array to its type and check that the shapes belong together."""
        object.__setattr__(self, "numbers", checked_numbers(self.numbers))
        for name, dtype in ARRAYS.items():
            array: NDArray[Any] = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            object.__setattr__(self, name, array)
        properties = {
            name: np.ascontiguousarray(self.properties[name], dtype=np.float64)
            for name in sorted(self.properties)
        }
        object.__setattr__(self, "properties", properties)
        if self.stresses is not None:
            stresses = np.ascontiguousarray(self.stresses, dtype=np.float64)
            object.__setattr__(self, "stresses", None if np.isnan(stresses).all() else stresses)
        frames, atoms = len(self.energies), len(self.numbers)
        if np.shape(self.pbc) == (3,):
            object.__setattr__(self, "pbc", np.tile(self.pbc, (frames, 1)))
        object.__setattr__(self, "pbc", np.ascontiguousarray(self.pbc, dtype=np.bool_))
        expected = {
            "positions": (atoms, 3),
            "forces": (atoms, 3),
            "offsets": (frames + 1,),
            "cells": (frames, 3, 3),
            "groups": (frames,),
            "pbc": (frames, 3),
        }
        expected |= {} if self.stresses is None else {"stresses": (frames, 3, 3)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"`{name}` must have shape {shape}, but got {getattr(self, name).shape}."
                )
        for name, values in properties.items():
            if name not in PROPERTIES:
                raise ValueError(f"`properties` must have names of PROPERTIES, but got {name}.")
            if values.shape != (frames,):
                raise ValueError(f"`{name}` must have shape {(frames,)}, but got {values.shape}.")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.energies)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what some frames are labelled with: energy, forces, stress, properties."""
        named = ("energy", "forces", "stress", *self.properties)
        return tuple(name for name in named if self.labelled(name).any())

    def labelled(self, name: str) -> NDArray[np.bool_]:
        """(frames,) which frames have a label: absent labels are NaN, and nothing else is."""
        if name == "stress":
            if self.stresses is None:
                return np.zeros(len(self), np.bool_)
            return np.asarray(~np.isnan(self.stresses).any(axis=(1, 2)))
        if name != "forces":
            values = self.energies if name == "energy" else self.properties[name]
            return ~np.isnan(values)
        return self._with_forces

    @cached_property
    def _with_forces(self) -> NDArray[np.bool_]:
        absent = np.isnan(self.forces).any(axis=1)
        return ~np.logical_or.reduceat(absent, self.offsets[:-1])

    @cached_property
    def lattices(self) -> NDArray[np.float64]:
        """(frames, 3, 3) Å, the cells with zeros for vectors that do not repeat."""
        if not self.pbc.any():
            # Those of millions of molecules would take the memory of each process.
            return np.broadcast_to(np.zeros(1), self.cells.shape)
        return np.where(self.pbc[:, :, None], self.cells, 0.0)

    @property
    def isolated(self) -> NDArray[np.bool_]:
        """(frames,) which frames are periodic along no vector: molecules, clusters and atoms."""
        return np.asarray(~self.pbc.any(axis=1))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(frames,) number of atoms of each frame."""
        return np.diff(self.offsets)

    @cached_property
    def first_copies(self) -> NDArray[np.int64]:
        """(frames,) first frame with the same atoms, positions and lattice, mostly itself."""
        first: dict[bytes, int] = {}
        copies, lattices = np.arange(len(self)), self.lattices
        for index in np.flatnonzero(repeated(ragged_hashes(self.positions, self.offsets))).tolist():
            atoms = slice(*self.offsets[index : index + 2])
            content = hashlib.blake2b(self.numbers[atoms].tobytes(), digest_size=16)
            content.update(self.positions[atoms].tobytes())
            content.update(lattices[index].tobytes())
            copies[index] = first.setdefault(content.digest(), index)
        return copies

    def select(self, indices: NDArray[np.int64]) -> Frames:
        """The frames at `indices`, in that order."""
        atoms, offsets = self.atoms(indices)
        return replace(
            self,
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            forces=self.forces[atoms],
            offsets=offsets,
            cells=self.cells[indices],
            energies=self.energies[indices],
            groups=self.groups[indices],
            properties={name: values[indices] for name, values in self.properties.items()},
            stresses=None if self.stresses is None else self.stresses[indices],
            pbc=self.pbc[indices],
        )

    def atoms(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The atoms of the frames at `indices`, in that order, and where each frame begins."""
        sizes = self.sizes[indices]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        return np.arange(offsets[-1]) + np.repeat(
            self.offsets[indices] - offsets[:-1], sizes
        ), offsets

    def content_hash(self) -> str:
        """SHA-256 over all arrays: equal data, equal hash, whatever made or stored them."""
        summed = hashlib.sha256()
        for name, array in self.arrays().items():
            summed.update(f"{name}{array.dtype.str}{array.shape}".encode())
            summed.update(array.reshape(-1).view(np.uint8))
        return summed.hexdigest()

    def save(self, folder: Path, *, there: bool = False) -> str:
        """Write one .npy per array, unless they are there, then `frames.json`: all is valid then.

        Returns:
            The content hash.
        """
        arrays = self.arrays()
        if not there:
            array_files.save_arrays(folder, arrays)
        header = {
            "content_hash": self.content_hash(),
            "frames": len(self),
            "units": {"length": "Å", "energy": "eV", "force": "eV/Å"}
            | ({} if self.stresses is None else {"stress": "eV/Å³"})
            | {name: PROPERTIES[name].unit for name in self.properties},
            "labels": self.labels,
            "origin": self.origin,
        } | array_files.described(folder, [f"{name}.npy" for name in arrays])
        write_json(folder / HEADER, header | {"digest": digest(header)})
        return str(header["content_hash"])

    @classmethod
    def load(cls, folder: Path, *, known: bool = False) -> Self:
        """Read a saved folder and verify every file of it.

        Args:
            folder: where `save` wrote.
            known: whether large files need not be read again while size and time of change stay.

        Raises:
            UserError: if the folder is missing, incomplete or damaged.
        """
        header = verified_header(folder, known=known)
        with readable(folder / HEADER, REMADE):
            frames = cls.of(load_arrays(folder, header), header["origin"])
            if header["origin"].get("sizes", {}).get("copies") == [[1, len(frames)]]:
                vars(frames)["first_copies"] = np.arange(len(frames))
            return frames

    @classmethod
    def of(cls, stored: Mapping[str, NDArray[Any]], origin: dict[str, Any]) -> Self:
        """The frames whose arrays these are, by the stems of their files."""
        own = {n.removeprefix(OWN): stored[n] for n in stored if n.startswith(OWN)}
        arrays = {name: stored[name] for name in (*ARRAYS, *OPTIONAL) if name in stored}
        return cls(**arrays, origin=origin, properties=own)

    def arrays(self) -> dict[str, Any]:
        """All arrays by the stems of their files; the optional ones if they say anything."""
        own = {f"{OWN}{name}": values for name, values in self.properties.items()}
        told: dict[str, Any] = {} if self.pbc.all() else {"pbc": self.pbc}
        told |= {} if self.stresses is None else {"stresses": self.stresses}
        return {name: getattr(self, name) for name in ARRAYS} | told | own
