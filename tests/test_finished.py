"""Finetuning starts from weights that earlier work has left, known by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from study import run
from study.durable import read_hashed
from study.errors import UserError
from study.identity import digest
from study.pipeline import perform
from study.space import Space, load_space
from study.study_folder import StudyFolder
from study.trial import Trial
from study.work import Work, load_outcome
from tests.conftest import SMALL_SPACE

PRETRAIN = """\
  pretrain:
    task: {name: masking, masking_ratio: 0.5}
    epochs: 2
    batch_size: 2
"""


def space_from(place: Path, pretrain: str) -> Space:
    """The space of the small study with another first stage."""
    assert SMALL_SPACE.count(PRETRAIN) == 1
    path = place / "started.yaml"
    path.write_text(SMALL_SPACE.replace(PRETRAIN, f"  pretrain: {pretrain}\n"))
    return load_space(str(path), "quick")


def pretrained(study: StudyFolder) -> Work:
    """Its pretraining with seed 0."""
    trial = next(t for t in study.recorded_space().grid() if t.pretrain is not None)
    hashed = json.loads((study.path / "study.json").read_text())["data"]["water"]
    return Work("trial", trial, hashed)


@pytest.fixture
def folder(small_study: StudyFolder, tmp_path: Path) -> Path:
    """A copy of a finished pretraining's folder, elsewhere."""
    work = pretrained(small_study).pretraining
    assert work is not None
    return Path(shutil.copytree(work.folder(small_study.root), tmp_path / "elsewhere"))


def started(space: Space, seed: int = 0) -> Trial:
    return next(t for t in space.grid() if t.pretrain is not None and t.seed == seed)


def weights(work: Work, root: Path) -> bytes:
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    assert outcome.weights is not None
    return read_hashed(outcome.weights)


def test_finetuning_is_bitwise_that_after_the_pretraining_itself(
    small_study: StudyFolder, folder: Path, tmp_path: Path
) -> None:
    own, water = pretrained(small_study), small_study.root / "data" / "water"
    assert own.pretraining is not None
    trial = started(space_from(tmp_path, f"{{from: {folder}}}"))
    work = Work.from_json(Work("trial", trial, own.data_hash).to_json())
    before = work.pretraining
    assert before is not None
    root = tmp_path / "runs"
    assert list(perform(before, root, water)) == []
    assert weights(before, root) == weights(own.pretraining, small_study.root)
    shutil.rmtree(folder)  # It is in the store now.
    list(perform(before, root, water))
    list(perform(work, root, water))
    assert weights(work, root) == weights(own, small_study.root)
    assert work.key != own.key


def test_all_seeds_start_from_one_import_whose_place_does_not_name_it(
    folder: Path, tmp_path: Path
) -> None:
    space = space_from(tmp_path, f"{{from: {folder}}}")
    one, two = (Work("trial", started(space, seed), f"data {seed}") for seed in (0, 1))
    moved = space_from(tmp_path, f"{{from: {folder.rename(tmp_path / 'moved')}}}")
    three = Work("trial", started(moved), "data 0")
    assert one.pretraining is not None
    assert two.pretraining is not None
    assert one.pretraining.key == two.pretraining.key
    assert three.key == one.key != two.key


def other_weights(folder: Path, small_study: StudyFolder) -> None:
    """Put another finished work in the folder's place."""
    work = pretrained(small_study)
    shutil.rmtree(folder)
    shutil.copytree(work.folder(small_study.root), folder)
    # As if it had been pretrained, and not finetuned on the labels of the same data.
    path = folder / "result.json"
    value = json.loads(path.read_text())
    del value["digest"], value["settings"]["finetune"]
    path.write_text(json.dumps(value | {"digest": digest(value)}))


