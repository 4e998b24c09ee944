"""A search as Optuna reads it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from study.core.records import EpochRecord, JobResult
from study.pipeline.job import Job
from study.scheduling.journal import Journal
from study.scheduling.protocols import Planned
from study.space.search_space import Space, load_space
from study.tracking.optuna_storage import FILE, OptunaRecords
from tests.search_space import SEARCH_SPACE

METRIC = "val_force_rmse"


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "search.yaml"
    path.write_text(SEARCH_SPACE)
    return load_space(str(path), "quick")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl", METRIC)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)


def proposal(space: Space, number: int, lr: float, *, exempt: bool = False) -> Planned:
    parameters = {"pretrain": "scratch", "finetune.lr": lr}
    trial = space.propose(optuna.trial.FixedTrial(parameters))
    return Planned(number, Job("trial", trial, "data"), parameters, exempt=exempt)


def loaded(folder: Path) -> optuna.Study:
    """As anyone reads it who knows Optuna alone."""
    backend = JournalFileBackend(str(folder / FILE))
    return optuna.load_study(study_name="search", storage=JournalStorage(backend))


def play(journal: Journal, records: OptunaRecords, planned: Planned, status: str) -> None:
    for observer in (journal, records):
        observer.planned(planned)
        observer.started(planned.work, planned.number)
    for epoch, value in enumerate((0.3, 0.1, 0.2), start=1):
        record = EpochRecord("finetune", epoch, {METRIC: value})
        for observer in (journal, records):
            observer.recorded(planned.work, record)
    if status != "running":
        for observer in (journal, records):
            observer.ended(planned.work, JobResult(status, "why"))  # type: ignore[arg-type]


def test_optuna_reads_parameters_values_states_and_attributes(
    space: Space, journal: Journal, tmp_path: Path
) -> None:
    records = OptunaRecords(space, "search", journal, tmp_path)
    records.open()
    for number, status in enumerate(("completed", "stopped", "diverged", "running")):
        play(journal, records, proposal(space, number, 1e-3 * (number + 1)), status)
    play(journal, records, proposal(space, 4, 9e-3, exempt=True), "completed")
    study = loaded(tmp_path)
    assert [trial.state for trial in study.trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert [trial.params["finetune.lr"] for trial in study.trials] == [1e-3, 2e-3, 3e-3, 4e-3]
    assert study.best_value == 0.1
    assert all(trial.intermediate_values == {1: 0.3, 2: 0.1, 3: 0.2} for trial in study.trials)
    first = study.trials[0].user_attrs
    assert first["arm"] == "egnn scratch"
    assert (first["number"], first["seed"], first["status"]) == (0, 5, "completed")
    assert first["key"] == proposal(space, 0, 1e-3).work.key


def test_a_rerun_continues_what_a_kill_tore(space: Space, journal: Journal, tmp_path: Path) -> None:
    records = OptunaRecords(space, "search", journal, tmp_path)
    records.open()
    play(journal, records, proposal(space, 0, 1e-3), "completed")
    play(journal, records, proposal(space, 1, 2e-3), "running")
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-30])
    again = OptunaRecords(space, "search", journal, tmp_path)
    again.open()
    play(journal, again, proposal(space, 1, 2e-3), "completed")
    study = loaded(tmp_path)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 3]
    assert all(json.loads(line) for line in (tmp_path / FILE).read_text().splitlines())


def test_a_lost_storage_is_made_again_of_the_journal(
    space: Space, journal: Journal, tmp_path: Path
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    records = OptunaRecords(space, "search", journal, tmp_path / "first")
    records.open()
    for number, status in enumerate(("failed", "completed")):
        play(journal, records, proposal(space, number, 1e-3 * (number + 1)), status)
    OptunaRecords(space, "search", journal, tmp_path / "second").open()
    first, second = (loaded(tmp_path / folder).trials for folder in ("first", "second"))
    assert len(first) == len(second) == 2
    assert [t.values for t in first] == [t.values for t in second]
    assert [t.params for t in first] == [t.params for t in second]
    assert [t.intermediate_values for t in first] == [t.intermediate_values for t in second]


def test_a_database_that_does_not_answer_costs_a_line(
    space: Space, journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = OptunaRecords(space, "search", journal, f"sqlite:////{tmp_path}/none/optuna.db")
    with caplog.at_level(logging.WARNING):
        records.open()
    assert "the study goes on" in caplog.text
    play(journal, records, proposal(space, 0, 1e-3), "completed")
    assert journal.entry(0).over


def test_the_journal_file_is_written_through_no_link(
    space: Space, journal: Journal, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("theirs")
    (tmp_path / FILE).symlink_to(elsewhere)
    records = OptunaRecords(space, "search", journal, tmp_path)
    records.open()
    play(journal, records, proposal(space, 0, 1e-3), "completed")
    assert elsewhere.read_text() == "theirs"
