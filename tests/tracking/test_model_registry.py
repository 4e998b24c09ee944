"""What people find in MLflow: the study's page, one row per trial, and the best model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis import export, report
from study import predict
from study.core.records import Tag, as_markdown
from study.datasets.frames import Frames
from study.inference.ase_calculator import StudyCalculator
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from tests.recorded_study import record_study

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def recorded(small_study: StudyDir, tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    """The small study with its records in MLflow."""
    root = tmp_path_factory.mktemp("recorded") / "runs"
    shutil.copytree(small_study.root, root)
    return record_study(StudyDir(root, small_study.name))


def page_of(study: StudyDir) -> tuple[MlflowClient, Run]:
    """The study's own run."""
    client = MlflowClient(study.tracking_uri())
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`{Tag.KIND}` = 'study'")
    return client, run


def test_the_study_page_has_space_verdict_and_report(recorded: StudyDir, tmp_path: Path) -> None:
    assert export.main([str(recorded.path)]) == 0
    assert report.main([str(recorded.path), "--log"]) == 0
    client, run = page_of(recorded)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"space.yaml", "report"}
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "report")}
    names = {"report.html", "claims.csv", "verdicts.parquet", "explore.html"}
    made = {file.name for file in (recorded.path / "report").iterdir()} & names
    assert logged == {f"report/{name}" for name in made | {"arms.json"}}
    check_arms(run, recorded)
    page = client.download_artifacts(run.info.run_id, "report/report.html", str(tmp_path))
    assert Path(page).read_bytes() == (recorded.path / "report/report.html").read_bytes()
    space = client.download_artifacts(run.info.run_id, "space.yaml", str(tmp_path))
    assert "masking_ratio: 0.5" in Path(space).read_text()
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.note.content"] == "Does masking help?"
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("Does masking help?")
    check_table(note, run)
    headlines = json.loads((recorded.path / "report/headlines.json").read_bytes())
    assert as_markdown(headlines[recorded.name]["sentence"]) in note
    claims = pd.read_csv(recorded.path / "report/claims.csv")
    verdicts = claims[claims.study == recorded.name]
    assert len(verdicts)
    for row in verdicts.itertuples():
        assert f"- {row.claim}: **{row.verdict}**" in note


def check_arms(run: Run, study: StudyDir) -> None:
    """The study's run has each arm's mean errors, as the journal gives them."""
    errors: dict[str, list[float]] = {}
    for entry in Journal(study.journal, "").entries().values():
        if entry.result and entry.result.status == "completed":
            arm = entry.planned.work.label.rpartition(", seed")[0]
            errors.setdefault(arm, []).append(entry.result.metrics["test_force_rmse"])
    assert errors
    for arm, values in errors.items():
        mean = run.data.metrics[f"test_force_rmse/{arm}"]
        assert mean == pytest.approx(sum(values) / len(values))
    table = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report/arms.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert {row["arm"]: row["trials"] for row in rows} == {a: len(v) for a, v in errors.items()}


def check_table(note: str, run: Run) -> None:
    """The description has a row per arm, the lowest force error first."""
    rows = [line.strip("| ").split(" | ") for line in note.splitlines() if line.startswith("| ")]
    head, _, *arms = rows
    place = head.index("test_force_rmse (eV/Å)")
    shown = {arm[0]: float(arm[place].split(" ±")[0]) for arm in arms}
    assert list(shown.values()) == sorted(shown.values())
    prefix = "test_force_rmse/"
    logged = {n.removeprefix(prefix): v for n, v in run.data.metrics.items() if prefix in n}
    assert shown == {as_markdown(name): pytest.approx(v, rel=5e-3) for name, v in logged.items()}


