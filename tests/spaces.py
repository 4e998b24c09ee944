"""Trains an epoch of the arms of every shipped space, on small files of the formats it reads.

`python -m tests.spaces [SPACE…]` writes the files, takes the quick profile of each space, and
trains one arm of every model and task for an epoch, pretraining first; 1 is the exit code unless
all end.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from study.core.records import JobResult
from study.datasets.config import DatasetConfig
from study.datasets.frames import Frames
from study.datasets.prepare import prepare
from study.pipeline.execute import run_job
from study.pipeline.outcome import load_outcome
from study.planning.prepared_data import DataSets
from study.space.search_space import SHIPPED, load_space
from study.space.trial import Trial
from tests import formats

FROM_FILES = sorted(
    path.stem for path in SHIPPED.glob("*.yaml") if "runs/downloads" in path.read_text()
)
"""Spaces of data sets that are downloaded to a path."""
RPBE = "input.data.RPBE_D3"


def write_published(frames: Frames, folder: Path) -> None:
    """Write the files that the shipped spaces read, where `study.data fetch` puts them."""
    downloads = folder / "runs/downloads"
    for name in ("qm9", "pcqm4mv2_xyz", "ani1x", "ani1/ANI-1_release", "spice", "iso17", "des15k"):
        (downloads / name).mkdir(parents=True)
    formats.write_n2p2(frames, downloads / f"{RPBE}.gz")
    (downloads / f"{RPBE}.gz").rename(downloads / RPBE)
    _write_qm9(frames, downloads / "qm9")
    formats.write_pcqm4mv2(frames, downloads / "pcqm4mv2_xyz/pcqm4m-v2_xyz")
    formats.write_ani1x(frames, downloads / "ani1x/ani1x-release.h5")
    formats.write_ani1(frames, downloads / "ani1/ANI-1_release/ani_gdb_s01.h5")
    formats.write_spice(frames, downloads / "spice/SPICE-2.0.1.hdf5")
    formats.write_iso17(frames, downloads / "iso17/iso17")
    formats.write_dimers(frames, downloads / "des15k/DES15K.csv")
    (downloads / "oc20_200k").mkdir()
    formats.write_oc20(frames, downloads / "oc20_200k/s2ef_train_200K")
    _write_md17(frames, downloads)


def _write_qm9(frames: Frames, folder: Path) -> None:
    formats.write_qm9(frames, folder / "files")
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        for file in sorted((folder / "files").iterdir()):
            archive.add(file, file.name)


def _write_md17(frames: Frames, downloads: Path) -> None:
    """One file for each molecule, by the names that the space gives."""
    formats.write_md17(frames, downloads / "md17")
    content = next((downloads / "md17").glob("*.npz")).read_bytes()
    spaces = ("nonequilibrium_md22", "masking_molecules")
    for trial in (trial for name in spaces for trial in load_space(name, "paper").samples):
        file = downloads.parent.parent / trial.dataset.model_dump()["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def shrunk(trial: Trial) -> Trial:
    """The trial for one epoch on a dozen frames."""
    value = trial.model_dump(mode="json")
    short: dict[str, Any] = {"epochs": 1, "frames": None, "batch_size": 3, "warmup": 0}
    short |= {"plateau": 0, "compile": False}
    value["finetune"] |= short
    if value["pretrain"] is not None:
        value["pretrain"] |= short
    by = "frame" if value["split"]["by"] == "trajectory" else value["split"]["by"]
    value["split"] = {"by": by, "test": 0.25, "validation": 0.25}
    if trial.dataset.name == "rpbe_water":
        value["dataset"]["path"] = f"runs/downloads/{RPBE}"
    if trial.dataset.name == "tip3p_water":
        value["dataset"] = {"name": "rpbe_water", "path": f"runs/downloads/{RPBE}"}
    return Trial.model_validate(value)


def train(trial: Trial, root: Path) -> JobResult:
    """Do both stages of a trial in this process, and return its result.

    Args:
        trial: what to train.
        root: folder of all work.
    """
    prepared: dict[DatasetConfig, Path] = {
        each: prepare(each, root, 1, lambda _done, _total: None) for each in trial.datasets
    }
    data = DataSets(prepared)
    work = data.work(trial)
    for part in filter(None, (work.pretraining, work)):
        for _ in run_job(part, root, data.folders[part.data_hash]):
            pass
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    return outcome.result


def arms(space: str, profile: str = "quick") -> Iterator[Trial]:
    """One trial for each model and task of a space, short; scratch is left out."""
    seen = set()
    for trial in load_space(space, profile).samples:
        if trial.pretraining is None:
            continue
        kind = (trial.model.name, trial.pretraining.task.name, trial.finetune.task.name)
        if kind not in seen:
            seen.add(kind)
            yield shrunk(trial)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the arms of all spaces, or of those that are named."""
    parser = argparse.ArgumentParser("python -m tests.spaces", description=__doc__)
    parser.add_argument("spaces", nargs="*", default=FROM_FILES, help="names of shipped spaces")
    options = parser.parse_args(arguments)
    from tests.conftest import CUBE, make_water

    failed = 0
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        write_published(make_water(CUBE, 12, seed=0), Path(folder))
        for name in options.spaces:
            for trial in arms(name):
                begun = time.monotonic()
                status = train(trial, Path("runs")).status
                failed += status != "completed"
                said = f"{name}: {trial.model.name}, {status}, {time.monotonic() - begun:.1f} s"
                sys.stdout.write(f"{said}\n")
                sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
