"""A whole study in this process, of trials that train nothing but write all that real ones write.

Data by pieces, splits, checkpoints, results, compiled code, journal and MLflow's records come from
the code that real studies run. Only what takes time is replaced: molecular dynamics, the model,
Ray, and MLflow's database.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from study.core.atomic_io import locked
from study.core.records import EpochRecord, JobResult, Tag
from study.datasets.config import TIP3PWater
from study.datasets.parsing.header import read_header
from study.datasets.sources import tip3p
from study.datasets.sources.openmm_water import EQUILIBRATION_PIECES
from study.datasets.splits import Splits
from study.pipeline import execute
from study.pipeline.execute import run_job_safely
from study.pipeline.job import Job
from study.pipeline.outcome import require_weights
from study.planning.study_dir import StudyDir
from study.scheduling.journal import Journal
from study.scheduling.proposals.grid import Grid
from study.scheduling.scheduler import Scheduler
from study.space.search_space import Space, load_space
from study.space.trial import Trial
from study.tracking.mlflow_runs import StudyRuns
from study.tracking.tracker import Tracker
from study.training import program_cache
from study.training.checkpoint import Checkpoint, load_tensors, newest_checkpoint, save_checkpoint
from study.training.loop import DivergenceError
from tests.faults.server import Server

NAME = "mini"
SLOTS = 2
"""Pieces of work that are under way at once, epoch by epoch in turn."""
SPACE = """\
question: Does anything get lost?
seeds: [0]
trial:
  dataset: {name: tip3p_water, molecules: 8, trajectories: 3, frames: 1}
  model: {name: egnn, hidden: 8, layers: 2}
  pretrain:
    task: {name: masking, masking_ratio: 0.5}
    epochs: 2
    batch_size: 2
  finetune:
    task: {name: energy_forces}
    epochs: 3
    batch_size: 2
    lr: {choice: [1e-3, 2e-3, 3e-3]}
profiles: {quick: }
"""
HOPELESS, DIVERGES = 2e-3, 3e-3
"""Learning rates that are stopped early, and that diverge from scratch."""


def read_space(folder: Path) -> Space:
    """`SPACE`, from a file in `folder`."""
    (folder / f"{NAME}.yaml").write_text(SPACE)
    return load_space(str(folder / f"{NAME}.yaml"), "quick")


@dataclass
class Mini:
    """The study, as one run of its command after the other sees it.

    Args:
        space: what it studies.
        root: folder of all work.
        server: MLflow.
        lag: news that are still on their way to it at any moment.
        trained: epochs that were computed in all runs, by work, to count what was done twice.
    """

    space: Space
    root: Path
    server: Server
    lag: int = 0
    trained: dict[str, int] = field(default_factory=dict)

    def run(self) -> Journal:
        """What `python -m study.run` does; any failure of the driver leaves it."""
        with locked(self.folder.lock, "busy"), self._replaced():
            study = self.folder.write(self.space, "sqlite:///nowhere.db", {})
            tags = {Tag.KEY: study, Tag.SPACE: "{}"}
            tracker = Inline("sqlite:///nowhere.db", NAME, self.root, tags)
            tracker.open()
            tracker.lag = self.lag
            status = "KILLED"
            try:
                journal = self._work_off(tracker)
                status = "FINISHED"
            except Exception:
                tracker.close(status)
                raise
            tracker.close(status)
        return journal

    @property
    def folder(self) -> StudyDir:
        return StudyDir(self.root, NAME)

    def _work_off(self, tracker: Tracker) -> Journal:
        (recipe,) = {trial.dataset for trial in self.space.grid()}
        assert isinstance(recipe, TIP3PWater)
        frames = tip3p.make(recipe, self.root / "data", 1, lambda _done, _total: None)
        data = read_header(frames)["content_hash"]
        self.folder.write(self.space, "sqlite:///nowhere.db", {frames.name: data})
        journal = Journal(self.folder.journal, self.space.settings.metric)
        trials = [Job("trial", trial, data) for trial in self.space.grid()]
        scheduler = Scheduler(
            Grid(trials, journal.entries(), exempt=False),
            self.space.settings.metric,
            self.root,
            [journal, tracker],
            Hopeless(journal),
            journal.stopped(),
        )
        run(scheduler, self.root, frames)
        return journal

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        program = SimpleNamespace(accepts=lambda _batch: True)
        fakes: list[tuple[Any, str, Any]] = [
            (tip3p, "simulate", simulated),
            (tip3p, "_run_workers", _in_this_process),
            (execute, "set_up", self._set_up),
            (execute, "user_store", lambda: self.root / "compiled"),
            (program_cache, "fresh_cache", lambda **_: nullcontext()),
            (program_cache, "_key", lambda *_: "program"),
            (program_cache, "compile_program", lambda *_: program),
            (program_cache, "_pack", lambda _: b"code"),
            (program_cache, "_unpack", lambda *_: program),
        ]
        with ExitStack() as stack:
            stack.enter_context(patch("mlflow.MlflowClient", self.server.client))
            for module, name, fake in fakes:
                stack.enter_context(patch.object(module, name, fake))
            yield

    def _set_up(self, work: Job, trial: Trial, root: Path, frames: Path, device: str) -> Setup:
        del trial, frames, device
        Splits(*(np.array([number]) for number in range(3))).save(root / "splits")
        start = torch.zeros(2)
        if work.pretraining is not None:
            start = load_tensors(require_weights(work.pretraining, root))["w"]
        return Setup(self, work, start)


@dataclass
class Setup:
    """Stands for `study.pipeline.setup.Setup`: the model is a vector that each epoch moves."""

    mini: Mini
    work: Job
    weights: torch.Tensor

    @property
    def model(self) -> Any:
        return SimpleNamespace(state_dict=lambda: {"w": self.weights})

    def train(
        self,
        seed: int,
        folder: Path,
        store: Path | None,
        ending: Callable[[], bool],
        team: None = None,
        parent: None = None,
    ) -> Iterator[dict[str, float]]:
        del ending, team, parent
        term: Any = SimpleNamespace(batch=None)
        program_cache.load_or_compile(self.model, term, store)
        history: list[dict[str, float]] = []
        checkpoint = newest_checkpoint(folder)
        if checkpoint is not None:
            self.weights, history = checkpoint.tensors["w"], checkpoint.state["history"]
        yield from history
        rate = self.work.training.lr
        while len(history) < self.work.training.epochs:
            epoch = len(history) + 1
            if rate == DIVERGES and self.work.pretraining is None and epoch == 2:
                raise DivergenceError("training loss is nan in epoch 2")
            self.weights = 0.9 * self.weights + rate * (epoch + seed)
            self.mini.trained[self.work.key] = self.mini.trained.get(self.work.key, 0) + 1
            value = math.inf if epoch == 1 else 1 / epoch + rate
            names = ("train_loss", "val_force_rmse", "seconds", "cpu_seconds")
            history.append(dict(zip(names, (1.0, value, float(epoch), 1.0), strict=True)))
            save_checkpoint(folder, Checkpoint(epoch, {"w": self.weights}, {"history": history}))
            yield history[-1]

    def test(self, history: list[EpochRecord]) -> dict[str, float]:
        return {"test_force_rmse": float(self.weights.sum()), "seconds": float(len(history))}

    def facts(self, workers: int) -> dict[str, str | int]:
        del workers
        return {"split_hash": "split"}


class Hopeless:
    """Stops trials of one learning rate at their second epoch."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def should_prune(self, number: int, epoch: int, value: float) -> bool:
        del value
        trial = self.journal.entries()[number].planned.work.trial
        return trial.finetune.lr == HOPELESS and epoch == 2

    def ended(self, number: int, result: JobResult, values: Sequence[float]) -> None:
        """Nothing follows from it."""


