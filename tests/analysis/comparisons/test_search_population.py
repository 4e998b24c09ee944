"""What the tables say of population-based training, from hand-written records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.comparisons.cost import cost
from analysis.comparisons.outcomes import included
from analysis.comparisons.search import population
from analysis.html.headline import headline
from analysis.html.scope import population_grid, tuning_grid
from analysis.html.study_section import study_section
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from study.core.records import Tag

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
PBT = {"trials": 2, "sampler": {"name": "pbt", "interval": 2}}
LR = "finetune.lr"


@pytest.fixture
def study(tabulate: Tabulate, scratch: Build) -> Study:
    """Of two members the second is worse, goes on from the first, and becomes the best."""
    errors = [(0, 0.3, 0.01), (1, 0.4, 0.02), (2, 0.2, 0.01), (3, 0.1, 0.012)]
    parents = {2: 0, 3: 0, 4: 3}
    runs = [scratch(n, 0, error, **{LR: lr}, exempt=False) for n, error, lr in errors]
    runs.append(scratch(4, 0, 0.1, **{LR: 0.012}, exempt=False))
    for number, run in enumerate(runs):
        member = (number + number // 4) % 2
        run.tags.update({Tag.GENERATION: str(number // 2), Tag.MEMBER: str(member)})
        if number in parents:
            run.tags[Tag.PARENT] = runs[parents[number]].tags[Tag.KEY]
        if number < 4:
            run.tags[Tag.TUNING] = "True"
            run.points[:] = [p for p in run.points if not p.metric.startswith("test")]
    return tabulate(*runs, search=PBT)


def test_the_table_says_who_went_on_from_whom_and_who_became_the_best(study: Study) -> None:
    table = population(study)
    assert table.generation.tolist() == [0, 0, 1, 1]
    assert table.member.tolist() == [0, 1, 0, 1]
    assert table.parent.tolist()[2:] == [0, 0]
    assert table.parent.isna().tolist() == [True, True, False, False]
    assert table[LR].tolist() == [0.01, 0.02, 0.01, 0.012]
    assert table.error.tolist() == pytest.approx([0.3, 0.4, 0.2, 0.1])
    assert table.best.tolist() == [True, False, False, True]
    grid = population_grid(study)
    assert grid is not None
    assert [cell.text for cell in grid.rows[3]] == [
        "1",
        "1",
        "0",
        "0.012",
        "100",
        "becomes the best",
    ]


@pytest.mark.parametrize(("select", "best"), [("last", 0), ("best", 1)])
def test_the_best_is_judged_by_the_weights_that_are_kept(
    tabulate: Tabulate, scratch: Build, select: str, best: int
) -> None:
    """Of two tested members the second was better once, and is worse at the end."""
    changes = {LR: 0.01, "finetune.select": select}
    runs = [scratch(n, 0, 0.2, **changes, exempt=False) for n in range(4)]
    for number, run in enumerate(runs):
        run.tags.update({Tag.GENERATION: str(number // 2), Tag.MEMBER: str(number % 2)})
        if number < 2:
            run.tags[Tag.TUNING] = "True"
        else:
            run.tags[Tag.PARENT] = runs[number - 2].tags[Tag.KEY]
            name, last = "finetune/val_force_rmse", 0.2 + 0.1 * (number == 3)
            run.points[:] = [point for point in run.points if point.metric != name]
            run.points.extend([Point(name, 3, 0.3 - last / 2), Point(name, 4, last)])
    table = population(tabulate(*runs, search=PBT))
    assert table.best.tolist() == [best == 0, best == 1]


def test_only_the_winner_is_a_result_and_it_costs_nothing_beside_its_parts(study: Study) -> None:
    assert included(study).number.tolist() == [4]
    table = cost(study).set_index("stage")
    assert table.pieces.to_dict() == {"pretraining": 0, "finetuning": 1, "population": 4}
    assert table.seconds.to_dict() == {"pretraining": 0, "finetuning": 0, "population": 120}
    assert tuning_grid(study) is None


def test_the_report_words_it_as_the_best_of_a_search(study: Study) -> None:
    assert headline(study).sentence.startswith(
        "The best of a population of 2 has a test force RMSE"
    )
    said = study_section(study, Path("x"))["search"]
    assert said.startswith("A population of 2 went through 2 generations; once a member took over")


def test_another_study_has_no_population(tabulate: Tabulate, scratch: Build) -> None:
    study = tabulate(scratch(0, 0, 0.1))
    assert population(study).empty
    assert population_grid(study) is None
