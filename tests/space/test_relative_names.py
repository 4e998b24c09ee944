"""Names of files in a space start at its folder, wherever it is run from."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core.atomic_io import append_json
from study.core.errors import UserError
from study.pipeline.job import Job
from study.planning.study_changes import require_same_datasets, require_same_study
from study.planning.study_dir import StudyDir
from study.space.search_space import Space, load_space
from study.space.yaml_loader import as_block
from tests.readme import example

DATA = "dataset: {name: ase_file, path: data/water.extxyz}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose space and code lie below it; it is the current one."""
    for name in ("spaces", "elsewhere", "spaces/data"):
        (tmp_path / name).mkdir()
    (tmp_path / "spaces/mine.py").write_text(example("mine.py"))
    space = example("mine.yaml").replace("dataset: {name: dimers, code: mine.py}", DATA)
    assert DATA in space
    (tmp_path / "spaces/mine.yaml").write_text(space)
    (tmp_path / "spaces/data/water.extxyz").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(place: str = "spaces/mine.yaml", *changes: tuple[list[str], object]) -> Space:
    return load_space(place, "quick", changes)


def test_a_space_means_the_same_from_every_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = loaded()
    dataset = here.samples[0].dataset.model_dump()
    assert dataset["path"] == str(project / "spaces/data/water.extxyz")
    assert here.samples[0].dataset.label == "spaces/data/water.extxyz"
    assert here.samples[0].model.model_dump()["code"] == str(project / "spaces/mine.py")
    monkeypatch.chdir(project / "elsewhere")
    there = loaded("../spaces/mine.yaml")
    assert there.resolved() == here.resolved()
    keys = [Job("trial", each.samples[0], "data", code="code").key for each in (here, there)]
    assert keys[0] == keys[1]


def test_a_file_beside_the_current_folder_alone_is_refused_with_its_name(project: Path) -> None:
    (project / "spaces/mine.py").rename(project / "mine.py")
    with pytest.raises(UserError) as refused:
        loaded()
    assert refused.value.problems[0] == (
        "spaces/mine.yaml:5: trial.model.code: mine.py is in the current folder, but names are "
        f"relative to the space's folder, {project / 'spaces'}; write ../mine.py, or move one of "
        "them"
    )


def test_names_of_the_command_line_start_at_the_current_folder(project: Path) -> None:
    (project / "elsewhere/other.py").write_text(example("mine.py"))
    model = as_block({"name": "pair", "code": "elsewhere/other.py", "hidden": 8})
    space = loaded("spaces/mine.yaml", (["trial", "model"], model))
    assert space.samples[0].model.model_dump()["code"] == "elsewhere/other.py"


def test_each_option_of_a_choice_is_beside_the_space(project: Path) -> None:
    space = project / "spaces/mine.yaml"
    paths = "path: {choice: [data/water.extxyz, ../ice.extxyz]}"
    space.write_text(space.read_text().replace("path: data/water.extxyz", paths))
    found = {trial.dataset.model_dump()["path"] for trial in loaded().samples}
    assert found == {str(project / "spaces/data/water.extxyz"), str(project / "ice.extxyz")}


def test_a_begun_study_goes_on_with_the_same_data_in_another_place_and_with_no_others(
    project: Path,
) -> None:
    study, name = StudyDir(project / "runs", "mine-quick"), "ase_file-0123"
    study.write(loaded(), "sqlite:///nowhere.db", {name: "content"})
    append_json(study.journal, {"event": "started"})
    (project / "spaces").rename(project / "moved")
    moved = loaded("moved/mine.yaml")
    require_same_study(study, moved)
    require_same_datasets(study, {name, "ase_file-more"})
    with pytest.raises(UserError, match=r"began with the data set ase_file-0123, .* mine-quick-2"):
        require_same_datasets(study, {"ase_file-other"})


def test_data_may_lie_elsewhere_and_nothing_else(project: Path) -> None:
    space, address = project / "spaces/mine.yaml", "s3://bucket/water.extxyz"
    space.write_text(space.read_text().replace("data/water.extxyz", address))
    assert loaded().samples[0].dataset.model_dump()["path"] == address
    assert loaded().samples[0].dataset.label == address
    space.write_text(space.read_text().replace("code: mine.py", "code: s3://bucket/mine.py", 1))
    with pytest.raises(UserError, match=r"trial\.model\.code: s3://bucket.*must be a path here"):
        loaded()
