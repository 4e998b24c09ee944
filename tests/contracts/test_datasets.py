"""What every data set promises, once its settings are in `study.space.trial.Dataset`.

A new data set needs nothing here but an example of its settings.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from study.core.config import shipped
from study.core.errors import UserError
from study.datasets.config import AnyDataset, DatasetConfig, RPBEWater, TIP3PWater
from study.datasets.frames import Frames
from study.datasets.parsing.header import read_header
from study.datasets.prepare import folder_of, prepare, remark_on, seconds_to_make, sizes_of
from study.datasets.readers.ase_file import write
from study.datasets.readers.detect import settings_of
from study.datasets.split_config import Split
from study.datasets.splits import sizes_of as counted
from study.datasets.splits import split
from study.datasets.validation import check
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.space.trial import Trial
from tests.formats import (
    write_ani1,
    write_ani1x,
    write_deepmd,
    write_dimers,
    write_extxyz,
    write_gamd,
    write_iso17,
    write_md17,
    write_n2p2,
    write_oc20,
    write_pcqm4mv2,
    write_qm9,
    write_sdf,
    write_spice,
)

NAMES = [*shipped(DatasetConfig)]


@pytest.fixture(scope="module")
def examples(water: Frames, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Small settings of every data set; the files hold 12 frames of 8 molecules in 4 groups."""
    folder = tmp_path_factory.mktemp("files")
    write_n2p2(water, folder / "input.data.gz")
    write_extxyz(water, folder / "water.extxyz")
    write_deepmd(water, folder / "deepmd")
    write_gamd(water, folder / "gamd")
    write_md17(water, folder / "md17")
    write_ani1x(water, folder / "ani1x.h5")
    write_spice(water, folder / "spice.h5")
    write_ani1(water, folder / "ani1.h5")
    write_qm9(water, folder / "qm9")
    write_sdf(water, folder / "gdb9.sdf")
    write_pcqm4mv2(water, folder / "pcqm4mv2" / "pcqm4m-v2_xyz")
    write_dimers(water, folder / "DES15K.csv")
    write_iso17(water, folder / "iso17")
    write_oc20(water, folder / "oc20")
    return {
        "tip3p_water": {"molecules": 8, "trajectories": 4, "frames": 3},
        "rpbe_water": {"path": str(folder / "input.data.gz")},
        "n2p2_file": {"path": str(folder / "input.data.gz")},
        "ase_file": {"path": str(folder / "water.extxyz")},
        "deepmd_npy": {"path": str(folder / "deepmd")},
        "gamd_npz": {"path": str(folder / "gamd")},
        "md17_npz": {"path": str(folder / "md17")},
        "ani1x_hdf5": {"path": str(folder / "ani1x.h5")},
        "spice_hdf5": {"path": str(folder / "spice.h5")},
        "ani1_hdf5": {"path": str(folder / "ani1.h5")},
        "qm9_xyz": {"path": str(folder / "qm9")},
        "sdf_file": {"path": str(folder / "gdb9.sdf")},
        "pcqm4mv2_xyz": {"path": str(folder / "pcqm4mv2" / "pcqm4m-v2_xyz")},
        "dimers_csv": {"path": str(folder / "DES15K.csv")},
        "iso17_within": {"path": str(folder / "iso17")},
        "iso17_other": {"path": str(folder / "iso17")},
        "oc20_folder": {"path": str(folder / "oc20")},
    }


ENERGY_OF = {
    "ani1_hdf5": "energy",
    "qm9_xyz": "u0",
    "sdf_file": "u0",
    "pcqm4mv2_xyz": "gap",
    "dimers_csv": "interaction_energy",
}
"""What sets without forces are labelled with, which is the energy of the frames here."""

GROUPS = {
    "qm9_xyz": 12,
    "sdf_file": 12,
    "pcqm4mv2_xyz": 12,
    "iso17_within": 4.8,
    "iso17_other": 4.8,
}
"""Sets that do not keep the four groups: of ISO17 seven of twelve frames train."""


