"""A grid that tunes its arms alike first: what it chooses, and how it resumes."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import pytest

from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.scheduling.journal import Journal
from study.scheduling.proposals.tuned_grid import TunedGrid, tuned_arms
from study.scheduling.protocols import Later, Planned
from study.scheduling.scheduler import Scheduler
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from study.space.tuning import identity_of_arm, with_values
from tests.conftest import SMALL_SPACE
from tests.in_process import conduct

METRIC = "val_force_rmse"
TUNED = "tune: {each_arm: {finetune.lr: {loguniform: [1e-3, 3e-2]}}, proposals: 3}\n"
LRS = [1e-3, 5.477e-3, 3e-2]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED + SMALL_SPACE.replace("epochs: 20", "epochs: 3"))
    return load_space(str(path), "quick")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", METRIC)


def as_work(trial: Trial) -> Job:
    return Job("trial", trial, "data")


def grid(space: Space, journal: Journal) -> TunedGrid:
    return TunedGrid(space, as_work, journal.entries())


def error_of(trial: Trial) -> float:
    """A made-up landscape: masking likes the middle rate, scratch the largest."""
    best = 5e-3 if trial.pretrain else 3e-2
    return abs(math.log(trial.finetune.lr / best)) + 0.1


def run(source: TunedGrid, journal: Journal, number: int = 100) -> list[Planned]:
    """Run the next `number` trials one by one."""
    done: list[Planned] = []
    while len(done) < number and isinstance(planned := source.next(), Planned):
        done.append(planned)
        journal.planned(planned)
        end(source, journal, planned)
    return done


def end(source: TunedGrid, journal: Journal, planned: Planned, status: str = "completed") -> None:
    value, result = error_of(planned.work.trial), JobResult(status)  # type: ignore[arg-type]
    journal.recorded(planned.work, EpochRecord("finetune", 1, {METRIC: value}))
    journal.ended(planned.work, result)
    source.ended(planned.number, result, [value])


def test_every_arm_takes_its_best_of_equal_proposals_with_every_seed(
    space: Space, journal: Journal
) -> None:
    plan = run(grid(space, journal), journal)
    tuning, reported = plan[:6], plan[6:]
    assert [p.tuning for p in plan] == 6 * [True] + 4 * [False]
    assert [p.number for p in plan] == list(range(10))
    for pretrained, best in ((True, LRS[1]), (False, LRS[2])):
        mine = [p for p in tuning if (p.work.trial.pretrain is not None) == pretrained]
        assert [p.parameters for p in mine] == [{"finetune.lr": lr} for lr in LRS]
        assert {p.work.trial.seed for p in mine} == {100}
        kept = [p for p in reported if (p.work.trial.pretrain is not None) == pretrained]
        assert [p.work.trial.seed for p in kept] == [0, 1]
        assert {p.work.trial.finetune.lr for p in kept} == {best}
        assert all(p.untuned and p.untuned.trial.finetune.lr == 0.01 for p in kept)


def test_the_journal_knows_a_choice_only_when_every_proposal_is_over(
    space: Space, journal: Journal
) -> None:
    source = grid(space, journal)
    run(source, journal, 5)
    known = tuned_arms(space, journal.entries())
    assert [(arm.proposals, arm.chosen) for arm in known.values()] == [
        (3, {"finetune.lr": LRS[2]}),
        (3, None),
    ]
    run(source, journal, 1)
    assert [arm.chosen for arm in tuned_arms(space, journal.entries()).values()] == [
        {"finetune.lr": LRS[2]},
        {"finetune.lr": LRS[1]},
    ]


def test_nothing_is_reported_before_the_last_tuning_trial_is_over(
    space: Space, journal: Journal
) -> None:
    source = grid(space, journal)
    under_way = [source.next() for _ in range(6)]
    for planned in under_way:
        assert source.next() is Later.LATER
        assert isinstance(planned, Planned)
        end(source, journal, planned)
    assert isinstance(source.next(), Planned)


@pytest.mark.parametrize("cuts", [(1, 100), (6, 100), (4, 7, 8, 100), (10, 100)])
def test_it_goes_on_as_if_it_had_not_been_interrupted(
    space: Space, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    whole = Journal(tmp_path / "whole.jsonl", METRIC)
    uninterrupted = run(grid(space, whole), whole)
    for cut in cuts:
        journal = Journal(tmp_path / "pieces.jsonl", METRIC)
        continued = run(grid(space, journal), journal, cut)
    assert continued == uninterrupted
    assert journal.entries() == whole.entries()


def test_what_was_chosen_stands_whatever_a_repeated_trial_gives(
    space: Space, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path, METRIC)
    plan = run(grid(space, first), first, 7)
    chosen = plan[6].parameters
    again = grid(space, Journal(path, METRIC))
    for _ in range(6):
        planned = again.next()
        assert isinstance(planned, Planned)
        # As if a GPU gave other numbers the second time.
        again.ended(planned.number, JobResult("completed"), [1 / error_of(planned.work.trial)])
    final = again.next()
    assert isinstance(final, Planned)
    assert (final.number, final.parameters) == (6, chosen)


def test_diverged_proposals_are_the_worst_and_an_arm_without_others_keeps_what_the_space_says(
    space: Space, journal: Journal
) -> None:
    source = grid(space, journal)
    for _ in range(6):
        planned = source.next()
        assert isinstance(planned, Planned)
        trial = planned.work.trial
        bad = trial.pretrain is None or trial.finetune.lr == LRS[1]
        end(source, journal, planned, "diverged" if bad else "completed")
    rates = {p.work.trial.pretrain is None: p.work.trial.finetune.lr for p in run(source, journal)}
    assert rates == {True: 0.01, False: LRS[0] if error_at(LRS[0]) < error_at(LRS[2]) else LRS[2]}


def error_at(rate: float) -> float:
    return abs(math.log(rate / 5e-3))


def test_an_arm_with_a_failed_proposal_waits_for_a_later_run(
    space: Space, journal: Journal
) -> None:
    source = grid(space, journal)
    for place in range(6):
        planned = source.next()
        assert isinstance(planned, Planned)
        journal.planned(planned)
        end(source, journal, planned, "failed" if place == 0 else "completed")
    first = run(source, journal)
    assert {p.work.trial.pretrain is None for p in first} == {False}
    later = run(grid(space, journal), journal)
    assert len(later) == 10
    assert {p.work.trial.pretrain is None for p in later[6:]} == {True, False}


def test_real_trials_choose_what_a_brute_force_search_finds_also_after_a_kill_between_the_stages(
    space: Space, water: Frames, tmp_path: Path
) -> None:
    frames, data = tmp_path / "water", water.content_hash()
    water.save(frames)

    def work(trial: Trial) -> Job:
        return Job("trial", trial, data)

    def after(most: int) -> Journal:
        journal = Journal(tmp_path / "real.jsonl", METRIC)
        source = TunedGrid(space, work, journal.entries())
        conduct(Scheduler(source, METRIC, tmp_path, [journal]), tmp_path, frames, most)
        return journal

    # Six tuning trials and the pretraining that three of them share.
    assert len(after(7).entries()) == 6
    entries = after(100).entries()
    assert len(entries) == 10
    by_hand: dict[str, dict[float, float]] = defaultdict(dict)
    for trial in space.grid():
        for lr in LRS:
            job = work(with_values(trial, {"finetune.lr": lr}).model_copy(update={"seed": 100}))
            outcome = load_outcome(job.folder(tmp_path))
            assert outcome is not None
            errors = [record.metrics[METRIC] for record in outcome.history]
            by_hand[identity_of_arm(trial, ["finetune.lr"])][lr] = min(errors)
    assert len(by_hand) == 2
    for entry in entries.values():
        trial = entry.planned.work.trial
        if not entry.planned.tuning:
            errors_of = by_hand[identity_of_arm(trial, ["finetune.lr"])]
            assert trial.finetune.lr == min(errors_of, key=lambda lr: errors_of[lr])
