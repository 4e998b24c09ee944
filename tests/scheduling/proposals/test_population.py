"""A population from its first generation to its test, in any order and with any interruption."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from study.console.plan_summary import print_plan_summary
from study.core.atomic_io import append_json, read_json_lines
from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult
from study.datasets.frames import Frames
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, load_outcome, save_outcome
from study.planning.plan import Plan
from study.planning.study_changes import require_same_study
from study.planning.study_dir import StudyDir
from study.planning.study_state import study_state
from study.scheduling.budget import Budget
from study.scheduling.journal import Journal
from study.scheduling.proposals.population import PopulationProposals, schedule_of_best
from study.scheduling.protocols import Later, Planned
from study.scheduling.scheduler import Scheduler
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from tests.conftest import SMALL_SPACE
from tests.in_process import conduct

METRIC = "val_force_rmse"
SEARCH = "search: {trials: 5, seed: 1, repeat_best: 1, sampler: {name: pbt, interval: 2}}\n"
PARTS = 3
"""Of 5 epochs, two at a time."""
Table = list[tuple[Any, ...]]


def space_of(folder: Path, search: str = SEARCH) -> Space:
    text = SMALL_SPACE.replace("epochs: 20", "epochs: 5").replace("lr: 0.01", f"lr: {RATES}")
    (folder / "pbt.yaml").write_text(search + text)
    return load_space(str(folder / "pbt.yaml"), "quick")


RATES = "{loguniform: [1e-4, 1e-2]}"


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power cut is tested here, and each line of a journal would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return space_of(tmp_path)


def as_work(trial: Trial) -> Job:
    """The same key in every version of the code, because made-up errors follow from it."""
    return Job("trial", trial, "data", "code")


class Study:
    """A study of made-up trials, whose results lie where those of real ones do.

    Args:
        space: with a population.
        root: folder of all work.
        rng: decides which of three running trials goes on next.
    """

    def __init__(self, space: Space, root: Path, rng: random.Random) -> None:
        self.space, self.root, self.rng = space, root, rng
        self.done, self.events = Counter[str](), 0

    def run(self, most: int = 10_000) -> Table:
        """Go on for so many events; then it is as if it were killed."""
        journal = Journal(self.root / "journal.jsonl", METRIC)
        source = PopulationProposals(self.space, as_work, journal.entries())
        self.budget = Budget(1.0, math.inf)
        scheduler = Scheduler(source, METRIC, self.root, [journal, self.budget])
        running: dict[str, list[EpochRecord]] = {}
        jobs: dict[str, Job] = {}
        while self.events < most:
            job = scheduler.next() if len(running) < 3 else None
            if job is not None:
                scheduler.began(job.key)
                jobs[job.key], running[job.key] = job, self.epochs(job)
            elif not running:
                break
            key = self.rng.choice(sorted(running))
            self.events += 1
            if running[key]:
                scheduler.report(key, running[key].pop(0))
            else:
                scheduler.end(key, self.finish(jobs[key]))
                del running[key]
        return table(journal)

    def epochs(self, job: Job) -> list[EpochRecord]:
        """What it reports: errors that depend on all that has gone before it."""
        last = 0 if diverges(job) else job.epochs
        return [
            EpochRecord(job.stage, epoch, {METRIC: value_of(job, epoch), "seconds": 1.0 * epoch})
            for epoch in range(job.inherited + 1, last + 1)
        ]

    def finish(self, job: Job) -> JobResult:
        self.done[job.key] += 1
        parent = job.parent_folder(self.root)
        before = load_outcome(parent) if parent and job.is_part else None
        history = [*(before.history if before else []), *self.epochs(job)]
        result = JobResult("diverged" if diverges(job) else "completed")
        save_outcome(job.folder(self.root), Outcome(result, history, None, job.settings))
        return result


def value_of(job: Job, epoch: int) -> float:
    return random.Random(f"{job.key} {epoch}").random()


def diverges(job: Job) -> bool:
    """One part in eight, but no repeat."""
    searched = job.is_part and job.trial.seed == 0 and job.trial.pretrain is not None
    return searched and random.Random(job.key).random() > 0.88


def table(journal: Journal) -> Table:
    return [
        (number, e.planned.work.key, e.planned.parameters, e.planned.member, e.result, e.values)
        for number, e in sorted(journal.entries().items())
    ]


def whole(space: Space, folder: Path, seed: int = 0) -> tuple[Table, Study]:
    study = Study(space, folder, random.Random(seed))
    return study.run(), study


def test_any_order_of_arrival_and_any_kill_gives_the_same_study_and_does_no_work_twice(
    space: Space, tmp_path: Path
) -> None:
    expected, study = whole(space, tmp_path / "whole")
    for seed in range(1, 4):
        assert whole(space, tmp_path / f"order-{seed}", seed)[0] == expected
    for kill in range(1, study.events, 17):
        killed = Study(space, tmp_path / f"kill-{kill}", random.Random(kill))
        for most in (kill, kill + 5, 10_000):
            found = killed.run(most)
        assert found == expected
        assert set(killed.done.values()) == {1}


def test_each_generation_waits_for_all_and_goes_on_from_the_best(
    space: Space, tmp_path: Path
) -> None:
    found, study = whole(space, tmp_path)
    entries = Journal(tmp_path / "journal.jsonl", METRIC).entries()
    parts = [entries[number].planned for number in range(5 * PARTS)]
    assert [(p.member.generation, p.member.number) for p in parts if p.member] == [
        (generation, member) for generation in range(PARTS) for member in range(5)
    ]
    replaced = 0
    for generation in (1, 2):
        before = [entries[5 * (generation - 1) + member] for member in range(5)]
        ends = [e.values[-1] if e.result and e.result.status == "completed" else 9 for e in before]
        for planned in parts[5 * generation : 5 * generation + 5]:
            member = planned.member
            assert member is not None
            assert member.parent is not None
            parent = before[member.parent]
            assert planned.work.segment is not None
            assert planned.work.segment.parent == parent.planned.work.key
            assert parent.result is not None
            assert parent.result.status == "completed"
            if member.parent == member.number:
                assert planned.parameters == parent.planned.parameters
            else:
                replaced += 1
                assert ends[member.parent] in sorted(ends)[:2]
                assert ends[member.number] in sorted(ends)[-2:] or ends[member.number] == 9
    assert replaced >= 2 * 2
    assert all(p.tuning and not p.exempt and p.work.trial.seed == 0 for p in parts)
    assert len(found) <= Plan(space, tmp_path, "x", "").trials
    assert study.done.total() == len({entry[1] for entry in found}) + pretrainings(found, entries)


def pretrainings(found: Table, entries: Any) -> int:
    works = [entries[number].planned.work.pretraining for number, *_ in found]
    return len({work.key for work in works if work})


def test_the_best_is_tested_and_its_schedule_repeated_with_all_seeds_and_from_scratch(
    space: Space, tmp_path: Path
) -> None:
    whole(space, tmp_path)
    entries = Journal(tmp_path / "journal.jsonl", METRIC).entries()
    last = [e for e in entries.values() if 5 * (PARTS - 1) <= e.planned.number < 5 * PARTS]
    lowest: dict[str, float] = {}
    for entry in last:
        values, job = list(entry.values), entry.planned.work
        while job.segment and job.segment.parent:
            (parent,) = {
                e.planned.number: e
                for e in entries.values()
                if e.planned.work.key == job.segment.parent
            }.values()
            values, job = [*parent.values, *values], parent.planned.work
        if entry.result and entry.result.status == "completed":
            lowest[entry.planned.work.key] = min(values)
    tests = [e.planned for e in entries.values() if not e.planned.work.is_part]
    (winner,) = [planned for planned in tests if not planned.exempt]
    assert winner.work.segment is not None
    assert winner.work.segment.parent == min(lowest, key=lambda key: lowest[key])
    arms = {(p.work.trial.seed, p.work.trial.pretrain is not None) for p in tests}
    assert arms == {(seed, pretrained) for seed in (0, 1) for pretrained in (True, False)}
    schedule = [entry.planned.parameters for entry in schedule_of_best(entries.values())]
    by_key = {entry.planned.work.key: entry.planned for entry in entries.values()}
    for planned in tests:
        settings, job = list[Any](), planned.work
        while job.segment and job.segment.parent:
            job = by_key[job.segment.parent].work
            settings.insert(0, {"finetune.lr": job.trial.finetune.lr})
        assert settings == schedule
        assert not planned.tuning


def test_the_best_in_a_study_s_state_is_the_winner_and_no_repeat(
    space: Space, tmp_path: Path
) -> None:
    whole(space, tmp_path)
    study = StudyDir(tmp_path, "x")
    study.write(space, "sqlite:///x.db", {})
    (tmp_path / "journal.jsonl").rename(study.journal)
    entries = Journal(study.journal, METRIC).entries().items()
    tests = {n: e for n, e in entries if not e.planned.work.is_part}
    (winner,) = [number for number, entry in tests.items() if not entry.planned.exempt]
    assert min(tests, key=lambda number: min(tests[number].values)) != winner
    best = study_state(tmp_path, "x").best
    assert best is not None
    assert (best.number, best.best) == (winner, min(tests[winner].values))


def test_each_epoch_is_paid_once(space: Space, tmp_path: Path) -> None:
    """Made-up epochs of finetuning take a second, and all that has gone before is told again."""
    _, study = whole(space, tmp_path)
    entries = Journal(tmp_path / "journal.jsonl", METRIC).entries().values()
    works = {entry.planned.work.key: entry.planned.work for entry in entries}.values()
    parts = [job for job in works if job.is_part and not diverges(job)]
    pretrainings = {job.pretraining.key: job.pretraining.epochs for job in works if job.pretraining}
    trained = sum(job.epochs - job.inherited for job in parts) + sum(pretrainings.values())
    assert study.budget.total == trained


def test_the_state_of_a_study_is_done_when_its_proposals_have_ended(
    space: Space, tmp_path: Path
) -> None:
    """Cut between generations, or before the repeats, all that is planned is over."""
    whole(space, tmp_path)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines(keepends=True)
    study = StudyDir(tmp_path, "x")
    study.write(space, "sqlite:///x.db", {})
    words, over, planned = list[str](), 0, 0
    for number, line in enumerate(lines):
        event = json.loads(line)["event"]
        if event == "planned" and planned and over == planned:
            study.journal.write_text("".join(lines[:number]))
            words.append(study_state(tmp_path, "x").word)
        over, planned = over + (event == "ended"), planned + (event == "planned")
    # All generations but the last; and the repeats, whose parts run one after the other.
    assert words == ["interrupted"] * (PARTS - 1 + PARTS + 1)
    study.journal.write_text("".join(lines))
    assert study_state(tmp_path, "x").word == "done"
    study.journal.unlink()
    for content in read_json_lines(tmp_path / "journal.jsonl"):
        older = re.sub(r'"[0-9a-f]{62}', '"older', json.dumps(content))
        append_json(study.journal, json.loads(older))
    assert study_state(tmp_path, "x").word == "done", "as an older version named its trials"


@pytest.mark.parametrize(
    ("status", "word"), [("diverged", "done"), ("failed", "failed"), ("completed", "interrupted")]
)
def test_a_population_that_can_go_no_further_is_not_resumed(
    space: Space, tmp_path: Path, status: Any, word: str
) -> None:
    study = StudyDir(tmp_path, "x")
    study.write(space, "sqlite:///x.db", {})
    journal = Journal(study.journal, METRIC)
    source = PopulationProposals(space, as_work, {})
    for _ in range(5):
        planned = source.next()
        assert isinstance(planned, Planned)
        journal.planned(planned)
        journal.ended(planned.work, JobResult(status))
    assert study_state(tmp_path, "x").word == word


def test_a_population_of_another_size_is_another_study(space: Space, tmp_path: Path) -> None:
    study = StudyDir(tmp_path, "x")
    study.write(space, "sqlite:///x.db", {})
    append_json(study.journal, {"event": "started"})
    require_same_study(study, space)
    larger = space_of(tmp_path, SEARCH.replace("trials: 5", "trials: 6"))
    with pytest.raises(UserError, match="size of the population, was 5 when this study began, and"):
        require_same_study(study, larger)


def test_without_repeats_the_best_is_tested_alone(tmp_path: Path) -> None:
    space = space_of(tmp_path, SEARCH.replace("repeat_best: 1", "repeat_best: 0"))
    found, _ = whole(space, tmp_path)
    assert len(found) == 5 * PARTS + 1 == Plan(space, tmp_path, "x", "").trials


def test_what_is_from_scratch_itself_is_not_repeated_from_scratch(tmp_path: Path) -> None:
    text = SMALL_SPACE.partition("  pretrain:")[0] + "  pretrain: null\n  finetune:"
    text += SMALL_SPACE.partition("  finetune:")[2].replace("epochs: 20", "epochs: 5")
    path = tmp_path / "scratch.yaml"
    for search, trials in (("search: {trials: 5}\n", 6), (SEARCH, 6 * PARTS + 2)):
        path.write_text(search + text.replace("lr: 0.01", f"lr: {RATES}"))
        plan = Plan(load_space(str(path), "quick"), tmp_path, "x", "")
        assert plan.space.settings.baseline
        assert plan.trials == trials
        assert not plan.warnings
    console = Console(width=200)
    with console.capture() as captured:
        print_plan_summary(plan, console)
    assert "seeds: 20 in total (6 finetuning runs × 3 parts + 2 tests)" in captured.get()
    assert len(whole(plan.space, tmp_path)[0]) == plan.trials


def test_a_plan_counts_pretrainings_where_only_finetuning_is_searched(
    space: Space, tmp_path: Path
) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        print_plan_summary(Plan(space, tmp_path, "x", ""), console)
    assert "2 pretraining runs × 2 epochs, 8 finetuning runs × 5 epochs" in captured.get()
    found, _ = whole(space, tmp_path)
    assert pretrainings(found, Journal(tmp_path / "journal.jsonl", METRIC).entries()) == 2


def test_it_begins_with_what_the_space_says(tmp_path: Path) -> None:
    start = "start_with: [{finetune.lr: 1e-3}], sampler"
    space = space_of(tmp_path, SEARCH.replace("sampler", start))
    source = PopulationProposals(space, as_work, {})
    first = [source.next() for _ in range(5)]
    rates = [p.work.trial.finetune.lr for p in first if isinstance(p, Planned)]
    assert rates[0] == 1e-3
    assert len(set(rates)) == 5
    assert source.next() is Later.LATER


def test_a_failed_member_is_repeated_before_anybody_is_compared_with_it(
    space: Space,
) -> None:
    source = PopulationProposals(space, as_work, {})
    first = [source.next() for _ in range(5)]
    for place, planned in enumerate(first):
        assert isinstance(planned, Planned)
        source.ended(planned.number, JobResult("completed" if place else "failed"), [0.1, 0.1])
    assert source.next() is None


def test_a_real_member_that_is_kept_trains_as_a_plain_trial(water: Frames, tmp_path: Path) -> None:
    """Also if it is interrupted after every job."""
    space = space_of(
        tmp_path, SEARCH.replace("trials: 5", "trials: 2").replace("best: 1", "best: 0")
    )
    frames, data = tmp_path / "water", water.content_hash()
    water.save(frames)

    def work(trial: Trial) -> Job:
        return Job("trial", trial, data)

    def goes_on() -> bool:
        journal = Journal(tmp_path / "journal.jsonl", METRIC)
        source = PopulationProposals(space, work, journal.entries())
        return conduct(Scheduler(source, METRIC, tmp_path, [journal]), tmp_path, frames, 1)

    while goes_on():
        pass
    entries = Journal(tmp_path / "journal.jsonl", METRIC).entries().values()
    tests = [entry for entry in entries if not entry.planned.work.is_part]
    (best,) = [entry.result for entry in tests if entry.result]
    assert "test_force_rmse" in best.metrics
    members = [(entry.planned.member, entry.planned.work) for entry in entries]
    second = [(m, job) for m, job in members if m is not None and m.generation == 1]
    (kept,) = [job for member, job in second if member.number == member.parent]
    plain = work(kept.trial)
    list(run_job(plain, tmp_path, frames))
    mine, theirs = (load_outcome(job.folder(tmp_path)) for job in (kept, plain))
    assert mine is not None
    assert theirs is not None
    curves = [[record.metrics["val_force_mae"] for record in o.history[:4]] for o in (mine, theirs)]
    assert curves[0] == curves[1]
