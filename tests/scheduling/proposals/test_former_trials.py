from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job, Segment
from study.planning.plan import Plan
from study.scheduling.journal import Journal
from study.scheduling.proposals.former_trials import FILE, Former, FormerTrial, learn
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.protocols import Planned
from study.space.search_space import Space, load_space
from tests.search_space import SEARCH_SPACE

METRIC = "val_force_rmse"
RATIO = "pretrain.masking.task.masking_ratio"
FORMER = [
    {"pretrain": "masking", RATIO: 0.4, "finetune.lr": 1e-3},
    {"pretrain": "scratch", "finetune.lr": 2e-3},
]


def searching(path: Path, search: str) -> Space:
    path.write_text(SEARCH_SPACE.replace("seed: 1,", f"seed: 1, {search},"))
    return load_space(str(path), "quick")


def do(space: Space, root: Path, name: str) -> OptunaProposals:
    """Run the first proposals of a study, each with its learning rate as the error."""
    plan = Plan(space, root, name, "")
    plan.folder.write(space, "", {})
    journal = Journal(plan.folder.journal, METRIC)
    former = plan.former.trials if plan.former else []
    source = OptunaProposals(
        space, lambda trial: Job("trial", trial, "data"), 1, journal.entries(), root, former
    )
    for number in range(4):
        planned = source.next()
        assert isinstance(planned, Planned)
        lr = planned.work.trial.finetune.lr
        result = JobResult("completed" if number < 3 else "diverged")
        journal.planned(planned)
        journal.recorded(planned.work, EpochRecord("finetune", 1, {METRIC: lr}))
        journal.ended(planned.work, result)
        source.reported(planned.number, 1, lr)
        source.ended(planned.number, result, [lr])
    return source


def test_a_search_starts_with_what_is_given_and_the_sampler_adds_the_rest(tmp_path: Path) -> None:
    given = f"start_with: {json.dumps([FORMER[0], {'pretrain': None}])}"
    source = do(searching(tmp_path / "a.yaml", given), tmp_path, "a")
    proposed = [planned.parameters for planned in source.proposed.values()]
    assert proposed[0] == FORMER[0]
    assert proposed[1]["pretrain"] == "scratch"
    assert set(proposed[1]) == {"pretrain", "finetune.lr"}
    drawn = {each["finetune.lr"] for each in proposed}
    assert len(drawn) == 4
    again = searching(tmp_path / "a.yaml", given)
    assert [
        each.parameters for each in do(again, tmp_path / "b", "a").proposed.values()
    ] == proposed


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("{finetune.rl: 1e-3}", "[0].finetune.rl: is nothing that varies in this space; did you"),
        ("{finetune.lr: 1.0}", "[0].finetune.lr: must be 1e-05 to 0.01, log, but got 1.0"),
        ("{pretrain: mask}", "[0].pretrain: must be one of scratch, masking, but got 'mask'"),
        (f"{{pretrain: scratch, {RATIO}: 0.4}}", f"[0].{RATIO}: is not used with the other"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(tmp_path: Path, given: str, line: str) -> None:
    with pytest.raises(UserError) as refused:
        searching(tmp_path / "a.yaml", f"start_with: [{given}]")
    (problem,) = refused.value.problems
    assert problem.startswith(f"{tmp_path / 'a.yaml'}:3: search.start_with{line}")


def test_a_search_learns_from_a_former_study_what_fits(tmp_path: Path) -> None:
    do(searching(tmp_path / "a.yaml", f"start_with: {json.dumps(FORMER)}"), tmp_path, "a")
    # Where trials are stopped early, all have constraints, which samplers want to be alike.
    narrow = "early_stopping: {}\n" + SEARCH_SPACE.replace("[1e-5, 1e-2]", "[1.5e-3, 1e-2]")
    (tmp_path / "b.yaml").write_text(narrow.replace("seed: 1,", "seed: 1, learn_from: a,"))
    space = load_space(str(tmp_path / "b.yaml"), "quick")
    former = learn(space, tmp_path)
    assert former is not None
    assert former.trials[0] == FormerTrial(FORMER[1], 2e-3)
    assert "1 not completed" in str(former)
    assert "with finetune.lr: must be 0.0015 to 0.01, log" in str(former)
    assert len(former.trials) + sum(former.left_out.values()) == 4
    source = do(space, tmp_path, "b")
    known = source.study.study.trials
    assert [known[0].params, known[0].value] == [FORMER[1], 2e-3]
    assert len({frozenset(each.constraints) for each in known}) == 1
    assert len(known) == len(former.trials) + 4


def test_nothing_is_learned_from_settings_that_change_midway(tmp_path: Path) -> None:
    given = f"start_with: {json.dumps(FORMER)}"
    source = do(searching(tmp_path / "a.yaml", given), tmp_path, "a")
    part = replace(source.work(source.space.samples[0]), segment=Segment(0, 1))
    journal = Journal(tmp_path / "studies/a/journal.jsonl", METRIC)
    journal.planned(Planned(9, part, {}, exempt=False, tuning=True))
    journal.recorded(part, EpochRecord("finetune", 1, {METRIC: 1e-9}))
    journal.ended(part, JobResult("completed"))
    former = learn(searching(tmp_path / "b.yaml", "learn_from: a"), tmp_path)
    assert former is not None
    assert min(trial.value for trial in former.trials) > 1e-9
    assert "1 of population-based training, whose settings change midway" in str(former)


def test_a_study_keeps_what_it_learned_when_the_former_one_is_gone(tmp_path: Path) -> None:
    table = tmp_path / "old.csv"
    table.write_text(
        f"{METRIC},params_pretrain,params_{RATIO},finetune.lr,note\n"
        "0.5,masking,0.4,1e-3,x\n0.7,scratch,,2e-3,y\n0.9,masking,,1e-3,z\nnan,scratch,,1e-3,\n"
    )
    space = searching(tmp_path / "a.yaml", f"learn_from: '{table}'")
    plan = Plan(space, tmp_path, "a", "")
    assert plan.former is not None
    assert plan.former.trials == [FormerTrial(FORMER[0], 0.5), FormerTrial(FORMER[1], 0.7)]
    assert plan.former.left_out == {f"without {RATIO}": 1, "not completed": 1}
    do(space, tmp_path, "a")
    plan.former.write(plan.folder.path)
    table.unlink()
    assert Plan(space, tmp_path, "a", "").former == plan.former
    kept = plan.folder.path / FILE
    kept.write_text(kept.read_text().replace("0.5", "0.1"))
    with pytest.raises(UserError, match="is damaged"):
        Former.read(plan.folder.path)


@pytest.mark.parametrize(
    ("source", "content", "rule"),
    [
        ("nowhere", "", "no study at nowhere or "),
        ("old.csv", "a,b\n1,2\n", "must have a column val_force_rmse or value"),
        ("old.csv", "value,b\n1,2\n", "must have columns pretrain, "),
    ],
)
def test_what_nothing_can_be_learned_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, content: str, rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        Path(source).write_text(content)
    space = searching(tmp_path / "a.yaml", f"learn_from: {source}")
    with pytest.raises(UserError, match=r"a.yaml: search.learn_from: ") as refused:
        learn(space, tmp_path)
    assert rule in refused.value.problems[0]
