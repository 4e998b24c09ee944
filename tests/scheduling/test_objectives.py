from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from study.core.errors import UserError
from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Journal
from study.scheduling.objectives import best_first, front, front_of, with_measures
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.protocols import Planned
from study.scheduling.scheduler import Scheduler
from study.space.search_space import Space, load_space
from study.space.trial import Trial

METRIC = "val_force_rmse"

SPACE = """\
question: What does a small error cost?
seeds: [0, 1]
baseline: false
search: {trials: 30, repeat_best: 2, LINES}
trial:
  dataset: {name: tip3p_water}
  model: {name: egnn, hidden: {choice: [8, 16, 32, 64]}}
  finetune:
    task: {name: energy_forces}
    epochs: 2
    batch_size: 2
    lr: {loguniform: [1e-4, 1]}
profiles: {quick: }
"""


def search(folder: Path, lines: str, more: str = "") -> Space:
    path = folder / "search.yaml"
    path.write_text(SPACE.replace("LINES", lines) + more)
    return load_space(str(path), "quick")


def as_work(trial: Trial) -> Job:
    return Job("trial", trial, "data")


def train(space: Space, root: Path, most: int = 100) -> Journal:
    """The first trials, so many at most: a larger model has the smaller error and costs more."""
    assert space.settings.search is not None
    journal = Journal(root / "journal.jsonl", METRIC)
    proposals = OptunaProposals(space, as_work, 1, journal.entries(), root)
    scheduler = Scheduler(
        proposals, METRIC, root, [journal], measured=space.settings.search.measured
    )
    while most and (work := scheduler.next()) is not None:
        most -= 1
        trial = work.trial
        error = 0.1 + 1 / trial.model.hidden + 0.01 * abs(np.log10(trial.finetune.lr) + 2)
        for epoch, factor in ((1, 1.0), (2, 1.5)):
            metrics = {METRIC: factor * error, "val_energy_rmse": factor * trial.finetune.lr}
            scheduler.report(work.key, EpochRecord("finetune", epoch, metrics))
        facts = {"parameters": trial.model.hidden**2, "peak_memory_mb": 1024 * trial.model.hidden}
        final = {"seconds": 8.0, "best_epoch": 1.0}
        result = JobResult("completed", metrics=final, facts=facts | {"train_frames": 7})
        scheduler.end(work.key, result)
    return journal


def test_the_front_is_what_no_other_point_beats() -> None:
    points = np.random.default_rng(0).integers(6, size=(60, 3)).astype(float)
    values = dict(enumerate(points.tolist()))
    expected = {
        one
        for one, own in enumerate(points)
        if not any((o <= own).all() and (o < own).any() for o in points)
    }
    assert set(front(values)) == expected
    assert set(best_first(values)[: len(expected)]) == expected
    assert sorted(best_first(values)) == list(values)


def test_a_result_has_the_errors_of_the_kept_weights_and_its_costs(tmp_path: Path) -> None:
    journal = train(search(tmp_path, "objectives: [val_force_rmse, parameters]"), tmp_path, 1)
    planned = journal.entry(0).planned
    result = JobResult(
        "completed",
        metrics={"best_epoch": 1.0, "seconds": 12.0},
        facts={"train_frames": 5, "parameters": 10, "peak_memory_mb": 2048},
    )
    errors = {1: {"val_energy_rmse": 0.3}, 2: {"val_energy_rmse": 0.2}}
    names = ("val_energy_rmse", "parameters", "step_seconds", "peak_memory")
    found = with_measures(result, planned.work, errors, names).metrics
    # Two epochs of three steps.
    assert [found[name] for name in names] == [0.3, 10.0, 2.0, 2.0]
    assert with_measures(JobResult("diverged"), planned.work, {}, names).metrics == {}


def test_a_search_with_two_objectives_ends_with_the_front_and_repeats_it(tmp_path: Path) -> None:
    space = search(tmp_path, "objectives: [val_force_rmse, parameters]")
    journal = train(space, tmp_path)
    entries, settings = journal.entries(), space.settings.search
    best = front_of(entries, settings)
    proposed = [entry for entry in entries.values() if not entry.planned.exempt]
    by_size = itertools.groupby(
        sorted(proposed, key=lambda entry: entry.planned.work.trial.model.hidden),
        key=lambda entry: entry.planned.work.trial.model.hidden,
    )
    # The best of each size, because a larger one has the smaller error whatever its rate.
    expected = {min(group, key=lambda e: e.values[0]).planned.number for _, group in by_size}
    assert {entry.planned.number for entry in best} == expected
    repeated = [entry.planned.work.trial for entry in entries.values() if entry.planned.exempt]
    assert [trial.seed for trial in repeated] == [1, 1]
    assert [t.model for t in repeated] == [e.planned.work.trial.model for e in best[:2]]


