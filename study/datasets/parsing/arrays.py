"""Arrays of npy and npz files, with bounds on what is unpacked, and rules for what they hold."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import UserError
from study.datasets.parsing.guard import guarded, require_filled
from study.datasets.parsing.text import MOST_UNPACKED, SMALL

Array = NDArray[np.float64]

ODD = np.uint64(0x9E3779B97F4A7C15)
"""Multiplying by it mixes the bits of a number (doi:10.1145/2660193.2660195)."""
ROWS_AT_ONCE = 20_000
"""Rows that fit into the cache of a processor with what is computed of them."""


@contextmanager
def opened_npz(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of an npz file by name.

    Raises:
        UserError: if it is none, or unpacks to far more than it is.
    """
    with guarded(path):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path}: is no npz file, or was cut off")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(SMALL, MOST_UNPACKED * path.stat().st_size):
            raise UserError(
                f"{path}: unpacks to more than {MOST_UNPACKED} times its size, as no data set does"
            )
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays


def load_npy(path: Path) -> NDArray[Any]:
    """The array of an npy file.

    Raises:
        UserError: if it is none, or shorter than it says.
    """
    with guarded(path, "must be there and be an array"):
        require_filled(path)
        # A map does not ask for the memory that a damaged header claims.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        return np.array(array)


def real(values: Any, name: str) -> Array:
    """Numbers as float64.

    Raises:
        ValueError: if they are complex, text or anything else.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must have real numbers, but its type is {array.dtype}")
    return array.astype(np.float64)


def finite(values: Array, name: str, frames: int) -> Array:
    """Labels that a file has, none of which may be infinite or no number.

    Raises:
        ValueError: naming the first frame that breaks it.
    """
    broken = ~np.isfinite(values.reshape(frames, -1)).all(axis=1)
    if broken.any():
        raise ValueError(
            f"frame {int(broken.argmax())} (from 0) must have a finite `{name}`, but has "
            f"{_first_strange(values.reshape(frames, -1)[broken.argmax()])}; leave out frames that "
            f"have none; {int(broken.sum())} of {frames} are so"
        )
    return values


def _first_strange(row: Array) -> str:
    return f"{row[~np.isfinite(row)][0]}"


def checked_numbers(values: Any) -> NDArray[np.uint8]:
    """Atomic numbers as they are stored, whatever type a file has them in.

    Raises:
        ValueError: naming the first that is not whole or not from 1 to 118.
    """
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"atomic numbers must be numbers, but their type is {numbers.dtype}")
    good = (numbers >= 1) & (numbers <= 118)
    if numbers.dtype.kind == "f":
        good &= numbers == np.floor(numbers)
    if not good.all():
        place = int((~good).ravel().argmax())
        raise ValueError(
            f"atomic numbers must be whole, 1 to 118, but atom {place} (from 0) has "
            f"{numbers.ravel()[place]:g}"
        )
    return numbers.astype(np.uint8, copy=False)


def ragged_hashes(values: Array, offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number of the bits of each group of rows: equal for equal groups, rarely for others.

    Args:
        values: (rows, 3).
        offsets: (groups + 1,) first row of each group, none empty, then the number of all rows.
    """
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for some in np.array_split(np.arange(len(hashes)), 1 + len(values) // ROWS_AT_ONCE):
        bounds = offsets[some[0] : some[-1] + 2] if len(some) else offsets[:1]
        place = np.arange(bounds[0], bounds[-1]) - np.repeat(bounds[:-1], np.diff(bounds))
        columns = (3 * place[:, np.newaxis] + np.arange(1, 4)).astype(np.uint64)
        bits = values[bounds[0] : bounds[-1]].view(np.uint64) + columns * ODD
        bits = (bits ^ (bits >> np.uint64(31))) * ODD
        bits = (bits ^ (bits >> np.uint64(29))) * ODD
        hashes[some] = np.add.reduceat(bits.sum(axis=1), bounds[:-1] - bounds[0])
    return hashes


def repeated(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values occur more than once."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    found = np.zeros(len(values), np.bool_)
    found[order[1:][same]] = found[order[:-1][same]] = True
    return found
