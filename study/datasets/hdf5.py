"""Frames from ANI-1x and SPICE: HDF5 files with a group of arrays for each formula or molecule.

ANI-1x (doi:10.1038/s41597-020-0473-z) has Å, Hartree and Hartree/Å, and NaN where a conformer was
not computed; SPICE (arXiv:2209.10702) has Bohr, Hartree and gradients in Hartree/Bohr.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.datasets.conformers import Conformers, joined
from study.errors import UserError
from study.frames import Frames
from study.units import BOHR, HARTREE, HARTREE_PER_BOHR


@dataclass(frozen=True)
class Layout:
    """Names of the arrays of a group, and the unit of each.

    Args:
        positions: name and Å.
        energies: name and eV.
        forces: name and eV/Å; negative for gradients.
    """

    positions: tuple[str, float]
    energies: tuple[str, float]
    forces: tuple[str, float]


ANI1X = Layout(("coordinates", 1.0), ("wb97x_dz.energy", HARTREE), ("wb97x_dz.forces", HARTREE))
SPICE = Layout(
    ("conformations", BOHR),
    ("dft_total_energy", HARTREE),
    ("dft_total_gradient", -HARTREE_PER_BOHR),
)


def read(layout: Layout, path: Path) -> Frames:
    """All conformers with energy and forces.

    Raises:
        UserError: one line that names file, group and rule.
    """
    with _opened(path) as file:
        return joined(list(_conformers(layout, path, file)), path)


def kind_of(path: Path) -> str:
    """Name of the data set that a file is, by the arrays of its first group.

    Raises:
        UserError: if it is neither.
    """
    with _opened(path) as file:
        arrays = set(next(iter(file.values()), ()))
    for name, layout in (("ani1x_hdf5", ANI1X), ("spice_hdf5", SPICE)):
        if {layout.positions[0], layout.energies[0], layout.forces[0]} <= arrays:
            return name
    raise UserError(
        f"{path}: must be ANI-1x or SPICE, but its first group has "
        f"{', '.join(sorted(arrays)) or 'nothing'}"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        h5py = import_module("h5py")
    except ImportError as problem:
        raise UserError(f"{path}: is read with h5py ({problem}); pip install h5py") from None
    try:
        file = h5py.File(path)
    except OSError as problem:
        raise UserError(f"{path}: is no HDF5 file ({problem})") from None
    with file:
        yield file


def _conformers(layout: Layout, path: Path, file: Any) -> Iterator[Conformers]:
    for name, group in file.items():
        try:
            numbers = group["atomic_numbers"][()].astype(np.int64)
            positions, energies, forces = (
                unit * group[key][()].astype(np.float64)
                for key, unit in (layout.positions, layout.energies, layout.forces)
            )
            known = _finite(energies) & _finite(forces)
            yield Conformers(numbers, positions[known], energies[known], forces[known])
        except KeyError as problem:
            raise UserError(f"{path}: group {name}: {problem.args[0]}") from None
        except (ValueError, IndexError) as problem:
            raise UserError(f"{path}: group {name}: {problem}") from None


def _finite(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F,) whether all numbers of a conformer are known."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


read_ani1x = partial(read, ANI1X)
read_spice = partial(read, SPICE)
