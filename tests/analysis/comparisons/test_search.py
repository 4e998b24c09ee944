"""A hyperparameter search: history, importances, front and audit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.comparisons.cost import saved_by_stopping
from analysis.comparisons.search import audit, importances, objectives, pareto, timeline
from analysis.figures.search import drawings
from analysis.html.grids import front_grid
from analysis.html.study_section import _search
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]


@pytest.fixture
def search(tabulate: Tabulate, masked: Build, scratch: Build, audited: Build) -> Study:
    """Ten proposals, the ratio decides; one was stopped, and an audit finished it."""
    runs = [masked(n, 0, n / 10 + 0.05, (n + 1) / 100, exempt=False) for n in range(9)]
    stopped = masked(9, 0, 0.95, 0.3, status="stopped", exempt=False)
    late = audited(9, 0, 0.95, 0.005)
    return tabulate(*runs, stopped, late, scratch(10, 0, 0.4), search={"trials": 10})


def test_stopped_trials_are_marked_and_keep_their_error(search: Study) -> None:
    table = timeline(search).set_index("number")
    assert table.status[9] == "stopped"
    assert table.proposed.tolist() == [True] * 10 + [False]
    assert table.value[9] > 300


def test_what_decides_is_important_within_its_branch(search: Study) -> None:
    (row,) = importances(search).to_dict("records")
    assert (row["branch"], row["setting"]) == ("masking", "pretrain.task.masking_ratio")
    assert row["importance"] == pytest.approx(100)


def test_a_search_says_why_it_has_no_importances(
    search: Study, tabulate: Tabulate, masked: Build, scratch: Build
) -> None:
    assert "importances need" not in _search(search)
    runs = [masked(n, 0, n / 10 + 0.05, (n + 1) / 100, exempt=False) for n in range(7)]
    more = [scratch(n, 0, 0.4, exempt=False) for n in range(7, 10)]
    few = tabulate(*runs, *more, search={"trials": 10})
    assert importances(few).empty
    assert "importances need at least 8 trials per pretraining task" in _search(few)
    assert _search(few).endswith("here there are at most 7.")


def test_nothing_is_better_and_cheaper_than_the_front(search: Study) -> None:
    table = pareto(search)
    assert table[table.front].number.tolist()[-1] == 0
    assert 9 not in set(table.number)


def test_an_audit_tells_which_winners_were_stopped(search: Study) -> None:
    found = audit(search)
    assert (found["stopped"], found["sampled"], found["better"], found["rank"]) == (1, 1, 1, 1)
    assert found["high"] == pytest.approx(100)
    assert saved_by_stopping(search)["seconds"] >= 0


def test_an_audit_that_diverges_is_no_winner(
    tabulate: Tabulate, masked: Build, audited: Build
) -> None:
    ends: list[dict[str, object]] = [{"status": "stopped", "exempt": False} for _ in range(3)]
    runs = [masked(n + 1, 0, 0.5, 0.3, **end) for n, end in enumerate(ends)]
    audits = [audited(n + 1, 0, 0.5, 0.1, status=s) for n, s in enumerate(("diverged", "failed"))]
    found = audit(tabulate(masked(0, 0, 0.5, 0.2, exempt=False), *runs, *audits, search={}))
    assert (found["stopped"], found["sampled"], found["better"], found["rank"]) == (3, 1, 0, 2)


def test_a_repeat_that_was_planned_before_the_last_proposal_is_no_proposal(
    tabulate: Tabulate, masked: Build
) -> None:
    runs = [masked(n, n, 0.5, 0.1, exempt=n == 1) for n in range(3)]
    table = timeline(tabulate(*runs, search={"trials": 2}))
    assert table.proposed.tolist() == [True, False, True]


def test_the_front_of_several_objectives_stays_within_the_limits(
    tabulate: Tabulate, masked: Build
) -> None:
    errors, sizes = (0.01, 0.02, 0.03, 0.04, 0.05), (90, 80, 10, 20, 30)
    runs = [masked(n, 0, n / 10 + 0.05, errors[n], exempt=False) for n in range(5)]
    for run, error, size in zip(runs, errors, sizes, strict=True):
        run.tags["study.parameters"] = str(size)
        run.points.append(Point("val_force_rmse", 4, error))
    limits = {"objectives": ["val_force_rmse", "parameters"], "at_most": {"parameters": 85}}
    study = tabulate(*runs, search={"trials": 5} | limits)
    table = objectives(study)
    assert table[table.front].number.tolist() == [1, 2]
    grid = front_grid(study)
    assert grid is not None
    assert [column.unit for column in grid.columns] == ["", "", "meV/Å", ""]
    assert [[row[n].text for n in (0, 2, 3)] for row in grid.rows] == [
        ["1", "20.0", "80.0"],
        ["2", "30.0", "10.0"],
    ]
    assert [drawing.name for drawing in drawings(study)][:2] == ["timeline", "front"]