def settings_for(dataset: DatasetConfig) -> dict[str, Any]:
    """Of a tiny trial on the set."""
    settings: dict[str, Any] = {"dataset": dataset.model_dump()}
    if dataset.name in ENERGY_OF:
        settings["finetune__task"] = {"name": "scalar", "target": ENERGY_OF[dataset.name]}
    if dataset.name.startswith("iso17"):
        settings["split"] = {"by": "published"}
    return settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", params=NAMES)
def dataset(request: pytest.FixtureRequest, examples: dict[str, dict[str, Any]]) -> DatasetConfig:
    assert request.param in examples, "give the new data set an example"
    settings = {"name": request.param, **examples[request.param]}
    parsed: DatasetConfig = TypeAdapter(AnyDataset).validate_python(settings)
    return parsed


@pytest.fixture(scope="module")
def folder(dataset: DatasetConfig, root: Path) -> Path:
    """Where it was prepared, for the first time."""
    assert not folder_of(dataset, root).exists()
    assert seconds_to_make(dataset, root, 2) > 0
    return prepare(dataset, root, 2, lambda _done, _total: None)


def test_it_has_a_label_and_is_found_where_it_was_announced(
    dataset: DatasetConfig, folder: Path, root: Path
) -> None:
    assert dataset.label
    assert folder == folder_of(dataset, root)
    assert folder.name.startswith(f"{dataset.name}-")


def test_its_frames_are_sane_and_counted(dataset: DatasetConfig, folder: Path, root: Path) -> None:
    frames = Frames.load(folder)
    check(frames, folder)
    expected = counted(frames)
    known = sizes_of(dataset, root)
    assert known is not None
    assert (known.groups, known.copies, known.waters) == (
        expected.groups,
        expected.copies,
        expected.waters,
    )
    assert known.atoms == pytest.approx(expected.atoms)
    assert known.density == pytest.approx(expected.density, rel=1e-3)
    assert isinstance(remark_on(dataset, root), str)


def test_its_labels_are_in_our_units(dataset: DatasetConfig, folder: Path, water: Frames) -> None:
    if dataset.name == "tip3p_water":
        pytest.skip("it makes its own")
    frames = Frames.load(folder)
    assert frames.numbers.tolist() == water.numbers.tolist()
    np.testing.assert_allclose(frames.positions, water.positions, atol=1e-5)
    energies = (
        frames.energies if "energy" in frames.labels else frames.properties[ENERGY_OF[dataset.name]]
    )
    np.testing.assert_allclose(energies, water.energies, atol=1e-6)
    if "forces" in frames.labels:
        np.testing.assert_allclose(frames.forces, water.forces, atol=1e-6)
    assert ("forces" in frames.labels) == (dataset.name not in ENERGY_OF)


def test_a_file_of_its_kind_is_recognised(dataset: DatasetConfig, root: Path) -> None:
    if isinstance(dataset, TIP3PWater | RPBEWater):
        pytest.skip("it is made or fetched by its name")
    del root
    found = settings_of(Path(dataset.path))["name"]
    assert found == dataset.name.replace("iso17_within", "iso17_other")


def test_it_tells_where_it_comes_from(folder: Path) -> None:
    assert read_header(folder)["origin"]


def test_it_is_not_made_twice(dataset: DatasetConfig, folder: Path, root: Path) -> None:
    before = (folder / "frames.json").stat().st_mtime_ns
    assert prepare(dataset, root, 2, lambda _done, _total: None) == folder
    assert (folder / "frames.json").stat().st_mtime_ns == before
    left_over = [path.name for path in folder.parent.iterdir() if path.suffix == ".partial"]
    assert left_over == []


def test_made_elsewhere_it_has_the_same_content(
    dataset: DatasetConfig, folder: Path, tmp_path: Path
) -> None:
    if dataset.name == "tip3p_water":
        pytest.skip("test_tip3p shows it, and simulating takes long")
    again = prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    assert read_header(again)["content_hash"] == read_header(folder)["content_hash"]


