"""Compute of trials on CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Callable

from analysis.comparisons.arms import arms
from analysis.records.mlflow_reader import Point, Run
from analysis.records.study_tables import Study

Build = Callable[..., Run]
Tabulate = Callable[..., Study]
SEEDS = range(3)


def on_a_cpu(run: Run, seconds: float) -> Run:
    run.tags["study.device"] = "cpu"
    run.points.append(Point("cpu_seconds", 0, seconds))
    return run


def test_compute_is_processor_time_if_all_was_done_on_cpus(
    tabulate: Tabulate, scratch: Build
) -> None:
    some = [on_a_cpu(scratch(seed, seed, 0.1), 12.0) for seed in SEEDS]
    assert set(arms(tabulate(*some))["compute"]) == {12}
    assert set(arms(tabulate(*some, scratch(3, 3, 0.1)))["compute"]) == {30}
    some[0].tags["study.device"] = "NVIDIA H200"
    assert set(arms(tabulate(*some))["compute"]) == {30}