def test_search_gives_one_tidy_row_per_trial(recorded: StudyDir) -> None:
    mlflow.set_tracking_uri(recorded.tracking_uri())
    rows = mlflow.search_runs(
        experiment_names=[recorded.name], filter_string=f"tags.`{Tag.KIND}` = 'trial'"
    )
    entries = Journal(recorded.journal, "").entries()
    assert sorted(rows[f"tags.{Tag.NUMBER}"].astype(int)) == sorted(entries)
    for _, row in rows.iterrows():
        entry = entries[int(row[f"tags.{Tag.NUMBER}"])]
        assert entry.result is not None
        assert row["metrics.test_force_rmse"] == entry.result.metrics["test_force_rmse"]
        assert row["params.seed"] == str(entry.planned.work.trial.seed)
        assert entry.planned.work.label in row["tags.mlflow.note.content"]


LOADED = """
import importlib.util
import sys
sys.meta_path = [each for each in sys.meta_path if "editable" not in repr(each)]
assert importlib.util.find_spec("study") is None
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/water/1")
table = model.input_example
print(model.predict(table).to_json(orient="records"))
print(table.to_json(orient="records"))
import study
assert "/code/" in study.__file__, study.__file__
assert model.metadata.signature.inputs.input_names() == list(table.columns)
"""
"""A program on a machine that lacks this package: an installed one is hidden."""


def test_the_registered_model_predicts_what_the_calculator_predicts(
    recorded: StudyDir, water: Frames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(recorded.path), "--log"]) == 0
    logged = capsys.readouterr().out
    assert predict.main([str(recorded.path), "--register", "water"]) == 0
    assert capsys.readouterr().out == logged  # The same model, not another copy.
    assert repr(page_of(recorded)[1].data.tags[Tag.MODEL]) in logged
    done = subprocess.run(
        [sys.executable, "-c", LOADED, recorded.tracking_uri()],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    import json

    (found,), (given,) = map(json.loads, done.stdout.splitlines()[-2:])
    np.testing.assert_allclose(given["positions"], water.positions[: water.offsets[1]])
    atoms = Atoms(given["numbers"], given["positions"], cell=given["cell"], pbc=True)
    atoms.calc = StudyCalculator(recorded.path, precision="float32")
    assert found["energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
    np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-5)
    (model,) = MlflowClient(recorded.tracking_uri()).search_model_versions("name='water'")
    folder = Path(mlflow.artifacts.download_artifacts(model.source, dst_path=str(tmp_path / "m")))
    kinds = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert ".safetensors" in kinds
    assert not kinds & {".pkl", ".pickle", ".pt", ".pth", ".bin"}
    assert {"input", "output"} <= {
        line.strip("s:") for line in (folder / "MLmodel").read_text().split()
    }


@pytest.mark.long
def test_a_server_of_mlflow_answers_for_the_registered_model(
    recorded: StudyDir, water: Frames, tmp_path: Path
) -> None:
    assert predict.main([str(recorded.path), "--register", "served"]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served/1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [*command, "--env-manager", "local", "--port", str(port)],
        cwd=tmp_path,
        env=environment | {"MLFLOW_TRACKING_URI": recorded.tracking_uri()},
        start_new_session=True,
    )
    row = {
        "numbers": water.numbers[: water.offsets[1]].tolist(),
        "positions": water.positions[: water.offsets[1]].tolist(),
        "cell": water.lattices[0].tolist(),
    }
    try:
        (found,) = ask(f"http://127.0.0.1:{port}/invocations", {"dataframe_records": [row]})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    atoms = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=True)
    atoms.calc = StudyCalculator(recorded.path, precision="float32")
    assert found["energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
    np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-5)


def ask(address: str, content: Any) -> Any:
    """Predictions of a model's server, which takes a while to start."""
    data = json.dumps(content).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["predictions"]
        except urllib.error.HTTPError as refusal:
            pytest.fail(f"{refusal}: {refusal.read().decode()}")
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.5)


def test_a_model_without_records_is_answered_in_a_line(
    small_study: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(small_study.path), "--log"]) == 2
    error = capsys.readouterr().err
    assert "no such database" in error
    assert error.count("\n") == 1