def test_other_content_of_the_folder_is_other_work_and_no_continuation(
    small_study: StudyFolder, folder: Path, tmp_path: Path
) -> None:
    space = space_from(tmp_path, f"{{from: {folder}}}")
    study = StudyFolder(tmp_path / "runs", "started-quick")
    study.write(space, "sqlite:///nowhere.db", {})
    study.check(space)
    before = Work("trial", started(space), "data")
    assert before.pretraining is not None
    other_weights(folder, small_study)
    changed = space_from(tmp_path, f"{{from: {folder}}}")
    with pytest.raises(UserError, match=r"trial\.pretrain\.sha256 was .*--name started-quick-2"):
        study.check(changed)
    assert Work("trial", started(changed), "data").key != before.key
    water = small_study.root / "data" / "water"
    with pytest.raises(UserError, match="not those that this study began with"):
        next(perform(before.pretraining, tmp_path / "runs", water))


def bad(problem: str, folder: Path) -> str:
    """What to write into the space, after spoiling the folder."""
    result = folder / "result.json"
    match problem:
        case "absent":
            return f"{{from: {folder}-2}}"
        case "damaged":
            (stored,) = folder.glob("*.safetensors")
            stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
        case "unfinished":
            result.unlink()
        case "unreadable":
            result.write_bytes(b"\xff")
        case "wrong hash":
            return f"{{from: {folder}, sha256: abc}}"
        case "hole":
            return f"{{from: {{choice: [{folder}]}}}}"
        case "more":
            return f"{{from: {folder}, epochs: 3}}"
        case "nul":
            return '{from: "a\\0b"}'
        case "old":
            value = json.loads(result.read_text())
            del value["digest"], value["settings"]
            result.write_text(json.dumps(value | {"digest": digest(value)}))
    return f"{{from: {folder}}}"


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("absent", "no such folder"),
        ("damaged", "whole weights"),
        ("unfinished", "whole result.json"),
        ("unreadable", "whole result.json"),
        ("wrong hash", "not that which the space says"),
        ("hole", "is no hole"),
        ("more", "unknown key; known keys: from, sha256"),
        ("nul", "cannot be read"),
        ("old", "does not tell its settings"),
    ],
)
def test_a_bad_start_is_answered_in_a_line(
    problem: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMALL_SPACE.replace(PRETRAIN, f"  pretrain: {bad(problem, folder)}\n")
    (tmp_path / "bad.yaml").write_text(text)
    out = tmp_path / "runs"
    arguments = ["--space", str(tmp_path / "bad.yaml"), "--profile", "quick", "--out", str(out)]
    assert run.main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert f"{tmp_path / 'bad.yaml'}:6: trial.pretrain" in line
    assert not out.exists()


def test_another_model_is_refused_with_both_values(folder: Path, tmp_path: Path) -> None:
    text = SMALL_SPACE.replace(PRETRAIN, f"  pretrain: {{from: {folder}}}\n")
    path = tmp_path / "other.yaml"
    path.write_text(text.replace("hidden: 8", "hidden: {choice: [8, 16]}"))
    with pytest.raises(UserError) as caught:
        load_space(str(path), "quick")
    (line,) = caught.value.problems
    assert str(folder) in line
    assert "hidden 16 against 8" in line


def test_a_trial_that_learned_the_same_labels_is_no_start(
    small_study: StudyFolder, tmp_path: Path
) -> None:
    trial = pretrained(small_study).folder(small_study.root)
    with pytest.raises(UserError, match=r"has learned the labels of `trial\.dataset`"):
        space_from(tmp_path, f"{{from: {trial}}}")


def test_starts_stand_beside_a_pretraining_and_scratch(
    small_study: StudyFolder, folder: Path, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(folder, tmp_path / "second"))
    other_weights(second, small_study)
    here = PRETRAIN.partition("pretrain:")[2].strip().replace("\n   ", ",")
    space = space_from(
        tmp_path, f"{{choice: [{{from: {folder}}}, {{from: {second}}}, {{{here}}}]}}"
    )
    trials = space.grid()
    assert len(trials) == 2 * (3 + 1)
    assert sum(trial.start is not None for trial in trials) == 4
    works = [Work("trial", trial, "data") for trial in trials]
    assert len({work.key for work in works}) == 8
    # Two imports serve both seeds; a pretraining is done for each.
    assert len({work.pretraining.key for work in works if work.pretraining}) == 2 + 2