def test_a_split_by_trajectory_keeps_its_groups_whole(dataset: DatasetConfig, folder: Path) -> None:
    frames = Frames.load(folder)
    if dataset.name.startswith("iso17"):
        # Its files do not tell molecules apart, but come with a split.
        with pytest.raises(UserError, match="every part needs a frame"):
            split(frames, Split(), 0)
        splits = split(frames, Split(by="published"), 0)
        assert sorted(splits.validation.tolist()) == [1, 4]
        assert sorted(splits.test.tolist()) == [9, 10, 11]
        return
    splits = split(frames, Split(), 0)
    groups = [set(frames.groups[part]) for part in (splits.train, splits.validation, splits.test)]
    count = GROUPS.get(dataset.name, 4)
    assert [len(group) for group in groups] == [count - 2, 1, 1]
    assert len(set().union(*groups)) == count


def test_a_trial_too_large_for_it_is_refused(
    dataset: DatasetConfig, folder: Path, root: Path, tiny: Callable[..., Trial]
) -> None:
    del folder
    sizes = sizes_of(dataset, root)
    assert sizes is not None
    most = round(12 - 24 / GROUPS.get(dataset.name, 4))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"finetune__frames": most + 1}, f"finetune.frames.* <= {most}"),
        ({"pretrain__task__masking_ratio": 0.1}, "masking_ratio"),
    ]
    if not dataset.name.startswith("iso17"):
        parts = {"by": "trajectory", "test": 0.97, "validation": 0.4}
        changes.append(({"split": parts}, "to train on"))
    tiny(**settings_for(dataset), finetune__frames=most).check_sizes(sizes)
    for change, rule in changes:
        with pytest.raises(ValueError, match=rule):
            tiny(**settings_for(dataset) | change).check_sizes(sizes)


def test_a_trial_trains_on_it(
    dataset: DatasetConfig, folder: Path, tiny: Callable[..., Trial], tmp_path: Path
) -> None:
    trial = tiny(**settings_for(dataset))
    work = Job("trial", trial, read_header(folder)["content_hash"])
    assert work.pretraining is not None
    for piece in (work.pretraining, work):
        records = list(run_job(piece, tmp_path, folder))
        assert all(np.isfinite(list(record.metrics.values())).all() for record in records)
    outcome = load_outcome(work.folder(tmp_path))
    assert outcome is not None
    assert outcome.result.status == "completed"
    assert Job.from_json(work.to_json()).key == work.key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tip3p_water"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    dataset: DatasetConfig = TypeAdapter(AnyDataset).validate_python(
        {"name": name, "path": "not/here"}
    )
    with pytest.raises(UserError, match=r"not/here: no such f.*`dataset\.path`"):
        folder_of(dataset, tmp_path)


def test_rpbe_water_that_was_never_fetched_says_how_to(tmp_path: Path) -> None:
    dataset: DatasetConfig = TypeAdapter(AnyDataset).validate_python({"name": "rpbe_water"})
    with pytest.raises(UserError, match=r"python -m study\.data fetch rpbe --out"):
        prepare(dataset, tmp_path, 1, lambda _done, _total: None)


def test_charges_that_no_model_sees_reach_the_plan(water: Frames, tmp_path: Path) -> None:
    for charge, remark in ((0.0, ""), (1.0, "charges that no model sees")):
        charges = np.where(np.arange(len(water)) == 3, charge, 0.0)
        path = tmp_path / f"{charge}.extxyz"
        write(replace(water, properties={"charge": charges}), path)
        dataset: DatasetConfig = TypeAdapter(AnyDataset).validate_python(
            {"name": "ase_file", "path": str(path)}
        )
        prepare(dataset, tmp_path, 1, lambda _done, _total: None)
        assert remark_on(dataset, tmp_path) == remark


def test_labels_that_a_file_declares_reach_the_plan(water: Frames, tmp_path: Path) -> None:
    path = tmp_path / "input.data.gz"
    write_n2p2(water, path)
    text = gzip.decompress(path.read_bytes()).decode().replace(" src=", " labels=a network src=")
    path.write_bytes(gzip.compress(text.replace("labels=a network src=0", "src=0").encode()))
    dataset: DatasetConfig = TypeAdapter(AnyDataset).validate_python(
        {"name": "n2p2_file", "path": str(path)}
    )
    assert remark_on(dataset, tmp_path) == ""
    prepare(dataset, tmp_path, 1, lambda _done, _total: None)
    assert remark_on(dataset, tmp_path).startswith("a network")
