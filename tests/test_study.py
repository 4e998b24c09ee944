"""Whole studies through real OpenMM, Ray, Optuna, ASHA, MLflow, Parquet and the report."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient

from study.frames import read_header
from study.journal import Journal
from study.pipeline import perform
from study.records import Tag
from study.work import Work, load_outcome

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TRIAL = """
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 4, frames: 6}
  model: {name: egnn, hidden: 8, layers: 2}
  finetune:
    task: {name: energy_forces}
    epochs: EPOCHS
    batch_size: 3
    lr: LR
    min_lr: 1e-6
  pretrain:
"""
SEARCH = (
    """
question: Which learning rate and ratio?
seeds: [0, 1]
search: {trials: 5, seed: 3}
early_stopping: {grace_epochs: 1, reduction_factor: 2}
"""
    + TRIAL.replace("EPOCHS", "4").replace("LR", "{loguniform: [1e-4, 1e-2]}")
    + """
    choice:
      -
      - task: {name: masking, masking_ratio: {uniform: [0.2, 1.0]}}
        epochs: 2
        batch_size: 6
profiles: {quick: }
"""
)
GRID = (
    "question: Does masking help?\nseeds: [0]\n"
    + TRIAL.replace("EPOCHS", "100").replace("LR", "1e-3")
    + """
    task: {name: masking, masking_ratio: {choice: [0.5]}}
    epochs: 3
    batch_size: 6
profiles: {quick: }
"""
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all studies, so that the data are made once."""
    return tmp_path_factory.mktemp("runs")


def command(out: Path, name: str, text: str) -> list[str]:
    space = out.parent / f"{name}.yaml"
    space.write_text(text)
    return [sys.executable, "-m", "study.run", "--space", str(space), "--out", str(out)]


def module(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def journal_of(out: Path, study: str) -> Journal:
    (header,) = out.glob("data/*/frames.json")
    path = out / "studies" / study / "journal.jsonl"
    return Journal(path, "val_force_rmse", read_header(header.parent)["content_hash"])


def runs_of(out: Path, study: str) -> pd.DataFrame:
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return pd.DataFrame(
        {
            "run_id": [run.info.run_id for run in runs],
            "state": [run.info.status for run in runs],
            "kind": [run.data.tags[Tag.KIND] for run in runs],
            "key": [run.data.tags[Tag.KEY] for run in runs],
            "status": [run.data.tags.get(Tag.STATUS, "") for run in runs],
        }
    )


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of last change of every file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".db" and path.name != "lock"
    }


@pytest.fixture(scope="module")
def searched(out: Path) -> subprocess.CompletedProcess[str]:
    """A finished search."""
    return subprocess.run(
        command(out, "search", SEARCH), capture_output=True, text=True, check=False
    )


def test_a_search_ends_with_every_trial_accounted_for(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0, searched.stderr
    assert "no GPU here" in searched.stdout.splitlines()[0]
    entries = journal_of(out, "search-quick").entries()
    statuses = [entry.result.status for entry in entries.values() if entry.result]
    planned = len(entries)
    assert planned >= 5 + 2
    assert statuses.count("completed") + statuses.count("stopped") == planned

    runs = runs_of(out, "search-quick")
    trials = runs[runs.kind == "trial"]
    assert sorted(trials.key) == sorted(entry.planned.work.key for entry in entries.values())
    assert set(runs.state) == {"FINISHED"}
    needed = {
        e.planned.work.pretraining.key for e in entries.values() if e.planned.work.pretraining
    }
    assert set(runs[runs.kind == "pretrain"].key) == needed


def test_the_tables_hold_what_the_journal_holds(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0
    folder = out / "studies" / "search-quick"
    module("analysis.export", str(folder))
    trials = pd.read_parquet(folder / "tables" / "trials.parquet").set_index("key")
    curves = pd.read_parquet(folder / "tables" / "curves.parquet")
    for entry in journal_of(out, "search-quick").entries().values():
        work = entry.planned.work
        mine = curves[(curves.key == work.key) & curves.metric.str.endswith("val_force_rmse")]
        assert mine.sort_values("epoch").value.tolist() == entry.values
        row = trials.loc[work.key]
        assert entry.result is not None
        assert row.status == entry.result.status
        assert row["finetune.lr"] == work.trial.finetune.lr
        outcome = load_outcome(work.folder(out))
        if row.status == "completed":
            assert outcome is not None
            assert row.test_force_rmse == outcome.result.metrics["test_force_rmse"]


def test_the_report_is_one_page_that_loads_nothing(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0
    folder = out / "studies" / "search-quick"
    module("analysis.export", str(folder))
    module("analysis.report", str(folder))
    page = (folder / "report" / "report.html").read_text()
    assert "Which learning rate and ratio?" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_running_a_finished_study_again_changes_no_file(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0
    before = contents(out)
    again = subprocess.run(
        command(out, "search", SEARCH), capture_output=True, text=True, check=True
    )
    assert contents(out) == before
    assert searched.stdout[-400:] == again.stdout[-400:]


def test_a_changed_space_is_refused_naming_the_change(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0
    changed = SEARCH.replace("epochs: 4", "epochs: 5")
    done = subprocess.run(
        command(out, "search", changed), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "trial.finetune.epochs was 4 when this study began, and is 5 now" in done.stderr
    assert done.stderr.count("\n") == 1


def wait_for(condition: Iterator[bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not next(condition):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_killed_study_continues_and_ends_as_if_it_had_not_been_killed(
    out: Path, searched: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert searched.returncode == 0
    started = subprocess.Popen(
        command(out, "grid", GRID), stdout=subprocess.DEVNULL, start_new_session=True
    )

    def planned() -> list[Work]:
        entries = journal_of(out, "grid-quick").entries()
        return [entry.planned.work for entry in entries.values()]

    def underway() -> Iterator[bool]:
        """Whether some trial has done ten epochs of finetuning or more."""
        while True:
            folders = [work.folder(out) for work in planned()]
            yield any(list(folder.glob("epoch-000000[1-9]*")) for folder in folders)

    wait_for(underway(), 60)
    started.kill()
    started.wait()
    done = subprocess.run(command(out, "grid", GRID), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    runs = runs_of(out, "grid-quick")
    assert runs.key.is_unique
    assert sorted(runs.kind) == ["pretrain", "study", "trial", "trial"]
    assert set(runs.state) == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    for run_id in runs[runs.kind == "trial"].run_id:
        history = client.get_metric_history(run_id, "finetune/val_force_rmse")
        assert [point.step for point in history] == list(range(1, 101))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for work in planned():
            (header,) = out.glob("data/*/frames.json")
            for piece in filter(None, (work.pretraining, work)):
                list(perform(piece, tmp_path, header.parent))
            undisturbed, killed = (load_outcome(work.folder(root)) for root in (tmp_path, out))
            assert undisturbed is not None
            assert killed is not None
            assert undisturbed.weights is not None
            assert killed.weights is not None
            assert undisturbed.weights.name == killed.weights.name
    finally:
        torch.set_num_threads(threads)


def test_a_study_in_use_is_refused(out: Path) -> None:
    from study.durable import locked

    with locked(out / "studies" / "grid-quick" / "lock", "busy"):
        done = subprocess.run(
            command(out, "grid", GRID), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "running already" in done.stderr
    assert done.stderr.count("\n") == 1
