"""The comparison of a study with an undisturbed one finds what is lost, doubled or changed."""

from __future__ import annotations

import pytest

from tests.chaos.records import Records, differences

CURVE = {("finetune", epoch, "val_force_rmse"): 1 / epoch for epoch in (1, 2)}


def usual() -> Records:
    return Records(
        weights={"trial-a": "0a", "trial-b": "0b"},
        points={"a": {("val_force_rmse", 1): 1.0, ("val_force_rmse", 2): 0.5}, "b": {}},
        logged={"a": "0a"},
        status={"a": "completed", "b": "completed"},
        rows={"a": {"status": "completed", "seed": 0, "number": 0, "test_force_rmse": 0.5}},
        curves={"a": dict(CURVE)},
    )


def test_an_undisturbed_study_differs_in_nothing() -> None:
    assert differences("grid", usual(), usual()) == []


@pytest.mark.parametrize("kind", ["weights", "points", "logged", "status", "rows", "curves"])
def test_what_is_lost_changed_or_new_is_named(kind: str) -> None:
    lost, changed, more = usual(), usual(), usual()
    name = next(iter(getattr(lost, kind)))
    del getattr(lost, kind)[name]
    other = {"status": "other"} if kind == "rows" else "other"
    getattr(changed, kind)[name] = getattr(more, kind)["new"] = other
    assert differences("grid", lost, usual()) == [f"{kind}: lost {name}"]
    assert len(differences("grid", changed, usual())) == 1
    assert differences("search", more, usual()) == [f"{kind}: unknown new"]


def test_what_is_there_twice_is_named() -> None:
    found = usual()
    found.doubled.append("MLflow run of a")
    assert differences("grid", found, usual()) == ["doubled: MLflow run of a"]


def test_a_search_may_leave_arms_out_and_stop_early_but_not_differ() -> None:
    found = usual()
    del found.weights["trial-a"], found.logged["a"], found.points["b"], found.status["b"]
    found.status["a"] = "stopped"
    del found.points["a"]["val_force_rmse", 2]
    found.rows["a"] = {"status": "stopped", "seed": 0, "number": 4}
    del found.curves["a"]["finetune", 2, "val_force_rmse"]
    assert differences("search", found, usual()) == []
    assert differences("grid", found, usual())
    found.points["a"]["val_force_rmse", 1] = 1.1
    assert len(differences("search", found, usual())) == 1
