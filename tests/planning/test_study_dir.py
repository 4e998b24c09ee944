"""A finished study takes more seeds, choices, epochs and proposals, and no other change."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core import provenance
from study.core.atomic_io import append_json
from study.core.errors import UserError
from study.pipeline.job import Job
from study.planning import study_dir
from study.planning.study_changes import (
    environment_changes,
    require_same_data,
    require_same_study,
)
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.search_space import Space, load_space

GRID = """\
question: Which ratio?
seeds: [0, 1]
trial:
  dataset: {name: tip3p_water, molecules: 32, trajectories: 10, frames: 100}
  model: {name: egnn, hidden: 32, layers: 3, cutoff: 3.4}
  pretrain:
    task: {name: masking, masking_ratio: {choice: [0.25, 0.5]}}
    epochs: 5
    schedule_epochs: 25
    batch_size: 8
  finetune:
    task: {name: energy_forces}
    epochs: 20
    batch_size: 2
profiles:
  quick:
"""
SEARCH = GRID.replace("trial:", "search: {trials: 4}\ntrial:", 1)


def space_of(folder: Path, text: str) -> Space:
    path = folder / "space.yaml"
    path.write_text(text)
    return load_space(str(path), "quick")


def keys(space: Space) -> list[str]:
    return [Job("trial", trial, "data").key for trial in space.grid()]


def test_another_environment_is_a_line_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, space = began(tmp_path, GRID), space_of(tmp_path, GRID)
    assert environment_changes(study, space) == []
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setitem(provenance.packages(), "vesin", "0.0.1")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    more = space_of(tmp_path, f"resources: {{cpus: 3}}\n{GRID}")
    lines = environment_changes(study, more)
    assert {line.partition(" is ")[0] for line in lines} == {"threads", "vesin", "MKL_CBWR"}
    assert "MKL_CBWR is COMPATIBLE now and was not set when the study last ran" in " ".join(lines)
    require_same_study(study, more)
    study.write(more, "sqlite:///nowhere.db", {})
    assert environment_changes(study, more) == []


def test_a_models_own_packages_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = GRID.replace("{name: egnn, hidden: 32, layers: 3,", "{name: mace, hidden: 16,")
    versions = {"mace-torch": "0.3.14", "e3nn": "0.4.4"}
    monkeypatch.setattr(study_dir, "installed", versions.__getitem__)
    study, space = began(tmp_path, text), space_of(tmp_path, text)
    assert environment_changes(study, space) == []
    versions.update({"mace-torch": "0.3.15", "e3nn": "0.5.0"})
    told = " when the study last ran; "
    assert sorted(environment_changes(study, space)) == [
        f"e3nn is 0.5.0 now and was 0.4.4{told}numbers may differ in rounding or more",
        f"mace-torch is 0.3.15 now and was 0.3.14{told}trials of mace begin anew",
    ]
    (tmp_path / "plain").mkdir()
    plain = began(tmp_path / "plain", GRID)
    assert "e3nn" not in (plain.read() or {})["environment"]


def began(folder: Path, text: str) -> StudyDir:
    study = StudyDir(folder / "runs", "name")
    study.write(space_of(folder, text), "sqlite:///nowhere.db", {})
    append_json(study.journal, {"event": "started"})
    return study


@pytest.mark.parametrize(
    ("old", "new", "trials", "pretrainings"),
    [
        ("[0, 1]", "[0, 1, 5]", 9, 6),
        ("[0.25, 0.5]", "[0.75, 0.25, 0.5]", 8, 6),
        ("    epochs: 20", "    epochs: {choice: [20, 30]}", 12, 4),
        # A longer pretraining goes on where the shorter one ended.
        ("    epochs: 5", "    epochs: {choice: [5, 25]}", 10, 4),
        ("cutoff: 3.4}", "cutoff: {choice: [3.4, 4.5]}}", 12, 8),
    ],
)
def test_a_grid_is_extended_and_keeps_all_that_it_had(
    tmp_path: Path, old: str, new: str, trials: int, pretrainings: int
) -> None:
    study = began(tmp_path, GRID)
    before = keys(space_of(tmp_path, GRID))
    assert len(before) == 6
    assert old in GRID
    longer = space_of(tmp_path, GRID.replace(old, new))
    require_same_study(study, longer)
    after = keys(longer)
    assert set(before) <= set(after)
    assert len(after) == trials
    works = [Job("trial", trial, "data").pretraining for trial in longer.grid()]
    assert len({work.full_schedule.key for work in works if work}) == pretrainings


@pytest.mark.parametrize(
    ("text", "old", "new", "named"),
    [
        (GRID, "epochs: 20", "epochs: 30", "trial.finetune.epochs was 20"),
        (GRID, "epochs: 20", "epochs: {choice: [25, 30]}", "trial.finetune.epochs was 20"),
        (GRID, "[0.25, 0.5]", "[0.25, 0.75]", "masking_ratio.choice was [0.25, 0.5]"),
        (GRID, "[0, 1]", "[1, 0]", "seeds was [0, 1]"),
        (GRID, "[0, 1]", "[0]", "seeds was [0, 1]"),
        (GRID, "frames: 100", "frames: 200", "trial.dataset.frames was 100"),
        (SEARCH, "trials: 4}", "trials: 3}", "search.trials was 4"),
        (SEARCH, "epochs: 20", "epochs: {choice: [20, 30]}", "trial.finetune.epochs was 20"),
    ],
)
def test_another_change_is_refused_naming_it(
    tmp_path: Path, text: str, old: str, new: str, named: str
) -> None:
    study = began(tmp_path, text)
    assert old in text
    changed = space_of(tmp_path, text.replace(old, new))
    with pytest.raises(UserError) as refused:
        require_same_study(study, changed)
    assert any(named in problem for problem in refused.value.problems)
    assert all("--name name-2" in problem for problem in refused.value.problems)


def test_a_search_takes_more_proposals(tmp_path: Path) -> None:
    study = began(tmp_path, SEARCH)
    require_same_study(study, space_of(tmp_path, SEARCH.replace("trials: 4}", "trials: 9}")))


def test_a_study_in_which_no_work_has_begun_takes_any_change_and_stays_itself(
    tmp_path: Path,
) -> None:
    study, first = StudyDir(tmp_path / "runs", "name"), space_of(tmp_path, GRID)
    uri = "sqlite:///nowhere.db"
    identity = study.write(first, uri, {"old-set": "0"})
    (trial, *_) = first.grid()
    Journal(study.journal, "val_force_rmse").planned(Planned(0, Job("trial", trial, "0")))
    changed = space_of(tmp_path, GRID.replace("frames: 100", "frames: 50"))
    require_same_study(study, changed)
    require_same_data(study, {"old-set": "1"})
    assert study.write(changed, uri, {}) == identity
    assert study.recorded_space().resolved() == changed.resolved()
    assert Journal(study.journal, "val_force_rmse").entries() == {}

    Journal(study.journal, "val_force_rmse").started(Job("trial", trial, "0"), 0)
    with pytest.raises(UserError, match="frames was 50 when this study began"):
        require_same_study(study, first)
