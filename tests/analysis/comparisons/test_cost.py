"""Cost of stages, and savings by sharing and stopping."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from analysis.comparisons.cost import cost, reuse
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study
from study.core.records import Tag

Build = Callable[..., Run]


def test_sharing_saves_all_but_the_first_use(
    tabulate: Callable[..., Study], masked: Build, pretrained: Build
) -> None:
    trials = [masked(n, 0, 0.5, 0.1, **{"finetune.lr": 10.0**-n}) for n in range(3)]
    study = tabulate(*trials, pretrained(0, 0.5, 0.2))
    assert reuse(study)[["trials", "saved_seconds"]].to_numpy().tolist() == [[3, 20.0]]
    assert cost(study).seconds.tolist() == [10.0, 90.0]


def test_epochs_that_pretrainings_share_are_paid_once(
    tabulate: Callable[..., Study], masked: Build, pretrained: Build
) -> None:
    whole = {Tag.WHOLE: "w" * 64}
    short, long = (pretrained(0, ratio, 0.2, **whole) for ratio in (0.25, 0.5))
    long.points[-1] = Point("seconds", 0, 25.0)
    trials = [masked(0, 0, 0.25, 0.1), masked(1, 0, 0.5, 0.1), masked(2, 0, 0.5, 0.2)]
    study = tabulate(*trials, short, long)
    table = reuse(study).sort_values("seconds")
    assert table[["seconds", "saved_seconds"]].to_numpy().tolist() == [[10.0, 0.0], [15.0, 35.0]]
    assert cost(study).seconds.tolist() == [25.0, 90.0]


def test_an_audit_costs_only_what_it_added_to_the_stopped_trial(
    tabulate: Callable[..., Study], masked: Build, audited: Build, pretrained: Build
) -> None:
    stopped = [masked(n, 0, 0.5, 0.3, status="stopped") for n in range(2)]
    for run in stopped:
        run.points.extend([Point("finetune/seconds", 2, 12.0), Point("finetune/flops", 2, 2e9)])
    # One went on from the trial's checkpoint; the other found none and began anew.
    late, anew = audited(0, 0, 0.5, 0.2), audited(1, 0, 0.5, 0.2)
    late.points.append(Point("flops", 0, 5e9))
    anew.points[:] = [p._replace(value=8.0) if p.metric == "seconds" else p for p in anew.points]
    anew.points.append(Point("flops", 0, 1e9))
    study = tabulate(*stopped, late, anew, pretrained(0, 0.5, 0.2), search={"trials": 2})
    table = cost(study).set_index("stage")
    assert table.seconds.to_dict() == {"pretraining": 10, "finetuning": 24, "audit": 18 + 8}
    assert table.flops["audit"] == pytest.approx(3e9 + 1e9)
    assert math.isnan(table.flops["pretraining"])