class Inline(Tracker):
    """Does itself what the real one does in its thread, late by `lag` tasks."""

    lag = 0

    def open(self) -> None:
        self.runs = StudyRuns(self.uri, self.experiment, self.root, self.tags, self.trials)
        self.late: deque[Callable[[], None]] = deque()
        self._tasks: Any = SimpleNamespace(put=self._put)

    def close(self, status: str) -> bool:
        self.late.append(lambda: self.runs.close(status))
        self._catch_up(0)
        return True

    def _put(self, task: Callable[[], None]) -> None:
        self.late.append(task)
        if not self.lag:
            self.late.append(self.runs.flush)
        self._catch_up(self.lag)

    def _catch_up(self, lag: int) -> None:
        while len(self.late) > lag:
            try:
                self.late[0]()
            except ConnectionError:
                continue
            self.late.popleft()


def run(scheduler: Scheduler, root: Path, frames: Path) -> None:
    """What `study.driver.ray_runner.run` does, without Ray: workers take turns, an epoch each."""
    workers: deque[tuple[Job, Iterator[EpochRecord | JobResult]]] = deque()
    try:
        while True:
            while len(workers) < SLOTS and (work := scheduler.next()) is not None:
                scheduler.began(work.key)
                workers.append((work, run_job_safely(work, root, frames)))
            if not workers:
                break
            work, worker = workers.popleft()
            news = next(worker)
            if isinstance(news, JobResult):
                scheduler.end(work.key, news)
            elif scheduler.report(work.key, news):
                worker.close()  # type: ignore[attr-defined]
            else:
                workers.append((work, worker))
    finally:
        for _, worker in workers:
            worker.close()  # type: ignore[attr-defined]
    assert scheduler.finished


def simulated(recipe: TIP3PWater, trajectory: int, number: int, state: str) -> dict[str, Any]:
    """Stands for molecular dynamics: coordinates that depend on where the piece before ended."""
    piece: dict[str, Any] = {"state": np.frombuffer(f"{state}{number}".encode(), np.uint8)}
    if number < EQUILIBRATION_PIECES:
        return piece
    atoms = 3 * recipe.molecules
    rng = np.random.default_rng([trajectory, number, len(state)])
    shapes = {"positions": (atoms, 3), "forces": (atoms, 3), "energies": (), "temperatures": ()}
    return piece | {
        name: rng.normal(size=(recipe.frames, *shape)) for name, shape in shapes.items()
    }


def _in_this_process(
    recipe: TIP3PWater, pieces: Path, workers: int, progress: Callable[[int, int], None]
) -> None:
    del workers, progress
    trajectories: Iterable[int] = range(recipe.trajectories)
    for trajectory in trajectories:
        for _ in tip3p._trajectory(recipe, pieces, trajectory):
            pass
