from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from study import rerun, status
from study.core.hashing import digest
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job, Segment
from study.pipeline.outcome import LOG, load_outcome
from study.planning.study_dir import StudyDir
from study.planning.study_state import TrialState, study_state
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned


@pytest.fixture
def copied(small_study: StudyDir, tmp_path: Path) -> StudyDir:
    """The small study, to be changed."""
    shutil.copytree(small_study.root, tmp_path / "runs")
    return StudyDir(tmp_path / "runs", small_study.name)


def journal_of(study: StudyDir) -> Journal:
    return Journal(study.journal, "val_force_rmse")


def work_of(study: StudyDir, number: int) -> Job:
    return journal_of(study).entries()[number].planned.work


def more_work(study: StudyDir, lr: float = 0.02) -> Job:
    """A trial that has not run, planned as number 4."""
    known = work_of(study, 3)
    finetune = known.trial.finetune.model_copy(update={"lr": lr})
    work = replace(known, trial=known.trial.model_copy(update={"finetune": finetune}))
    journal_of(study).planned(Planned(4, work))
    return work


def state_of(study: StudyDir, number: int = 4) -> TrialState:
    return study_state(study.root, study.name).trials[number]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert status.main(list(arguments)) == 0
    return capsys.readouterr().out


def test_a_finished_study_is_done(
    small_study: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    (study,) = shown(capsys, "--out", str(small_study.root)).splitlines()[1:]
    assert study.split()[:3] == ["ratio-quick", "done", "4/4"]
    state = study_state(small_study.root, small_study.name)
    assert state.best is not None
    assert state.best.best == min(trial.best for trial in state.trials if trial.best)


def test_nothing_is_written(small_study: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in small_study.root.rglob("*")}
    shown(capsys, str(small_study.path), "--all")
    assert {p: p.stat().st_mtime_ns for p in small_study.root.rglob("*")} == before


def test_a_driver_that_holds_its_lock_is_running(copied: StudyDir) -> None:
    more_work(copied)
    assert study_state(copied.root, copied.name).word == "interrupted"
    with FileLock(copied.lock):
        assert study_state(copied.root, copied.name).word == "running"
    assert study_state(copied.root, copied.name).word == "interrupted"


def test_looking_at_a_lock_does_not_keep_others_from_it(copied: StudyDir) -> None:
    assert study_state(copied.root, copied.name).word == "done"
    with FileLock(copied.lock, timeout=0):
        pass


def test_a_trial_waits_then_its_pretraining_runs_then_it_runs_itself(copied: StudyDir) -> None:
    work = more_work(copied)
    assert work.pretraining is not None
    assert state_of(copied).status == "waiting"
    pretraining, trial = (part.folder(copied.root) for part in (work.pretraining, work))
    with FileLock(pretraining / "lock"):
        (pretraining / "epoch-00000001-0.safetensors").touch()
        state = state_of(copied)
        assert (state.status, state.epoch, state.epochs) == ("pretraining", 1, 2)
    trial.mkdir()
    with FileLock(trial / "lock"):
        for epoch, error in enumerate((0.3, 0.1, 0.2), start=1):
            record = EpochRecord("finetune", epoch, {"val_force_rmse": error})
            journal_of(copied).recorded(work, record)
        state = state_of(copied)
        assert (state.status, state.epoch, state.epochs) == ("running", 3, 20)
        assert (state.value, state.best) == (0.2, 0.1)


def test_a_failed_trial_is_shown_with_reason_log_and_way_to_run_it_alone(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    work = more_work(copied)
    journal_of(copied).ended(work, JobResult("failed", "ValueError: too hot"))
    folder = work.folder(copied.root)
    folder.mkdir()
    (folder / LOG).write_text("".join(f"line {number}\n" for number in range(9)))
    text = shown(capsys, str(copied.path))
    assert "trial 4 (egnn masking 0.5, seed 1) failed: ValueError: too hot" in text
    assert "line 8" in text
    assert "line 3" not in text
    assert f"rerun it with: python -m study.rerun {copied.path} 4" in text
    assert study_state(copied.root, copied.name).word == "failed"


def test_the_same_error_of_several_trials_is_shown_once(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "NameError: no (mine.py:3, in f: `no`"
    reasons = [f"{place})", f"its pretraining failed: {place}; called from mine.py:9, in g: `f()`)"]
    for number, reason in zip((4, 5), reasons, strict=True):
        work = more_work(copied, lr=number / 1000)
        journal_of(copied).planned(Planned(number, work))
        journal_of(copied).ended(work, JobResult("failed", reason))
    text = shown(capsys, str(copied.path))
    assert text.count("NameError") == 1
    assert "the same in trials 5\n" in text


def test_the_command_that_continues_is_shown_until_the_study_is_done(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    space = copied.recorded_space()
    copied.write(space, "", {}, "python -m study.run --space ratio.yaml")
    lacking = "Report or model are not complete; make them with:\n  python -m study.run --space"
    assert lacking in shown(capsys, str(copied.path))
    (copied.path / "report").mkdir()
    for name in ("report/report.html", "reported.json"):
        (copied.path / name).touch()
    assert "study.run" not in shown(capsys, str(copied.path))
    more_work(copied)
    assert "Resume with:\n  python -m study.run --space ratio.yaml" in shown(
        capsys, copied.name, "--out", str(copied.root)
    )


def test_a_study_is_not_done_before_its_audit_is(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    work, journal = more_work(copied), journal_of(copied)
    journal.recorded(work, EpochRecord("finetune", 1, {"val_force_rmse": 0.3}))
    journal.ended(work, JobResult("stopped", "worse than others"))
    space, command = copied.recorded_space(), "python -m study.run --space ratio.yaml"
    copied.write(space, "", {}, command)
    assert study_state(copied.root, copied.name).word == "done"
    copied.write(space, "", {}, command, audit=3)
    seen = shown(capsys, str(copied.path))
    assert "0 of 1 stopped trials finished" in seen
    assert "Resume with:" in seen
    content = json.loads((copied.path / "study.json").read_text())
    del content["audit"], content["digest"]
    (copied.path / "study.json").write_text(json.dumps(content | {"digest": digest(content)}))
    assert study_state(copied.root, copied.name).audit == (0, 0), "as an older version wrote it"
    copied.write(space, "", {}, command, audit=3)
    finished = work_of(copied, 0).folder(copied.root)
    shutil.copytree(finished, work.folder(copied.root))
    assert study_state(copied.root, copied.name).word == "done"


def test_json_holds_every_trial(small_study: StudyDir, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(shown(capsys, str(small_study.path), "--json"))
    assert (value["state"], value["total"], len(value["trials"])) == ("done", 4, 4)
    assert value["counts"] == {"completed": 4}


def test_an_unknown_study_is_answered_with_those_there_are(
    small_study: StudyDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.main(["ration", "--out", str(small_study.root)]) == 2
    assert "it has ratio-quick" in capsys.readouterr().err
    assert status.main(["--out", str(tmp_path)]) == 2
    assert "no study here" in capsys.readouterr().err


def test_a_trial_runs_alone_and_the_study_finds_its_result(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    work = more_work(copied, lr=0.003)
    assert rerun.main([str(copied.path), "4"]) == 0
    assert "epoch 20/20" in capsys.readouterr().out
    outcome = load_outcome(work.folder(copied.root))
    assert outcome is not None
    assert outcome.result.status == "completed"
    assert rerun.main([str(copied.path), "4"]) == 0
    assert "epoch" not in capsys.readouterr().out.replace("best_epoch", "")


def test_a_part_of_a_population_runs_after_those_that_it_continues(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [work_of(copied, 3)]
    for begin in range(3):
        parent = parts[-1].key if begin else None
        parts.append(replace(parts[0], segment=Segment(begin, begin + 1, parent)))
        journal_of(copied).planned(Planned(4 + begin, parts[-1]))
    assert rerun.main([str(copied.path), "5"]) == 0
    assert [part.folder(copied.root).exists() for part in parts[1:]] == [True, True, False]
    (checkpoint,) = parts[2].folder(copied.root).glob("epoch-*")
    checkpoint.unlink()
    assert rerun.main([str(copied.path), "6"]) == 2
    assert "rerun the same command, which makes it again" in capsys.readouterr().err
    assert rerun.main([str(copied.path), "6"]) == 0
    outcome = load_outcome(parts[3].folder(copied.root))
    assert outcome is not None
    assert [record.epoch for record in outcome.history] == [1, 2, 3]


def test_a_trial_that_is_not_there_is_answered_in_a_line(
    small_study: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rerun.main([str(small_study.path), "7"]) == 2
    assert "has no trial 7, only 0 to 3" in capsys.readouterr().err
    assert rerun.main([str(small_study.root), "7"]) == 2
    assert "no study here" in capsys.readouterr().err


def test_what_a_search_varies_tells_its_trials_apart(copied: StudyDir) -> None:
    work = more_work(copied, lr=0.01)
    journal_of(copied).planned(Planned(5, more_work(copied), {"finetune.lr": 0.02}, exempt=False))
    journal_of(copied).planned(Planned(4, work, {"finetune.lr": 0.01}, exempt=False))
    labels = [state_of(copied, number).label for number in (4, 5)]
    assert labels == [f"egnn masking 0.5, finetune.lr {lr}, seed 1" for lr in (0.01, 0.02)]


def test_a_study_that_has_planned_nothing_yet_has_no_empty_list(
    copied: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    copied.journal.unlink()
    assert "interrupted, 0/4 trials\n" in shown(capsys, str(copied.path))
