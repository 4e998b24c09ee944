"""Finetuning starts from weights that earlier work has left, known by their content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from study import run
from study.core.atomic_io import append_json, read_hashed
from study.core.errors import UserError
from study.core.hashing import digest
from study.core.records import Tag
from study.datasets.frames import Frames
from study.datasets.split_config import Split
from study.datasets.splits import split
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.planning.plan import Plan
from study.planning.study_changes import require_same_study
from study.planning.study_dir import StudyDir
from study.space.pretrained import find_start, remarks_on_starts
from study.space.search_space import Space, load_space
from study.space.trial import Trial
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


def pretrained(study: StudyDir) -> Job:
    """Its pretraining with seed 0."""
    trial = next(t for t in study.recorded_space().grid() if t.pretrain is not None)
    (hashed,) = json.loads((study.path / "study.json").read_text())["data"].values()
    return Job("trial", trial, hashed)


def only_frames(study: StudyDir) -> Path:
    """Folder of its data set."""
    (folder,) = (study.root / "data").iterdir()
    return folder


@pytest.fixture
def folder(small_study: StudyDir, tmp_path: Path) -> Path:
    """A copy of a finished pretraining's folder, elsewhere."""
    work = pretrained(small_study).pretraining
    assert work is not None
    return Path(shutil.copytree(work.folder(small_study.root), tmp_path / "elsewhere"))


def started(space: Space, seed: int = 0) -> Trial:
    return next(t for t in space.grid() if t.pretrain is not None and t.seed == seed)


def weights(work: Job, root: Path) -> bytes:
    outcome = load_outcome(work.folder(root))
    assert outcome is not None
    assert outcome.weights is not None
    return read_hashed(outcome.weights)


def test_finetuning_is_bitwise_that_after_the_pretraining_itself(
    small_study: StudyDir, folder: Path, tmp_path: Path
) -> None:
    own, water = pretrained(small_study), only_frames(small_study)
    assert own.pretraining is not None
    trial = started(space_from(tmp_path, f"{{from: {folder}}}"))
    work = Job.from_json(Job("trial", trial, own.data_hash).to_json())
    before = work.pretraining
    assert before is not None
    root = tmp_path / "runs"
    assert list(run_job(before, root, water)) == []
    assert weights(before, root) == weights(own.pretraining, small_study.root)
    shutil.rmtree(folder)  # It is in the store now.
    list(run_job(before, root, water))
    list(run_job(work, root, water))
    assert weights(work, root) == weights(own, small_study.root)
    assert work.key != own.key


def test_all_seeds_start_from_one_import_whose_place_does_not_name_it(
    folder: Path, tmp_path: Path
) -> None:
    space = space_from(tmp_path, f"{{from: {folder}}}")
    one, two = (Job("trial", started(space, seed), f"data {seed}") for seed in (0, 1))
    moved = space_from(tmp_path, f"{{from: {folder.rename(tmp_path / 'moved')}}}")
    three = Job("trial", started(moved), "data 0")
    assert one.pretraining is not None
    assert two.pretraining is not None
    assert one.pretraining.key == two.pretraining.key
    assert three.key == one.key != two.key


def other_weights(folder: Path, small_study: StudyDir) -> None:
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
    small_study: StudyDir, folder: Path, tmp_path: Path
) -> None:
    space = space_from(tmp_path, f"{{from: {folder}}}")
    study = StudyDir(tmp_path / "runs", "started-quick")
    study.write(space, "sqlite:///nowhere.db", {})
    append_json(study.journal, {"event": "started"})
    require_same_study(study, space)
    before = Job("trial", started(space), "data")
    assert before.pretraining is not None
    other_weights(folder, small_study)
    changed = space_from(tmp_path, f"{{from: {folder}}}")
    with pytest.raises(UserError, match=r"trial\.pretrain\.sha256 was .*--name started-quick-2"):
        require_same_study(study, changed)
    assert Job("trial", started(changed), "data").key != before.key
    water = only_frames(small_study)
    with pytest.raises(UserError, match="have changed since this study began"):
        next(run_job(before.pretraining, tmp_path / "runs", water))


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
    small_study: StudyDir, tmp_path: Path
) -> None:
    trial = pretrained(small_study).folder(small_study.root)
    with pytest.raises(UserError, match=r"has learned the labels of `trial\.dataset`"):
        space_from(tmp_path, f"{{from: {trial}}}")


@pytest.mark.parametrize(
    ("before", "after", "remarks"),
    [
        ("", "", ["was split with seed 0 and may have seen, without labels, what seed 1 tests"]),
        ("[0, 1]", "[0, 1, 5]", ["was split with seed 0 and may have seen, without labels, what "
                                 "seeds 1, 5 test"]),
        ("[0, 1]", "[0]", []),
        ("frames: 3}", "frames: 6}", []),
        ("  model:", "  split: {by: frame}\n  model:", ["was split otherwise and may have seen, "
                                                       "without labels, frames that are tested"]),
    ],
)  # fmt: skip
def test_a_start_that_may_have_seen_test_frames_is_remarked(
    before: str, after: str, remarks: list[str], folder: Path, tmp_path: Path
) -> None:
    text = SMALL_SPACE.replace(PRETRAIN, f"  pretrain: {{from: {folder}}}\n")
    assert not before or before in text
    (tmp_path / "started.yaml").write_text(text.replace(before, after, 1) if before else text)
    space = load_space(str(tmp_path / "started.yaml"), "quick")
    expected = [f"{folder.name} {remark}" for remark in remarks]
    assert list(remarks_on_starts(space.samples, space.settings.seeds)) == expected


def test_another_seed_tests_frames_that_the_start_has_seen(water: Frames, folder: Path) -> None:
    first, second = (split(water, Split(by="frame"), seed) for seed in (0, 1))
    assert set(first.train) & set(second.test)
    assert find_start(str(folder)).settings["seed"] == 0


def test_the_remark_stands_in_the_plan_and_in_the_records(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_from(tmp_path, f"{{from: {folder}}}")
    out = ["--profile", "quick", "--out", str(tmp_path / "runs"), "--dry-run"]
    assert run.main(["--space", str(space.path), *out]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert told.count(f"warning {folder.name} was split with seed 0") == 1
    plan = Plan(space, tmp_path / "runs", "study", "sqlite:///mlflow.db")
    assert plan.tags("id")[Tag.WARNING].startswith(f"{folder.name} was split with seed 0")


def test_an_import_does_not_tell_its_frames(
    small_study: StudyDir, folder: Path, tmp_path: Path
) -> None:
    trial = started(space_from(tmp_path, f"{{from: {folder}}}"))
    taken = Job("trial", trial, "data").pretraining
    assert taken is not None
    list(run_job(taken, tmp_path / "runs", only_frames(small_study)))
    again = space_from(tmp_path, f"{{from: {taken.folder(tmp_path / 'runs')}}}")
    (remark,) = dict.fromkeys(remarks_on_starts(again.samples, [0, 1]))
    assert "does not tell which frames it has seen" in remark


def test_starts_stand_beside_a_pretraining_and_scratch(
    small_study: StudyDir, folder: Path, tmp_path: Path
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
    works = [Job("trial", trial, "data") for trial in trials]
    assert len({work.key for work in works}) == 8
    # Two imports serve both seeds; a pretraining is done for each.
    assert len({work.pretraining.key for work in works if work.pretraining}) == 2 + 2
