"""The space that repeats the winner of a search: read back as any other space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from study.core.records import JobResult, flatten
from study.pipeline.job import Job
from study.scheduling.journal import Entry
from study.scheduling.proposals.confirmation import Confirmation, confirmation
from study.scheduling.protocols import Planned
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from study.space.yaml_loader import as_block
from tests.search_space import SEARCH_SPACE


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH_SPACE)
    return load_space(str(path), "quick")


class Proposal:
    """Fills the holes of the space: pretrained with this ratio, or not at all."""

    def __init__(self, ratio: float | None, lr: float) -> None:
        chosen = {} if ratio is None else {"pretrain.masking.task.masking_ratio": ratio}
        option = "scratch" if ratio is None else "masking"
        self.parameters = {"pretrain": option, "finetune.lr": lr, **chosen}

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        assert self.parameters[name] in choices
        return self.parameters[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert step is None
        assert low <= self.parameters[name] <= high
        assert log == (name == "finetune.lr")
        return float(self.parameters[name])

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        raise AssertionError((name, low, high, step, log))


def entry(number: int, trial: Trial, error: float, **planned: Any) -> Entry:
    status = "completed" if math.isfinite(error) else "stopped"
    metrics = {"test_force_rmse": error} if status == "completed" else {}
    result = JobResult(status, metrics=metrics)  # type: ignore[arg-type]
    return Entry(Planned(number, Job("trial", trial, "d"), **planned), [0.5, error], result)


def proposed(space: Space, *errors: tuple[float | None, float, float]) -> list[Entry]:
    """Ended proposals: ratio, learning rate and error of each."""
    made = []
    for number, (ratio, lr, error) in enumerate(errors):
        proposal = Proposal(ratio, lr)
        trial = space.propose(proposal)
        made.append(entry(number, trial, error, parameters=proposal.parameters, exempt=False))
    return made


def repeated(best: Entry, errors: Sequence[float], scratch: Sequence[float]) -> list[Entry]:
    trial = best.planned.work.trial
    baseline = Space.from_scratch(trial)
    return [
        entry(90 + seed, each.model_copy(update={"seed": seed}), error)
        for each, of in ((trial, errors), (baseline, scratch))
        for seed, error in zip((6, 7) if each is trial else (5, 6, 7), of, strict=True)
    ]


def read(found: Confirmation | None, folder: Path, seeds: int = 8) -> Space:
    assert found is not None
    path = folder / "confirm.yaml"
    path.write_text(found.text("search-quick", seeds))
    return load_space(str(path), None)


def test_the_winner_and_its_baseline_are_a_grid_on_new_seeds(space: Space, tmp_path: Path) -> None:
    lucky = (0.9, 1e-3, math.inf)  # Stopped early.
    journal = proposed(space, (0.37, 3e-4, 0.2), lucky, (0.5, 2.5e-5, 0.1), (None, 1e-2, 0.3))
    grid = read(confirmation(space, journal), tmp_path).grid()
    assert [trial.seed for trial in grid[::2]] == [0, 1, 2, 3, 4, 6, 7, 8]
    winner = journal[2].planned.work.trial
    for scratch, pretrained in zip(grid[::2], grid[1::2], strict=True):
        assert pretrained == winner.model_copy(update={"seed": pretrained.seed})
        assert scratch == winner.model_copy(
            update={"seed": pretrained.seed, "pretrain": None, "transfer": "body"}
        )


def test_what_has_been_repeated_wins_by_its_mean(space: Space, tmp_path: Path) -> None:
    journal = proposed(space, (0.37, 3e-4, 0.2), (0.5, 2.5e-5, 0.25), (0.9, 1e-5, 0.1))
    journal += repeated(journal[0], [0.2, 0.3], [0.4, 0.5, 0.6])
    journal += repeated(journal[1], [0.2, 0.1], [0.4, 0.5, 0.6])
    found = confirmation(space, journal)
    assert found is not None
    assert found.winner == journal[1].planned.work.trial
    # ln of 0.25 / 0.4, 0.2 / 0.5 and 0.1 / 0.6.
    logs = [-0.4700036, -0.9162907, -1.7917595]
    mean = sum(logs) / 3
    assert found.spread == pytest.approx((sum((x - mean) ** 2 for x in logs) / 2) ** 0.5)
    assert read(found, tmp_path, 2).settings.seeds == [0, 1]


def test_a_winner_without_pretraining_stands_beside_the_best_with_it(
    space: Space, tmp_path: Path
) -> None:
    journal = proposed(space, (0.37, 3e-4, 0.2), (0.5, 2e-4, 0.3), (None, 1e-2, 0.1))
    grid = read(confirmation(space, journal), tmp_path, 1).grid()
    # The winner, the best pretrained one, and the same from scratch.
    assert len(grid) == 3
    winners = [journal[at].planned.work.trial.model_copy(update={"seed": 0}) for at in (0, 2)]
    assert all(winner in grid for winner in winners)


def test_data_of_the_command_line_are_found_from_the_new_space(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.extxyz").touch()
    dataset = as_block({"name": "ase_file", "path": "w.extxyz"})
    given = load_space(str(space.path), "quick", [(["trial", "dataset"], dataset)])
    found = confirmation(given, proposed(given, (0.5, 1e-3, 0.2)))
    (tmp_path / "study").mkdir()
    (trial, *_) = read(found, tmp_path / "study", 1).grid()
    assert trial.dataset.path == str(tmp_path / "w.extxyz")  # type: ignore[union-attr]


def test_a_search_without_a_completed_proposal_has_nothing_to_confirm(space: Space) -> None:
    assert confirmation(space, proposed(space, (0.5, 1e-3, math.inf))) is None


def test_what_was_searched_has_the_names_of_the_trial(space: Space) -> None:
    (found,) = proposed(space, (0.25, 0.01, 0.5))
    settings = dict(flatten(found.planned.work.settings))
    searched = [name for name in found.planned.searched if name != "pretrain"]
    assert {name: settings[name] for name in searched} == {
        "finetune.lr": 0.01,
        "pretrain.task.masking_ratio": 0.25,
    }
    nested = {"model": "a.b", "model.a.b.inner": "c 2", "model.a.b.inner.c 2.depth": 3}
    planned = Planned(0, found.planned.work, nested, exempt=False)
    assert list(planned.searched) == ["model", "model.inner", "model.inner.depth"]
