"""Data sets by the name that a space gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.errors import UserError
from study.core.hashing import digest, without_places
from study.datasets import store
from study.datasets.frames import read_header
from study.datasets.sizes import Sizes
from study.datasets.sources import rpbe, tip3p

if TYPE_CHECKING:
    from study.datasets.config import DatasetConfig, RPBEWater, Stored

FOLDERS = (
    "deepmd_npy",
    "gamd_npz",
    "pcqm4mv2_xyz",
    "iso17_within",
    "iso17_other",
    "oc20_folder",
)
"""Data sets that are folders, by name; `EITHER` may be files as well."""

EITHER = ("ani1_hdf5", "md17_npz", "qm9_xyz")


def folder_of(dataset: DatasetConfig, root: Path) -> Path:
    """Where the frames of a data set are, or will be.

    Raises:
        UserError: if it is a file that is not there.
    """
    from study.datasets.config import OwnDataset

    if isinstance(dataset, OwnDataset):
        return root / "data" / f"{dataset.name}-{digest(_of_own(dataset))[:12]}"
    if dataset.name == "tip3p_water":
        return root / "data" / tip3p.folder_name(dataset)
    return store.folder_of(dataset.name, _file_of(dataset, root), root / "data")


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
    from study.datasets.config import OwnDataset

    if isinstance(dataset, OwnDataset):
        from study.core.user_code import typed
        from study.datasets.config import DataSet

        made = typed(dataset, DataSet, root)
        return store.store(folder_of(dataset, root), made.build, _of_own(dataset))
    if dataset.name == "tip3p_water":
        return tip3p.make(dataset, root / "data", workers, progress)
    published = dataset.name == "rpbe_water" and dataset.path is None
    check = rpbe.check if published else None
    return store.bring_in(dataset.name, _file_of(dataset, root), root / "data", check)


def sizes_of(dataset: DatasetConfig, root: Path) -> Sizes | None:
    """How much a data set holds; of a file, nothing before it is prepared."""
    if dataset.sizes is not None:
        return dataset.sizes
    folder = folder_of(dataset, root)
    return store.sizes_in(folder) if folder.exists() else None


def remark_on(dataset: DatasetConfig, root: Path) -> str:
    """What a file says of its labels; empty before it is prepared."""
    folder = folder_of(dataset, root)
    if not folder.exists():
        return ""
    remarks = list(read_header(folder)["origin"].get("labels", []))
    return ", ".join(filter(None, [*remarks, store.sizes_in(folder).partial_labels]))


def seconds_to_make(dataset: DatasetConfig, root: Path, workers: int) -> float:
    """Expected time to make or read the data set on this machine; 0 if nobody knows."""
    from study.datasets.config import OwnDataset

    if isinstance(dataset, OwnDataset):
        return 0.0
    if dataset.name == "tip3p_water":
        return tip3p.seconds_to_make(dataset, workers)
    return store.seconds_to_read(_file_of(dataset, root))


def _of_own(dataset: DatasetConfig) -> dict[str, Any]:
    """All that decides the frames of a data set of the user's own."""
    settings: dict[str, Any] = without_places(dataset.model_dump(mode="json"))
    return settings


def _file_of(dataset: RPBEWater | Stored, root: Path) -> Path:
    if dataset.path is None:
        file = rpbe.file_of(root)
        way_out = f"fetch it with `python -m study.data fetch rpbe --out {root}`, or set"
    else:
        file = Path(dataset.path).expanduser()
        way_out = "a relative path starts at the current folder; correct"
    folder = file.is_dir() and dataset.name in FOLDERS + EITHER
    if not folder and not (file.is_file() and dataset.name not in FOLDERS):
        kind = "folder" if dataset.name in FOLDERS else "file"
        raise UserError(f"{file.absolute()}: no such {kind}; {way_out} `dataset.path`")
    return file
