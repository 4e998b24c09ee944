"""Whole studies through real OpenMM, Ray, Optuna, ASHA, MLflow, Parquet and the report."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from ase import Atoms
from mlflow import MlflowClient

from study.core.records import Tag
from study.datasets.parsing.header import read_header
from study.inference.predictor import TrainedPotential
from study.inference.trained_model import resolve_trained_model
from study.pipeline.execute import run_job
from study.pipeline.job import Job
from study.pipeline.outcome import load_outcome
from study.scheduling.journal import Journal
from study.scheduling.proposals.population import PopulationProposals
from study.scheduling.scheduler import Scheduler
from study.space.search_space import Space, load_space
from tests.faults.cluster import LocalCluster
from tests.in_process import conduct
from tests.processes import family

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

POPULATION = (
    """
question: Which rates, and when?
seeds: [0]
search: {trials: 3, seed: 3, sampler: {name: pbt, interval: 6}}
baseline: false
"""
    + TRIAL.replace("EPOCHS", "18").replace("LR", "{loguniform: [1e-4, 1e-2]}")
    + "profiles: {quick: }\n"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all studies, so that the data are made once."""
    return tmp_path_factory.mktemp("runs")


def command(out: Path, name: str, text: str) -> list[str]:
    space = out.parent / f"{name}.yaml"
    space.write_text(text)
    where = ["--space", str(space), "--out", str(out)]
    return [sys.executable, "-m", "study.run", *where, "--no-report"]


def journal_of(out: Path, study: str) -> Journal:
    return Journal(out / "studies" / study / "journal.jsonl", "val_force_rmse")


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
    assert "no GPU found" in searched.stdout.splitlines()[0]
    assert "Last result" not in searched.stdout, "Ray Tune shows its own progress"
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


@pytest.fixture(scope="module")
def reported(out: Path, searched: subprocess.CompletedProcess[str]) -> str:
    """What the same command says without `--no-report`."""
    assert searched.returncode == 0
    chosen = [word for word in command(out, "search", SEARCH) if word != "--no-report"]
    done = subprocess.run(chosen, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


# MLflow warns of its own types when it is asked for a model.
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")
def test_a_study_that_is_done_gets_its_report_and_mlflow_that_and_the_best_model(
    out: Path, reported: str
) -> None:
    folder = out / "studies" / "search-quick"
    page = folder / "report" / "report.html"
    assert f"\nReport: {page}\n" in reported
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    runs = runs_of(out, "search-quick")
    study = client.get_run(runs[runs.kind == "study"].run_id.item())
    (artifact,) = (out / "artifacts").glob(f"{study.info.run_id}/artifacts/report/report.html")
    assert artifact.read_bytes() == page.read_bytes()
    uri, note = study.data.tags[Tag.MODEL], study.data.tags["mlflow.note.content"]
    assert "The full report is among the artifacts." in note
    assert f"mlflow.pyfunc.load_model({uri!r})" in note
    mlflow.set_tracking_uri(f"sqlite:///{out}/mlflow.db")
    model = mlflow.pyfunc.load_model(uri)
    told = model.predict(model.input_example)
    best = TrainedPotential(resolve_trained_model(folder))
    row = model.input_example.iloc[0]
    atoms = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=True)
    ((energy, forces, _),) = best.predict([atoms])
    assert told.energy.item() == pytest.approx(energy, rel=1e-6)
    np.testing.assert_allclose(told.forces.item(), forces, atol=1e-6)


