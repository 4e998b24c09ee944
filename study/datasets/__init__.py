"""Data sets by the name that a space gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.datasets import imported, rpbe, tip3p
from study.errors import UserError
from study.frames import read_header
from study.identity import digest, without_places
from study.sizes import Sizes

if TYPE_CHECKING:
    from study.trial import Dataset, RPBEWater, Stored

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


def folder_of(dataset: Dataset, root: Path) -> Path:
    """Where the frames of a data set are, or will be.

    Raises:
        UserError: if it is a file that is not there.
    """
    from study.dataset_settings import OwnDataset

    if isinstance(dataset, OwnDataset):
        return root / "data" / f"{dataset.name}-{digest(_of_own(dataset))[:12]}"
    if dataset.name == "tip3p_water":
        return root / "data" / tip3p.folder_name(dataset)
    return imported.folder_of(dataset.name, _file_of(dataset, root), root / "data")


def prepare(
    dataset: Dataset, root: Path, workers: int, progress: Callable[[int, int], None]
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
    from study.dataset_settings import OwnDataset

    if isinstance(dataset, OwnDataset):
        from study.own import DataSet
        from study.own_settings import typed

        made = typed(dataset, DataSet, root)
        return imported.store(folder_of(dataset, root), made.build, _of_own(dataset))
    if dataset.name == "tip3p_water":
        return tip3p.make(dataset, root / "data", workers, progress)
    published = dataset.name == "rpbe_water" and dataset.path is None
    check = rpbe.check if published else None
    return imported.bring_in(dataset.name, _file_of(dataset, root), root / "data", check)


def sizes_of(dataset: Dataset, root: Path) -> Sizes | None:
    """How much a data set holds; of a file, nothing before it is prepared."""
    if dataset.sizes is not None:
        return dataset.sizes
    folder = folder_of(dataset, root)
    return imported.sizes_in(folder) if folder.exists() else None


def remark_on(dataset: Dataset, root: Path) -> str:
    """What a file says of its labels; empty before it is prepared."""
    folder = folder_of(dataset, root)
    origin = read_header(folder)["origin"] if folder.exists() else {}
    return ", ".join(origin.get("labels", []))


def seconds_to_make(dataset: Dataset, root: Path, workers: int) -> float:
    """Expected time to make or read the data set on this machine; 0 if nobody knows."""
    from study.dataset_settings import OwnDataset

    if isinstance(dataset, OwnDataset):
        return 0.0
    if dataset.name == "tip3p_water":
        return tip3p.seconds_to_make(dataset, workers)
    return imported.seconds_to_read(_file_of(dataset, root))


def _of_own(dataset: Dataset) -> dict[str, Any]:
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
