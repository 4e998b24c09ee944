"""What the tables say of population-based training, from hand-written records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.comparisons.cost import cost, reuse
from analysis.comparisons.outcomes import included, population
from analysis.comparisons.search import importances, pareto, timeline
from analysis.figures.search import drawings
from analysis.html.explore import explorable
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
    return tabulate(*population_of_two(runs, parents), search=PBT)


def population_of_two(runs: list[Run], parents: dict[int, int]) -> list[Run]:
    """Tags of two generations of two members, and of the test of one of them."""
    for number, run in enumerate(runs):
        member = (number + number // 4) % 2
        run.tags.update({Tag.GENERATION: str(number // 2), Tag.MEMBER: str(member)})
        if number in parents:
            run.tags[Tag.PARENT] = runs[parents[number]].tags[Tag.KEY]
        if number < 4:
            run.tags[Tag.TUNING] = "True"
            run.points[:] = [p for p in run.points if not p.metric.startswith("test")]
    return runs


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


def test_the_history_has_all_parts_and_the_front_only_what_was_tested(study: Study) -> None:
    table = timeline(study)
    assert table.number.tolist() == [0, 1, 2, 3, 4]
    assert table.value.tolist() == pytest.approx([300, 400, 200, 100, 100])
    # Each run has recorded 30 s; a part stands with those that it goes on from.
    assert table.seconds.tolist() == [30, 30, 60, 60, 30]
    assert pareto(study).number.tolist() == [4]
    first = drawings(study)[0]
    assert "part of a population and of each test" in first.caption
    assert first.caption.endswith("n = 5 trials: 5 completed.")
    shown = explorable(study)
    assert [trial["number"] for trial in shown["trials"]] == [0, 1, 2, 3, 4]
    assert [trial["tests"][0] is None for trial in shown["trials"]] == [True] * 4 + [False]
    assert "finetune lr" in [setting["label"] for setting in shown["settings"]]
    progress = study_section(study, Path("x"))["progress"]
    assert progress.startswith("5 of 5 trials completed (4 of them parts of the population); 2 min")


def test_a_pretraining_is_shared_by_the_members_that_begin_with_it(
    tabulate: Tabulate, masked: Build, pretrained: Build
) -> None:
    runs = [masked(n, 0, 0.5, 0.1, exempt=False) for n in range(5)]
    parts = population_of_two(runs, {2: 0, 3: 0, 4: 3})
    study = tabulate(pretrained(0, 0.5, 0.3), *parts, search=PBT)
    assert reuse(study)[["trials", "saved_seconds"]].to_numpy().tolist() == [[2, 10]]
    # 4 parts of 30 s and one pretraining of 10 s, in place of two.
    assert study_section(study, Path("x"))["sharing"] == (
        "1 pretraining runs were used by 2 finetuning runs. Sharing saved 10.0 s, 7 % of the cost"
        " of separate training."
    )
    running = tabulate(pretrained(0, 0.5, 0.3), *parts[:2], search=PBT)
    assert reuse(running).trials.tolist() == [2]
    said = study_section(running, Path("x"))["progress"]
    assert said.startswith("2 of 2 trials completed (2 of them parts of the population)")


def test_importances_are_those_of_the_first_generation(tabulate: Tabulate, scratch: Build) -> None:
    """Later ones go on from chosen weights: theirs would be those of an inheritance."""
    runs = [scratch(n, 0, 0.1 * (n % 8 + 1), **{LR: 0.01 * (n % 8 + 1)}) for n in range(16)]
    for number, run in enumerate(runs):
        run.tags.update({Tag.GENERATION: str(number // 8), Tag.MEMBER: str(number % 8)})
        run.tags.update({Tag.TUNING: "True", Tag.EXEMPT: "False"})
    study = tabulate(*runs, search=PBT | {"trials": 8})
    (row,) = importances(study).to_dict("records")
    assert (row["setting"], row["n"]) == (LR, 8)
    assert row["importance"] == pytest.approx(100)
    assert "the first generation reached" in drawings(study)[-1].caption


def test_another_study_has_no_population(tabulate: Tabulate, scratch: Build) -> None:
    study = tabulate(scratch(0, 0, 0.1))
    assert population(study).empty
    assert population_grid(study) is None
