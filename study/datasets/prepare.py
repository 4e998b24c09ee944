"""Data sets by their settings, each of which names the module that makes it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.datasets import store
from study.datasets.parsing.header import read_header
from study.datasets.reading import Stored
from study.datasets.sizes import Sizes

if TYPE_CHECKING:
    from study.datasets.config import DatasetConfig


def folder_of(dataset: DatasetConfig, root: Path) -> Path:
    """Where the frames of a data set are, or will be.

    Raises:
        UserError: if it is a file that is not there.
    """
    folder: Path = _maker(dataset).folder_of(dataset, root)
    return folder


def prepare(
    dataset: DatasetConfig, root: Path, workers: int, progress: Callable[[int, int], None]
) -> Path:
    """Make sure that the frames are there.

    Args:
        dataset: which.
        root: folder of all work; data sets are in its `data`.
        workers: processes to use.
        progress: told how many pieces of how many are done.

    Returns:
        The folder, for `Frames.load`.

    Raises:
        UserError: if they cannot be made or read.
    """
    folder: Path = _maker(dataset).prepare(dataset, root, workers, progress)
    return folder


def sizes_of(dataset: DatasetConfig, root: Path) -> Sizes | None:
    """How much a data set holds; of a file, nothing before it is prepared."""
    if dataset.sizes is not None:
        return dataset.sizes
    folder = folder_of(dataset, root)
    return store.sizes_in(folder) if folder.exists() else None


def remark_on(dataset: DatasetConfig, root: Path) -> str:
    """What a file says of its labels; empty before it is prepared."""
    remarks = list(_origin(dataset, root).get("labels", []))
    sizes = sizes_of(dataset, root)
    return ", ".join(filter(None, [*remarks, sizes.partial_labels if sizes else ""]))


def warnings_on(dataset: DatasetConfig, root: Path) -> list[str]:
    """What looked wrong with a data set when it was prepared."""
    return list(_origin(dataset, root).get("warnings", []))


def candidates(dataset: DatasetConfig, root: Path) -> dict[str, list[str]]:
    """Columns of a file that may be labels that it lacks; none before it is prepared."""
    return dict(_origin(dataset, root).get("candidates", {}))


def import_command(dataset: DatasetConfig, root: Path) -> str:
    """The command that reads a file or folder before a study does."""
    if isinstance(dataset, Stored) and dataset.path:
        return dataset.import_command(root)
    return "python -m study.data import"


def seconds_to_make(dataset: DatasetConfig, root: Path, workers: int) -> float:
    """Expected time to make or read the data set on this machine; 0 if nobody knows."""
    return float(_maker(dataset).seconds_to_make(dataset, root, workers))


def _origin(dataset: DatasetConfig, root: Path) -> dict[str, Any]:
    folder = folder_of(dataset, root)
    origin: dict[str, Any] = read_header(folder)["origin"] if folder.exists() else {}
    return origin


def _maker(dataset: DatasetConfig) -> Any:
    return import_module(dataset.maker)