def lightly(words: list[str]) -> str:
    """What a command says that imports nothing heavy."""
    timed = [words[0], "-X", "importtime", *words[1:]]
    done = subprocess.run(timed, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "study.console.study_summary" in imported
    assert not imported & {"mlflow", "ray", "torch", "optuna", "pandas", "scipy"}
    return done.stdout


def test_a_report_is_not_made_again_of_the_same_records(out: Path, reported: str) -> None:
    files = contents(out)
    chosen = [word for word in command(out, "search", SEARCH) if word != "--no-report"]
    assert lightly(chosen)[-600:] == reported[-600:]
    assert contents(out) == files


@pytest.mark.usefixtures("reported")
def test_the_tables_hold_what_the_journal_holds(out: Path) -> None:
    folder = out / "studies" / "search-quick"
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


@pytest.mark.usefixtures("reported")
def test_the_report_is_one_page_that_loads_nothing(out: Path) -> None:
    page = (out / "studies" / "search-quick" / "report" / "report.html").read_text()
    assert "Which learning rate and ratio?" in page
    assert "<script" not in page
    assert 'src="http' not in page


def audit(out: Path) -> subprocess.CompletedProcess[str]:
    asked = [*command(out, "search", SEARCH), "--audit", "1"]
    return subprocess.run(asked, capture_output=True, text=True, check=False)


def places(shown: str) -> str:
    """Where everything is; without MLflow's address, which names a view only if it was asked."""
    return shown.rpartition("\nAll results")[2].partition("http://")[0]


def test_an_audit_finishes_a_stopped_trial_and_running_it_again_changes_nothing(
    out: Path, searched: subprocess.CompletedProcess[str]
) -> None:
    assert searched.returncode == 0
    journal = journal_of(out, "search-quick")
    written = journal.path.read_bytes()
    before = runs_of(out, "search-quick").set_index("run_id")
    done = audit(out)
    assert done.returncode == 0, done.stderr
    assert journal.path.read_bytes() == written
    runs = runs_of(out, "search-quick").set_index("run_id")
    pd.testing.assert_frame_equal(runs.loc[before.index], before)
    # It depends on the order in which the trials came whether ASHA has stopped some.
    audits = runs.drop(before.index)
    assert len(audits) == min(1, len(journal.stopped()))
    assert set(audits.key) <= set(journal.stopped())
    for column, value in {"kind": "audit", "status": "completed", "state": "FINISHED"}.items():
        assert set(audits[column]) <= {value}
    assert places(searched.stdout) == places(done.stdout)

    files = contents(out)
    again = audit(out)
    assert contents(out) == files
    assert runs_of(out, "search-quick").set_index("run_id").equals(runs)
    assert places(done.stdout) == places(again.stdout)


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


def works_of(out: Path, study: str) -> list[Job]:
    return [entry.planned.work for entry in journal_of(out, study).entries().values()]


def underway(out: Path, study: str) -> Iterator[bool]:
    """Whether some trial has done ten epochs of finetuning or more."""
    while True:
        folders = [work.folder(out) for work in works_of(out, study)]
        yield any(list(folder.glob("epoch-000000[1-9]*")) for folder in folders)


def started(out: Path, name: str, text: str = GRID) -> subprocess.Popen[bytes]:
    with (out / "stdout.txt").open("wb") as output:
        return subprocess.Popen(command(out, name, text), stdout=output, start_new_session=True)


def assert_complete(out: Path, study: str, undisturbed: Path) -> None:
    """One finished run with all its epochs per piece of work, and the very same weights."""
    runs = runs_of(out, study)
    assert runs.key.is_unique
    assert sorted(runs.kind) == ["pretrain", "study", "trial", "trial"]
    assert set(runs.state) == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    for run_id in runs[runs.kind == "trial"].run_id:
        history = client.get_metric_history(run_id, "val/force_rmse")
        assert [point.step for point in history] == list(range(1, 101))
    for work in works_of(out, study):
        expected, got = (load_outcome(work.folder(root)) for root in (undisturbed, out))
        assert expected is not None
        assert got is not None
        assert expected.weights is not None
        assert got.weights is not None
        assert expected.weights.name == got.weights.name


@pytest.fixture(scope="module")
def undisturbed(
    out: Path,
    searched: subprocess.CompletedProcess[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The grid's work, done in this process without any interruption."""
    assert searched.returncode == 0
    root = tmp_path_factory.mktemp("undisturbed")
    (header,) = out.glob("data/*/frames.json")
    space = load_space(command(out, "grid", GRID)[4], "quick")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for trial in space.grid():
            work = Job("trial", trial, read_header(header.parent)["content_hash"])
            for piece in filter(None, (work.pretraining, work)):
                list(run_job(piece, root, header.parent))
    finally:
        torch.set_num_threads(threads)
    return root


def test_a_study_that_is_told_to_end_writes_checkpoints_and_says_so(out: Path) -> None:
    driver = started(out, "grid")
    wait_for(underway(out, "grid-quick"), 180)
    driver.terminate()
    assert driver.wait(180) == 130
    runs = runs_of(out, "grid-quick")
    assert set(runs[runs.status == ""].state) == {"KILLED"}


def test_a_killed_study_continues_and_ends_as_if_it_had_not_been_killed(
    out: Path, undisturbed: Path
) -> None:
    driver = started(out, "grid")
    wait_for(underway(out, "grid-quick"), 180)
    driver.kill()
    driver.wait()
    done = subprocess.run(command(out, "grid", GRID), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_complete(out, "grid-quick", undisturbed)


def conducted(space: Space, root: Path, frames: Path) -> Journal:
    """The work of a population, done in this process one after the other."""
    journal = Journal(root / "journal.jsonl", space.settings.metric)
    content = read_header(frames)["content_hash"]
    source = PopulationProposals(space, lambda trial: Job("trial", trial, content), {})
    conduct(Scheduler(source, space.settings.metric, root, [journal]), root, frames)
    return journal


def test_a_killed_population_ends_as_if_it_had_not_been_killed(
    out: Path, searched: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert searched.returncode == 0
    driver = started(out, "population", POPULATION)
    study = "population-quick"
    wait_for((len(journal_of(out, study).entries()) > 3 for _ in itertools.count()), 180)
    driver.kill()
    driver.wait()
    words = command(out, "population", POPULATION)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Schedule of the best member of the population" in done.stdout
    (header,) = out.glob("data/*/frames.json")
    journal = conducted(load_space(words[4], "quick"), tmp_path, header.parent)
    expected, found = journal.entries(), journal_of(out, study).entries()
    assert [(n, e.planned, e.values) for n, e in sorted(found.items())] == [
        (n, e.planned, e.values) for n, e in sorted(expected.items())
    ]
    assert len(found) == 3 * 3 + 1
    test = expected[9].planned.work
    weights = [load_outcome(test.folder(root)) for root in (out, tmp_path)]
    assert len({each.weights.name for each in weights if each and each.weights}) == 1
    runs = runs_of(out, study)
    assert runs.key.is_unique
    assert set(runs.state) == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    for entry in found.values():
        job = entry.planned.work
        (run_id,) = runs[runs.key == job.key].run_id
        history = client.get_metric_history(run_id, "val/force_rmse")
        assert [point.step for point in history] == list(range(job.inherited + 1, job.epochs + 1))
        tags = client.get_run(run_id).data.tags
        assert (Tag.TUNING in tags) == job.is_part
        assert tags.get(Tag.PARENT) == (job.segment and job.segment.parent)


def test_a_finished_study_is_run_again_without_heavy_imports_and_changes_nothing(
    out: Path,
) -> None:
    words = command(out, "grid", GRID)
    subprocess.run(words, capture_output=True, check=True)
    files = contents(out)
    assert "Test errors" in lightly(words)
    assert contents(out) == files


def assert_only_this_machine_can_connect(processes: list[psutil.Process]) -> None:
    sockets = [
        connection.laddr.ip
        for process in processes
        if process.is_running()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert sockets
    assert set(sockets) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_killed_worker_is_replaced_and_goes_on_from_its_checkpoint(
    out: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(out / "data", tmp_path / "data")
    driver = started(tmp_path, "grid")
    wait_for(underway(tmp_path, "grid-quick"), 180)
    processes = family(psutil.Process(driver.pid))
    assert_only_this_machine_can_connect(processes)
    workers = [process for process in processes if "ImplicitFunc" in " ".join(process.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()
    assert driver.wait(timeout=120) == 0
    assert_complete(tmp_path, "grid-quick", undisturbed)
    # Ray's words would mix with ours, which may be JSON lines.
    assert "raylet" not in (tmp_path / "stdout.txt").read_text()


def test_a_study_on_a_cluster_survives_the_loss_of_a_node(
    out: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(out / "data", tmp_path / "data")
    with LocalCluster() as cluster:
        driver = subprocess.Popen(
            [*command(tmp_path, "grid", GRID), "--address", cluster.address],
            stdout=subprocess.DEVNULL,
            env=cluster.environment,
        )
        wait_for(underway(tmp_path, "grid-quick"), 180)
        cluster.kill_node()
        cluster.add_node()
        assert driver.wait(timeout=240) == 0
    assert_complete(tmp_path, "grid-quick", undisturbed)


def test_a_study_in_use_is_refused(out: Path) -> None:
    from study.core.atomic_io import locked

    with locked(out / "studies" / "grid-quick" / "lock", "busy"):
        done = subprocess.run(
            command(out, "grid", GRID), capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "running already" in done.stderr
    assert done.stderr.count("\n") == 1