@pytest.mark.parametrize("sampler", ["tpe", "{name: nsgaii, population_size: 6}"])
def test_an_interrupted_search_with_two_objectives_goes_on_as_if_it_had_not_been(
    sampler: str, tmp_path: Path
) -> None:
    objectives = "objectives: [val_force_rmse, val_energy_rmse], at_most: {peak_memory: 40}"
    space = search(tmp_path, f"sampler: {sampler}, {objectives}")
    for name in ("whole", "pieces"):
        (tmp_path / name).mkdir()
    whole = train(space, tmp_path / "whole")
    for most in (12, 20, 100):
        pieces = train(space, tmp_path / "pieces", most)
    both = [
        [(e.planned.number, e.planned.work.key, e.planned.parameters, e.result) for e in each]
        for each in (pieces.entries().values(), whole.entries().values())
    ]
    assert both[0] == both[1]


def test_the_sampler_keeps_to_what_costs_at_most_the_limit(tmp_path: Path) -> None:
    """The best error is of the largest model, which is not allowed."""
    over = dict[str, int]()
    for limit in ("20", "1000"):
        (tmp_path / limit).mkdir()
        space = search(tmp_path, f"at_most: {{peak_memory: {limit}}}")
        entries = train(space, tmp_path / limit).entries()
        hidden = [entries[number].planned.work.trial.model.hidden for number in sorted(entries)]
        over[limit] = sum(size > 20 for size in hidden[15:30])
        assert (max(hidden[30:]) > 20) == (limit == "1000")
    assert over["20"] + 3 < over["1000"]


@pytest.mark.parametrize(
    ("lines", "more", "told"),
    [
        ("objectives: [val_force_rmse, price]", "", "search.objectives: must name some of"),
        ("objectives: [seconds, parameters]", "", "must contain `metric`, val_force_rmse"),
        ("objectives: [val_force_rmse, val_force_rmse]", "", "`objectives` must differ"),
        ("objectives: [val_force_rmse]", "", "search.objectives"),
        (
            "objectives: [val_force_rmse, seconds], learn_from: x",
            "",
            "`learn_from` must be left out",
        ),
        ("sampler: pb2", "", "`pb2` is not offered: its parts in Ray are private; take `sampler: "),
        ("", "early_stopping: {name: pbt}\n", "`pbt` is a sampler, which needs no early stopping"),
        ("at_most: {price: 3}", "", "search.at_most: must name some of"),
        ("at_most: {peak_memory: -1}", "", "search.at_most.peak_memory"),
        (
            "objectives: [val_force_rmse, seconds]",
            "early_stopping: {grace_epochs: 1}\n",
            ": early_stopping: must be left out with several `search.objectives`",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    lines: str, more: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        search(tmp_path, lines, more)
    assert len(refused.value.problems) == 1
    assert told in refused.value.problems[0]


def test_optuna_hears_of_every_objective(tmp_path: Path) -> None:
    space = search(tmp_path, "objectives: [val_force_rmse, seconds], at_most: {parameters: 100}")
    source = OptunaProposals(space, as_work, 1, {}, tmp_path)
    ends = [
        JobResult("diverged"),
        JobResult("completed", metrics={METRIC: 0.3, "seconds": 4.0, "parameters": 50.0}),
        JobResult("completed", metrics={METRIC: 0.2, "seconds": 9.0, "parameters": 150.0}),
        JobResult("diverged"),
    ]
    for result in ends:
        planned = source.next()
        assert isinstance(planned, Planned)
        source.ended(planned.number, result, [0.4])
    told = source.study.study.trials
    assert told[1].values == [0.3, 4.0]
    assert told[3].values == [0.3, 9.0]
    assert [trial.constraints["parameters"] for trial in told] == [0.0, -0.5, 0.5, 0.0]
    assert [trial.number for trial in source.study.study.best_trials] == [1]
