"""What records hold: no password, weights beside them, text that stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.core.atomic_io import write_hashed, write_json
from study.core.hashing import digest
from study.core.quantities.metrics import METRICS
from study.core.records import (
    COST_METRICS,
    JobResult,
    StageName,
    curve_name,
    few_words,
    load_result,
    recorded_curve,
    without_password,
)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:5000", "http://host:5000"),
        ("http://me:se@cret/?#@host:5000/path", "http://host:5000/path"),
        ("--tracking-uri=https://secret@host", "--tracking-uri=https://host"),
        (
            "postgresql://host/db?password=secret&sslmode=require",
            "postgresql://host/db?sslmode=require",
        ),
        ("postgresql://me:se@cret:/#@host/db?user=you", "postgresql://me@host/db"),
        (
            "--tracking-uri=postgresql+psycopg://:secret@host/db",
            "--tracking-uri=postgresql+psycopg://host/db",
        ),
        ("mysql+pymysql://me:secret@host/db?ssl_key=secret", "mysql+pymysql://host/db"),
        ("http://host?access_token=secret&TOKEN=secret&page=1", "http://host?page=1"),
        ("mysql://me:12/3@host/db", "mysql://host/db"),
        ("s3://bucket/a@b.xyz", "s3://bucket/a@b.xyz"),
        ("https://host:5000/a@b.xyz?key=secret", "https://host:5000/a@b.xyz"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("trial.finetune.epochs=5", "trial.finetune.epochs=5"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_curves_are_grouped_and_read_by_stage_and_metric(stage: StageName) -> None:
    for metric in METRICS:
        name, earlier = curve_name(stage, metric), f"{stage}/{metric}"
        assert recorded_curve(name) == recorded_curve(earlier) == earlier
        assert (metric in COST_METRICS) == (name.removeprefix("pretrain/").startswith("work/"))
    # As MLflow's pages sort their sections.
    names = [curve_name("finetune", metric) for metric in ("seconds", "lr", "val_force_rmse")]
    assert sorted(names) == ["val/force_rmse", "weights/lr", "work/seconds"]
    for other in ("test_force_rmse", "test_force_rmse/egnn scratch", "system/cpu", "system/val/x"):
        assert recorded_curve(other) == other


def test_weights_lie_beside_their_result_whoever_wrote_it(tmp_path: Path) -> None:
    for folder in (tmp_path / "job", tmp_path / "elsewhere"):
        folder.mkdir()
        weights = write_hashed(folder, "weights", ".safetensors", b"content")
    for name, loaded in (
        (weights.name, True),
        (str(weights), False),
        (f"../elsewhere/{weights.name}", False),
    ):
        value = {"weights": name}
        write_json(tmp_path / "job" / "result.json", value | {"digest": digest(value)})
        assert (load_result(tmp_path / "job") is not None) == loaded


@pytest.mark.parametrize(
    "value",
    [None, 5, "x", [], {}, {"status": "paid"}, {"status": "failed", "reason": 5}]
    + [{"status": "failed", "metrics": each} for each in ([], "x", {"a": "b"}, {"a": None})],
)
def test_what_is_no_result_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        JobResult.from_json(value)


def test_many_settings_are_told_by_the_first_two_unless_others_distinguish() -> None:
    one, other = ["a 1", "b 1", "c 1", "d 1", "e 1"], ["a 2", "b 1", "c 1", "d 1", "e 1"]
    last = [*one[:4], "e 2"]
    assert few_words([one, other], ["scratch", ""]) == [
        "scratch, a 1, b 1 and 3 more",
        "a 2, b 1 and 3 more",
    ]
    assert few_words([one, last], ["x", "x"]) == ["x, " + ", ".join(one), "x, " + ", ".join(last)]
    assert few_words([one[:4], []], ["x", "y"]) == ["x, a 1, b 1, c 1, d 1", "y"]
