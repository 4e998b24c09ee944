from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.planning.study_dir import StudyDir
from study.planning.study_state import study_state
from study.scheduling.journal import Journal
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.protocols import Later, Planned
from study.space.search.samplers import OptunaSampler
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from study.space.yaml_loader import as_block
from tests.search_space import SEARCH_SPACE

METRIC = "val_force_rmse"


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH_SPACE)
    return load_space(str(path), "quick")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", METRIC)


def as_work(trial: Trial) -> Job:
    return Job("trial", trial, "data")


def proposals(space: Space, journal: Journal, slots: int = 1) -> OptunaProposals:
    return OptunaProposals(space, as_work, slots, journal.entries())


def error_of(planned: Planned) -> float:
    """A made-up landscape: the best learning rate is 1e-3."""
    return abs(planned.work.trial.finetune.lr - 1e-3) + 0.001


def run(source: OptunaProposals, journal: Journal, number: int) -> list[Planned]:
    """Run the next `number` trials one by one, each with one report."""
    done = []
    while len(done) < number:
        planned = source.next()
        if planned is None:
            break
        assert isinstance(planned, Planned)
        done.append(planned)
        journal.planned(planned)
        entry = journal.entries()[planned.number]
        if entry.over:
            if planned.number in source.open:  # The same trial as an earlier one.
                assert entry.result is not None
                source.ended(planned.number, entry.result, entry.values)
            continue
        value = error_of(planned)
        journal.recorded(planned.work, EpochRecord("finetune", 1, {METRIC: value}))
        source.reported(planned.number, 1, value)
        journal.ended(planned.work, JobResult("completed"))
        source.ended(planned.number, JobResult("completed"), [value])
    return done


def test_the_best_proposals_are_repeated_with_all_seeds_beside_the_same_from_scratch(
    space: Space, journal: Journal
) -> None:
    plan = run(proposals(space, journal), journal, 100)
    proposed, repeats = plan[:16], plan[16:]
    assert {p.work.trial.seed for p in proposed} == {5}
    assert not any(p.exempt for p in proposed)
    assert all(p.exempt for p in repeats)
    assert [p.number for p in plan] == list(range(len(plan)))
    for best in sorted(proposed, key=error_of)[:2]:
        alike = [p.work.trial for p in plan if p.work.trial.finetune == best.work.trial.finetune]
        own = [trial.seed for trial in alike if trial.pretrain == best.work.trial.pretrain]
        scratch = [trial.seed for trial in alike if trial.pretrain is None]
        assert sorted(own) == sorted(scratch) == [5, 6, 7]


def test_proposals_wait_for_a_free_slot(space: Space, journal: Journal) -> None:
    source = proposals(space, journal, slots=2)
    for _ in range(2):
        assert isinstance(source.next(), Planned)
    assert source.next() is Later.LATER
    source.ended(0, JobResult("diverged"), [])
    assert isinstance(source.next(), Planned)


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(space: Space, tmp_path: Path) -> None:
    whole = Journal(tmp_path / "whole.jsonl", METRIC)
    uninterrupted = run(proposals(space, whole), whole, 100)
    pieces = tmp_path / "pieces.jsonl"
    for cut in (2, 5, 9, 17, 20, 100):
        journal = Journal(pieces, METRIC)
        continued = run(proposals(space, journal), journal, cut)
    assert continued == uninterrupted


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "nsgaii", "population_size": 3},
        {"name": "cmaes", "popsize": 4},
        {"name": "qmc"},
        {"name": "gp", "n_startup_trials": 8},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_a_sampler_that_remembers_goes_on_as_if_not_interrupted(
    sampler: dict[str, Any], space: Space, tmp_path: Path
) -> None:
    if sampler["name"] == "cmaes":
        pytest.importorskip("cmaes")
    assert space.settings.search is not None
    body = as_block({**space.body, "pretrain": space.body["pretrain"]["choice"][1]})
    search = space.settings.search.model_copy(
        update={"sampler": OptunaSampler.model_validate(sampler), "repeat_best": 0}
    )
    settings = space.settings.model_copy(update={"search": search})
    space = Space(space.path, space.profile, settings, body)
    whole = Journal(tmp_path / "whole.jsonl", METRIC)
    uninterrupted = run(proposals(space, whole), whole, 100)
    assert len({planned.work.key for planned in uninterrupted}) > 8
    pieces = tmp_path / "pieces.jsonl"
    for cut in (3, 7, 12, 100):
        journal = Journal(pieces, METRIC)
        source = proposals(space, journal)
        continued = run(source, journal, cut)
        if len(continued) == cut:
            cut_off = source.next()
            assert isinstance(cut_off, Planned)
            journal.planned(cut_off)
    # What CMA-ES notes holds memory that it never uses, which differs from run to run.
    assert [replace(planned, sampler_state={}) for planned in continued] == [
        replace(planned, sampler_state={}) for planned in uninterrupted
    ]


