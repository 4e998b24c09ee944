"""Scheduler, journal, MLflow and tables under any order of what happens to a study."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from analysis.records import parquet_tables
from analysis.records.mlflow_reader import read_with_client
from study.core import atomic_io
from study.core.atomic_io import write_hashed
from study.core.records import EpochRecord, JobResult, Status, Tag
from study.pipeline.job import Job
from study.pipeline.outcome import Outcome, save_outcome
from study.scheduling.journal import Journal
from study.scheduling.proposals.grid import Grid
from study.scheduling.scheduler import RETRIES, Scheduler
from study.space.trial import Trial
from study.training.checkpoint import Checkpoint, newest_state, save_checkpoint
from tests.faults.disk import FaultyDisk
from tests.faults.invariants import check_journal
from tests.faults.mini import Inline
from tests.faults.server import Server

METRIC = "val_force_rmse"
TAGS = {Tag.KEY: "study", Tag.SPACE: "{}"}
EPOCHS = 3
ARMS = (None, 0.5, 0.9)
"""Masking ratios; none is from scratch."""
REASON = "no memory"


def trials(seeds: int) -> list[Job]:
    """All arms with so many seeds; arms of a seed share nothing but the data."""
    stage = {"epochs": EPOCHS, "batch_size": 2}
    works = []
    for seed in range(seeds):
        for ratio in ARMS:
            settings: dict[str, Any] = {
                "dataset": {"name": "tip3p_water"},
                "model": {"name": "egnn"},
                "finetune": {"task": {"name": "energy_forces"}} | stage,
                "seed": seed,
            }
            if ratio is not None:
                task = {"name": "masking", "masking_ratio": ratio}
                settings["pretrain"] = {"task": task} | stage
            works.append(Job("trial", Trial.model_validate(settings), "data"))
    return works


PLAN = trials(3)
LEVELS = {work.key: (0.7, 0.2, 0.8)[number % len(ARMS)] for number, work in enumerate(PLAN)}


def value(key: str, epoch: int) -> float:
    """What a trial measures after an epoch; the same whenever it is computed."""
    return LEVELS.get(key, 0.0) + 1 / epoch


def record(work: Job, epoch: int) -> EpochRecord:
    return EpochRecord(work.stage, epoch, {METRIC: value(work.key, epoch), "seconds": 1.0})


class Strict:
    """Stops two arms of three at their second epoch."""

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        del number
        return epoch == 2 and value > 1.0

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        del number, result, values


class Studies(RuleBasedStateMachine):
    """A study on a real disk, and what a simple model says that it must be.

    The model: ends by key, of finished work; the epochs whose news the journal has, by key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before, atomic_io.disk = atomic_io.disk, FaultyDisk()
        self.root = Path(tempfile.mkdtemp())
        self.seeds = 1
        self.ends: dict[str, Status] = {}
        self.told: dict[str, int] = {}
        self.server = Server()
        self.open()

    def teardown(self) -> None:
        try:
            self.finish_everything()
        finally:
            atomic_io.disk = self.before
            shutil.rmtree(self.root)

    def open(self) -> None:
        """What every run of the command does first."""
        self.journal = Journal(self.root / "journal.jsonl", METRIC)
        # What comes later is not what was planned later.
        plan = PLAN[: self.seeds * len(ARMS)][::-1]
        grid = Grid(plan, self.journal.entries(), exempt=False)
        self.tracker = Inline("nowhere", "study", self.root, TAGS)
        with patch("mlflow.MlflowClient", self.server.client):
            self.tracker.open()
        observers = [self.journal, self.tracker]
        self.scheduler = Scheduler(
            grid, METRIC, self.root, observers, Strict(), self.journal.stopped()
        )
        self.working: dict[str, tuple[Job, int]] = {}
        self.losses: dict[str, int] = {}

    @rule()
    def start(self) -> None:
        work = self.scheduler.next()
        if work is None:
            return
        assert work.key not in self.working, "handed out twice"
        assert self.ends.get(work.key, "failed") == "failed", "done already"
        if work.pretraining is not None:
            assert self.ends[work.pretraining.key] == "completed"
        self.scheduler.began(work.key)
        self.working[work.key] = work, 0

    @precondition(lambda self: self.working)
    @rule(data=st.data(), times=st.integers(1, EPOCHS))
    def report(self, data: st.DataObject, times: int) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        for _ in range(times):
            if key in self.working and self.working[key][1] < EPOCHS:
                self.report_one(*self.working[key])

    def report_one(self, work: Job, epoch: int) -> None:
        epoch += 1
        folder = work.folder(self.root)
        if len((newest_state(folder) or {"history": []})["history"]) < epoch:
            history = [record(work, number).metrics for number in range(1, epoch + 1)]
            save_checkpoint(folder, Checkpoint(epoch, {"w": torch.ones(1)}, {"history": history}))
        stop = self.scheduler.report(work.key, record(work, epoch))
        self.told[work.key] = max(self.told.get(work.key, 0), epoch)
        hopeless = work.kind == "trial" and epoch == 2 and value(work.key, epoch) > 1.0
        assert stop == hopeless
        if stop:
            del self.working[work.key]
            self.ends[work.key] = "stopped"
        else:
            self.working[work.key] = work, epoch

    @precondition(lambda self: self.working)
    @rule(data=st.data(), diverges=st.booleans(), heard=st.booleans())
    def end(self, data: st.DataObject, *, diverges: bool, heard: bool) -> None:
        """Work ends; the driver may crash before it hears of that."""
        work, epoch = self.working[data.draw(st.sampled_from(sorted(self.working)))]
        if not diverges and epoch < EPOCHS:
            return
        status: Status = "diverged" if diverges else "completed"
        folder = work.folder(self.root)
        weights = None if diverges else write_hashed(folder, "weights", ".safetensors", b"w")
        history = [record(work, number) for number in range(1, epoch + 1)]
        result = JobResult(status, "loss is nan" * diverges)
        save_outcome(folder, Outcome(result, history, weights))
        self.ends[work.key] = status
        if heard:
            self.scheduler.end(work.key, result)
            del self.working[work.key]
        else:
            self.told[work.key] = max(self.told.get(work.key, 0), epoch)
            self.open()

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        work, _ = self.working.pop(data.draw(st.sampled_from(sorted(self.working))))
        self.ends[work.key] = "failed"
        self.scheduler.end(work.key, JobResult("failed", REASON))

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A worker dies; work that has lost too many fails, other work goes to the next one."""
        work, _ = self.working.pop(data.draw(st.sampled_from(sorted(self.working))))
        self.lose_worker_of(work)

    @rule(gives_up=st.booleans())
    def lose_early(self, *, gives_up: bool) -> None:
        """A worker dies before it is up; for lack of memory nobody tries again."""
        work = self.scheduler.next()
        if work is not None and gives_up:
            self.ends[work.key] = "failed"
            self.scheduler.end(work.key, JobResult("failed", REASON))
        elif work is not None:
            self.lose_worker_of(work)

    def lose_worker_of(self, work: Job) -> None:
        losses = self.losses.get(work.key, 0) + 1
        self.losses[work.key] = losses
        if losses > RETRIES:
            self.ends[work.key] = "failed"
        self.scheduler.worker_died(work.key, REASON)

    @rule()
    def interrupt(self) -> None:
        """All work under way ends with its checkpoints, and nothing new begins until later."""
        self.scheduler.stop_scheduling()
        for key in self.working:
            self.scheduler.paused(key)
        assert self.scheduler.finished
        assert self.scheduler.next() is None
        self.tracker.close("KILLED")
        assert "RUNNING" not in {run.info.status for run in self.server.runs.values()}
        self.open()

    @rule(lag=st.integers(1, 9))
    def be_slow(self, lag: int) -> None:
        """MLflow has not done so many tasks yet; after a crash it never will."""
        self.tracker.lag = lag

    @rule()
    def export(self) -> None:
        """Parquet has what MLflow has: of each piece of work one row, of each epoch one value."""
        with patch("mlflow.MlflowClient", self.server.client):
            runs = read_with_client("nowhere", "study")
        # What arms are called depends on no order, and takes most of the time.
        with patch.object(parquet_tables, "_with_arms", dict):
            parquet_tables.write_tables(runs, "study", self.root / "tables")
        trials, curves = (
            pq.read_table(self.root / "tables" / f"{name}.parquet").to_pylist()
            for name in ("trials", "curves")
        )
        keys = [row["key"] for row in trials]
        assert len(set(keys)) == len(keys)
        told = [point[:3] for point in self.server.points]
        assert len(set(told)) == len(told)
        for key in keys:
            values = self.exported(key, curves)
            assert values == [value(key, epoch + 1) for epoch in range(len(values))]
            assert len(values) <= self.told.get(key, 0)
        self.rows, self.curves = {row["key"]: row for row in trials}, curves

    @staticmethod
    def exported(key: str, curves: list[dict[str, Any]]) -> list[float]:
        """A trial's or pretraining's metric by epoch."""
        found = {
            row["epoch"]: row["value"]
            for row in curves
            if row["key"] == key and row["metric"] == METRIC
        }
        return [found[epoch] for epoch in sorted(found)]

    @rule(torn=st.binary(max_size=20))
    def crash(self, torn: bytes) -> None:
        """And run again; the last line of the journal may have been cut off."""
        if self.journal.path.exists():
            with self.journal.path.open("ab") as opened:
                opened.write(torn.replace(b"\n", b""))
        self.open()

    @precondition(lambda self: self.seeds < 3)
    @rule()
    def extend(self) -> None:
        self.seeds += 1
        self.open()

    @invariant()
    def the_journal_on_disk_is_the_one_in_memory(self) -> None:
        assert Journal(self.journal.path, METRIC).entries() == self.journal.entries()

    @invariant()
    def the_journal_tells_what_happened(self) -> None:
        if self.journal.path.exists():
            assert not list(check_journal(self.journal.path))
        entries = self.journal.entries()
        keys = [entry.planned.work.key for entry in entries.values()]
        assert len(set(keys)) == len(keys)
        assert sorted(entries) == list(range(len(entries)))
        for entry in entries.values():
            key = entry.planned.work.key
            assert entry.values == [value(key, n + 1) for n in range(len(entry.values))]
            assert len(entry.values) <= self.told.get(key, 0)
            if entry.over:
                assert entry.result is not None
                assert entry.result.status == self.ends[key]

    def finish_everything(self) -> None:
        """Run again until nothing is left to do; then each trial has ended, and only once."""
        self.open()
        while (work := self.scheduler.next()) is not None:
            self.scheduler.began(work.key)
            for epoch in range(1, EPOCHS + 1):
                self.told[work.key] = max(self.told.get(work.key, 0), epoch)
                if self.scheduler.report(work.key, record(work, epoch)):
                    self.ends[work.key] = "stopped"
                    break
            else:
                self.ends[work.key] = "completed"
                self.scheduler.end(work.key, JobResult("completed"))
        assert self.scheduler.finished
        entries = self.journal.entries()
        planned = {work.key for work in PLAN[: self.seeds * len(ARMS)]}
        assert {entry.planned.work.key for entry in entries.values()} == planned
        for entry in entries.values():
            assert entry.result is not None
            if entry.result.status == "failed":
                assert entry.result.reason
                assert entry.planned.work.pretraining is not None
                assert self.ends[entry.planned.work.pretraining.key] == "diverged"
        self.the_journal_tells_what_happened()
        self.tracker.close("FINISHED")
        self.export()
        for entry in entries.values():
            key = entry.planned.work.key
            assert entry.result is not None
            assert self.rows[key]["status"] == entry.result.status
            assert self.exported(key, self.curves) == entry.values


TestStudies = Studies.TestCase
TestStudies.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
