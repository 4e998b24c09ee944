"""What the arms of a study were given, and what its seeds varied, from hand-written records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.comparisons.arms import arms
from analysis.comparisons.cost import cost
from analysis.comparisons.error_tables import final_errors
from analysis.html.scope import scope, tuning_grid, tunings
from analysis.records.mlflow_reader import Run
from analysis.records.study_tables import Study
from study.core.records import Tag

Build = Callable[..., Run]
LR = "finetune.lr"
TUNE = {"each_arm": {LR: {"loguniform": [1e-3, 1e-1]}}, "proposals": 3, "seed": 9}


def tuning(run: Run) -> Run:
    run.tags[Tag.TUNING] = "True"
    return run


@pytest.fixture
def study(
    tabulate: Callable[..., Study], scratch: Build, masked: Build, pretrained: Build
) -> Study:
    """Scratch is best at 0.1, masking at 0.01; its largest rate diverged."""
    rates = (0.001, 0.01, 0.1)
    given = [
        tuning(scratch(n, 9, error, **{LR: rate}))
        for n, (rate, error) in enumerate(zip(rates, (0.3, 0.2, 0.1), strict=True))
    ]
    for n, (rate, error, status) in enumerate(
        zip(rates, (0.2, 0.05, 0.01), ("completed", "completed", "diverged"), strict=True)
    ):
        given.append(tuning(masked(n + 3, 9, 0.5, error, **{LR: rate}, status=status)))
    first = tuning(pretrained(9, 0.5, 0.4))
    reported = [scratch(6 + seed, seed, 0.10 + seed / 100, **{LR: 0.1}) for seed in range(3)]
    reported += [masked(9 + seed, seed, 0.5, 0.09 + seed / 100, **{LR: 0.01}) for seed in range(3)]
    others = [pretrained(seed, 0.5, 0.3) for seed in range(3)]
    return tabulate(*given, first, *reported, *others, tune=TUNE)


def test_tuning_trials_are_in_no_table_of_results(study: Study) -> None:
    assert sorted(study.trials.number) == [6, 7, 8, 9, 10, 11]
    assert sorted(study.tuning.kind) == ["pretrain", *6 * ["trial"]]
    assert set(study.pretrainings.seed) == {0, 1, 2}
    assert set(arms(study).arm) == {"from scratch", "masking 0.5"}


def test_arms_are_compared_with_scratch_at_its_own_rate(study: Study) -> None:
    table = final_errors(study)
    force = table[table.quantity == "force_rmse"].set_index("arm")
    assert force.loc["masking 0.5", "reference"] == "from scratch"
    assert force.loc["masking 0.5", "n"] == 3


def test_the_table_says_what_each_arm_was_given(study: Study) -> None:
    table = tunings(study).set_index("arm")
    assert table.proposals.to_dict() == {"from scratch": 3, "masking 0.5": 3}
    assert table.completed.to_dict() == {"from scratch": 3, "masking 0.5": 2}
    assert table[LR].to_dict() == {"from scratch": 0.1, "masking 0.5": 0.01}
    assert table[f"at_end {LR}"].to_dict() == {"from scratch": True, "masking 0.5": False}
    assert table.error.to_dict() == {"from scratch": 0.1, "masking 0.5": 0.05}
    # Completed trials take 30 s, the shared pretraining 10 s; the diverged one recorded none.
    assert table.seconds.to_dict() == {"from scratch": 90.0, "masking 0.5": 70.0}
    grid = tuning_grid(study)
    assert grid is not None
    assert [[cell.text for cell in row] for row in grid.rows] == [
        ["from scratch", "3", "0.1", "100", "90.0 s"],
        ["masking 0.5", "3", "0.01", "50.0", "70.0 s"],
    ]
    assert grid.rows[0][2].notes == ("an end of the range",)
    assert [row[1].notes for row in grid.rows] == [(), ("2 completed",)]


def test_the_cost_of_tuning_is_a_stage_of_its_own(study: Study) -> None:
    table = cost(study).set_index("stage")
    assert table.pieces.to_dict() == {"pretraining": 3, "finetuning": 6, "tuning": 7}


def test_a_study_without_tuning_has_no_such_table(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    assert tuning_grid(tabulate(scratch(0, 0, 0.1))) is None


def on_part(run: Run, groups: str, **tags: Any) -> Run:
    run.tags.update({"study.test_hash": f"test {groups}", "study.tested": groups, **tags})
    run.tags["study.all_groups"] = "10"
    return run


def test_seeds_that_tested_on_the_same_part_are_named(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    parts = ["4", "7", "4"]
    said = scope(tabulate(*(on_part(scratch(n, n, 0.1), p) for n, p in enumerate(parts))))
    assert "Intervals are over 3 seeds" in said
    assert "All seeds share one data set" in said
    assert "They tested on 2 different parts of it, 2 of its 10" in said
    assert "Seeds 0 and 2 tested on the same part" in said


def test_groups_of_frames_are_counted_only_where_there_are_several(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    runs = [on_part(scratch(n, n, 0.1), "0", **{"study.test_hash": f"{n}"}) for n in range(2)]
    for run in runs:
        run.tags["study.all_groups"] = "1"
    assert "They tested on 2 different parts of it." in scope(tabulate(*runs))


def test_seeds_with_data_of_their_own_are_said_to_have_them(
    tabulate: Callable[..., Study], scratch: Build
) -> None:
    runs = [on_part(scratch(n, n, 0.1), "4", **{Tag.DATA: f"data {n}"}) for n in range(3)]
    said = scope(tabulate(*runs))
    assert "a data set and the split of it" in said
    assert "share" not in said
    assert "same part" not in said
