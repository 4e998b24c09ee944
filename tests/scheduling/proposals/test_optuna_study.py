"""What the sampler learns of trials that diverged, on a surrogate with a divergent region."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Journal
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.proposals.optuna_study import RepeatableSampler
from study.scheduling.protocols import Planned
from study.space.search_space import Space, load_space
from study.training.config import Stage

METRIC, SEEDS = "val_force_rmse", (0, 1, 2)

SPACE = """\
question: Which learning rate still holds?
seeds: [0]
baseline: false
search: {trials: 50, seed: SEED, repeat_best: 0}
trial:
  dataset: {name: tip3p_water}
  model: {name: egnn}
  finetune:
    task: {name: energy_forces}
    epochs: 9
    batch_size: 2
    lr: {loguniform: [1e-4, 1]}
    weight_decay: {loguniform: [1e-6, 1e-1]}
profiles: {quick: }
"""


def search(folder: Path, seed: int, more: str = "") -> Space:
    path = folder / f"search{seed}.yaml"
    path.write_text(SPACE.replace("SEED", str(seed)) + more)
    return load_space(str(path), "quick")


def ending(planned: Planned) -> tuple[str, list[float]]:
    """The error falls up to a learning rate of 0.025; above 0.03 training diverges."""
    stage: Stage = planned.work.trial.finetune
    if stage.lr > 0.03:
        return "diverged", [5.0]
    away = 0.05 * abs(math.log10(stage.lr) + 1.6) + 0.01 * abs(math.log10(stage.weight_decay) + 3)
    return "completed", [0.2, 0.09 + away]


def run(space: Space, journal: Journal, number: int = 50) -> list[Planned]:
    """The first `number` proposals, one after the other."""
    work = lambda trial: Job("trial", trial, "data")  # noqa: E731
    source, done = OptunaProposals(space, work, 1, journal.entries()), list[Planned]()
    while len(done) < number and isinstance(planned := source.next(), Planned):
        done.append(planned)
        journal.planned(planned)
        if journal.entry(planned.number).over:
            continue
        status, values = ending(planned)
        for epoch, value in enumerate(values, start=1):
            source.reported(planned.number, epoch, value)
            journal.recorded(planned.work, EpochRecord("finetune", epoch, {METRIC: value}))
        result = JobResult(status)  # type: ignore[arg-type]
        journal.ended(planned.work, result)
        source.ended(planned.number, result, values)
    return done


def test_a_search_leaves_the_region_where_trials_diverge(tmp_path: Path) -> None:
    """A random search diverges in 19 of 50; one that ignores divergence in 37 and more of 50."""
    found = [
        run(search(tmp_path, seed), Journal(tmp_path / f"{seed}.jsonl", METRIC)) for seed in SEEDS
    ]
    ends = [[ending(planned) for planned in proposals] for proposals in found]
    diverged = [sum(status == "diverged" for status, _ in each) for each in ends]
    best = [min(min(values) for status, values in each if status == "completed") for each in ends]
    assert max(diverged) <= 25
    assert sum(best) / len(best) < 0.107


@pytest.mark.parametrize("stopping", ["", "early_stopping: {grace_epochs: 1}\n"])
def test_a_search_with_divergence_goes_on_as_if_it_had_not_been_interrupted(
    stopping: str, tmp_path: Path
) -> None:
    space = search(tmp_path, 1, stopping)
    whole = run(space, Journal(tmp_path / "whole.jsonl", METRIC))
    for cut in (1, 14, 30, 50):
        pieces = run(space, Journal(tmp_path / "pieces.jsonl", METRIC), cut)
    assert pieces == whole


def test_a_search_space_that_is_remembered_changes_no_proposal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = search(tmp_path, 2, "early_stopping: {grace_epochs: 1}\n")
    remembering = run(space, Journal(tmp_path / "remembering.jsonl", METRIC), 25)
    by_itself: Callable[..., Any] = lambda it, *told: it.sampler.infer_relative_search_space(*told)  # noqa: E731
    monkeypatch.setattr(RepeatableSampler, "infer_relative_search_space", by_itself)
    assert run(space, Journal(tmp_path / "forgetful.jsonl", METRIC), 25) == remembering


def test_where_trials_are_stopped_early_a_diverged_one_ranks_behind_them(tmp_path: Path) -> None:
    space = search(tmp_path, 0, "early_stopping: {grace_epochs: 1}\n")
    source = OptunaProposals(space, lambda trial: Job("trial", trial, "data"), 1, {})
    for status, value in (("diverged", 9.0), ("completed", 0.1), ("stopped", 0.3), ("diverged", 9)):
        planned = source.next()
        assert isinstance(planned, Planned)
        source.reported(planned.number, 1, value)
        source.ended(planned.number, JobResult(status), [value])  # type: ignore[arg-type]
    told = source.study.study.trials
    assert [trial.state.name for trial in told] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert [trial.value for trial in told] == [math.inf, 0.1, 0.3, 0.3]
    assert [trial.constraints["hopeless"] > 0 for trial in told] == [True, False, False, True]