def more(space: Space, **changes: int) -> Space:
    assert space.settings.search is not None
    search = space.settings.search.model_copy(update=changes)
    settings = space.settings.model_copy(update={"search": search})
    return Space(space.path, space.profile, settings, space.body)


@pytest.mark.parametrize(
    "changes", [{"trials": 20}, {"repeat_best": 4}, {"trials": 18, "repeat_best": 3}]
)
def test_a_finished_search_can_be_extended(
    changes: dict[str, int], space: Space, journal: Journal
) -> None:
    before = run(proposals(space, journal), journal, 100)
    extended = more(space, **changes)
    plan = run(proposals(extended, journal), journal, 100)
    search = extended.settings.search
    assert search is not None
    proposed = [planned for planned in plan if not planned.exempt]
    assert len(proposed) == search.trials
    assert proposed[:16] == [planned for planned in before if not planned.exempt]
    numbers = {planned.work.key: planned.number for planned in [*before, *plan]}
    assert len(set(numbers.values())) == len(numbers)
    for planned in before:
        assert numbers[planned.work.key] == planned.number
    assert len({planned.number for planned in plan}) == len(plan)
    best = sorted(proposed, key=error_of)[: search.repeat_best]
    for planned in best:
        arm = [
            p.work.trial.seed
            for p in plan
            if p.work.trial.finetune == planned.work.trial.finetune
            and p.work.trial.pretrain == planned.work.trial.pretrain
        ]
        assert sorted(arm) == [5, 6, 7]


def test_a_planned_trial_that_had_not_ended_is_proposed_again(
    space: Space, journal: Journal
) -> None:
    source = proposals(space, journal)
    run(source, journal, 4)
    cut_off = source.next()
    assert isinstance(cut_off, Planned)
    journal.planned(cut_off)
    again = run(proposals(space, journal), journal, 5)
    assert again[-1] == cut_off


def test_optuna_learns_how_trials_ended(space: Space, journal: Journal) -> None:
    source = proposals(space, journal)
    ends = {0: ("completed", "COMPLETE"), 1: ("stopped", "PRUNED"), 2: ("diverged", "COMPLETE")}
    for number, (status, _) in ends.items():
        planned = source.next()
        assert isinstance(planned, Planned)
        journal.planned(planned)
        source.reported(number, 1, 0.5)
        journal.recorded(planned.work, EpochRecord("finetune", 1, {METRIC: 0.5}))
        result = JobResult(status)  # type: ignore[arg-type]
        journal.ended(planned.work, result)
        source.ended(number, result, [0.5])
    expected = [(state, {1: 0.5}) for _, state in ends.values()]
    told = [(t.state.name, t.intermediate_values) for t in source.study.study.trials]
    assert told == expected
    restarted = proposals(space, journal)
    for _ in ends:
        restarted.next()
    known = [(t.state.name, t.intermediate_values) for t in restarted.known_study().study.trials]
    assert known == expected
    assert [t.params for t in restarted.known_study().study.trials] == [
        t.params for t in source.study.study.trials
    ]


@pytest.mark.parametrize("best", ["from scratch", "pretrained", "none"])
def test_a_search_is_done_with_the_trials_that_come_however_few(
    space: Space, tmp_path: Path, best: str
) -> None:
    """What is from scratch has no baseline, and without a best there is nothing to repeat."""
    study = StudyDir(tmp_path, "x")
    study.write(space, "sqlite:///x.db", {})
    journal, found = Journal(study.journal, METRIC), list[tuple[str, int, int]]()
    source = proposals(space, journal)
    while isinstance(planned := source.next(), Planned):
        state = study_state(tmp_path, "x")
        found.append((state.word, state.done, state.total))
        journal.planned(planned)
        is_scratch = planned.work.trial.pretrain is None
        value = 0.1 + 0.001 * planned.number + (is_scratch != (best == "from scratch"))
        status: Any = "diverged" if best == "none" else "completed"
        journal.recorded(planned.work, EpochRecord("finetune", 1, {METRIC: value}))
        journal.ended(planned.work, JobResult(status))
        source.ended(planned.number, JobResult(status), [value])
    most = 16 + 2 * (3 * 2 - 1)
    assert found == [("interrupted", number, most) for number in range(len(found))]
    trials = {"from scratch": 16 + 2 * 2, "pretrained": most, "none": 16}[best]
    state = study_state(tmp_path, "x")
    assert (state.word, state.done, state.total) == ("done", trials, trials)
