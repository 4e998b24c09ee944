"""Shipped spaces of published data sets, on small files of the true formats."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from study import run
from study.datasets.frames import Frames
from study.datasets.prepare import prepare, sizes_of
from study.planning import plan_checks
from study.space.search_space import SHIPPED, load_space
from study.space.yaml_loader import read_yaml
from tests.spaces import FROM_FILES, arms, train, write_published

BY_FILE = [*FROM_FILES, "figure3", "figure4", "table1", "extended_epochs", "forcenet_stability"]
PROFILES = [
    (name, profile)
    for name in BY_FILE
    for profile in read_yaml(SHIPPED / f"{name}.yaml")["profiles"]
    if profile in ("quick", "paper") or name == "denoising_torchmd"
]


@pytest.fixture(scope="module")
def place(water: Frames, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all published files, which is the current one."""
    folder = tmp_path_factory.mktemp("published")
    write_published(water, folder)
    with chdir(folder):
        yield folder


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_published_files_are_found_where_fetch_puts_them(
    name: str,
    profile: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What stands in for them has too few frames to train on.
    monkeypatch.setattr(plan_checks, "SMALL_FILE", 0)
    before = sorted(place.rglob("*"))
    assert run.main(["--space", name, "--profile", profile, "--dry-run", "--json"]) == 0
    plan = next(
        line
        for line in map(json.loads, capsys.readouterr().out.splitlines())
        if line["event"] == "plan"
    )
    assert plan["trials"] == len(load_space(name, profile).grid())
    assert sorted(place.rglob("*")) == before


TRAINED = ["denoising_qm9", "nonequilibrium_iso17", "denoising_oc20"]
"""`python -m tests.spaces` trains all of them."""


@pytest.mark.parametrize("name", TRAINED)
def test_an_epoch_of_a_published_set_trains(name: str, place: Path) -> None:
    trial = next(arms(name))
    assert trial.pretraining is not None
    result = train(trial, place / "runs")
    errors = [result.metrics[f"test_{error}"] for error in trial.finetune.task.errors]
    assert result.status == "completed"
    assert all(map(math.isfinite, errors))


def test_only_the_set_that_is_tested_on_needs_a_published_split(place: Path) -> None:
    trial = next(arms("nonequilibrium_iso17"))
    iso17, ani1x = trial.datasets
    for dataset in (iso17, ani1x):
        prepare(dataset, place / "runs", 1, lambda _done, _total: None)
    sizes, others = (sizes_of(each, place / "runs") for each in (iso17, ani1x))
    assert others is not None
    trial.check_sizes(sizes, others)
    # A quarter tests, a quarter of the rest validates.
    assert others.shares(trial.split) == (7, 2, 3)
    with pytest.raises(ValueError, match="must have a published split"):
        trial.check_sizes(others, others)
