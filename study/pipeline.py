"""The two stages of a trial: pretrain without labels, then finetune on energies and forces."""

from __future__ import annotations

import resource
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock
from torch import Tensor

from study.checkpoint import delete_checkpoints, load_tensors, save_tensors
from study.cost import Flops
from study.datasets.splits import split
from study.durable import make_folder, write_bytes
from study.errors import UserError
from study.finished import find_start
from study.frames import Frames
from study.graph import GraphSet, indices
from study.identity import code_version, digest
from study.models import build_model
from study.models.potential import Potential
from study.models.symmetry import symmetry_errors
from study.process import speed_up
from study.records import SPENT, EpochRecord, WorkResult
from study.seeding import seeded
from study.tasks import Task
from study.tasks.energy_forces import EnergyForces, LabelStatistics
from study.tasks.labelled import LabelledTask
from study.tasks.pretext import build_pretext
from study.tasks.scalar import Scalar
from study.training import DivergenceError, PausedError, compiles, fit
from study.work import (
    LOG,
    OUT_OF_MEMORY,
    Outcome,
    Work,
    load_outcome,
    require_weights,
    save_outcome,
)

if TYPE_CHECKING:
    from study.trial import Pretrained, Stage


def perform(
    work: Work,
    root: Path,
    frames: Path,
    device: str = "cpu",
    ending: Callable[[], bool] = lambda: False,
) -> Iterator[EpochRecord]:
    """Do a piece of work, or what is left of it, and yield a record per epoch.

    Earlier epochs' records come again first. When the iterator ends, the outcome is in the work's
    folder. Another process that does the same work at this moment is waited for.

    Args:
        work: what to do.
        root: folder of all work.
        frames: folder of the data set.
        device: torch device.
        ending: asked after every step whether to write a checkpoint and end.

    Raises:
        PausedError: when `ending` has said so; the next call goes on from there.
    """
    if work.code != code_version():
        raise UserError(
            "the code or torch of this process is not that which the work is named by; install the "
            "same versions on every machine, and do not change them while a study runs"
        )
    speed_up(torch.device(device), work.trial.model.hidden)
    folder, checkpoints = work.folder(root), work.checkpoints(root)
    with ExitStack() as locks:
        for place in dict.fromkeys((folder, checkpoints)):
            make_folder(place)
            locks.enter_context(FileLock(place / "lock"))
        outcome = load_outcome(folder)
        if outcome is not None:
            yield from outcome.history
            return
        if ending():
            raise PausedError
        history: list[EpochRecord] = []
        if work.start is not None:
            save_outcome(folder, _taken_over(work, work.start, root, device))
            return
        try:
            setup = _set_up(work, root, frames, device)
            train = setup.train(work.trial.seed, checkpoints, root / "compiled", ending)
            for metrics in train:
                history.append(EpochRecord(work.stage, len(history) + 1, metrics))
                yield history[-1]
            result = WorkResult("completed", metrics=setup.test(history), facts=setup.facts())
            weights = save_tensors(folder, "weights", setup.model.state_dict())
        except DivergenceError as problem:
            result, weights = WorkResult("diverged", str(problem)), None
        save_outcome(folder, Outcome(result, history, weights, work.settings))
        delete_checkpoints(folder)


def attempt(
    work: Work,
    root: Path,
    frames: Path,
    device: str = "cpu",
    ending: Callable[[], bool] = lambda: False,
) -> Iterator[EpochRecord | WorkResult]:
    """`perform`, and then how it ended; a failure is an end too, with its traceback in a log."""
    folder = work.folder(root)
    try:
        if device == "cuda":
            torch.cuda.init()  # Or torch says only later, and less, why it cannot use the GPU.
        yield from perform(work, root, frames, device, ending)
        outcome = load_outcome(folder)
        assert outcome is not None
        result = outcome.result
    except PausedError:
        raise
    except Exception as problem:
        result = _failure(problem, device)
        # A full disk may be the very reason.
        with suppress(OSError):
            write_bytes(folder / LOG, traceback.format_exc().encode())
    yield result


def _taken_over(work: Work, start: Pretrained, root: Path, device: str) -> Outcome:
    """The outcome of a pretraining that was done before; it costs nothing here.

    Raises:
        UserError: if the weights are not those that the work is named by, or do not fit the model.
    """
    from study.own_settings import realized

    found = find_start(start.place)
    if found.sha256 != start.sha256:
        raise UserError(
            f"{start.place}: its weights are not those that this study began with; bring them back"
        )
    trial = realized(work.trial, root)
    model = build_model(trial.model, trial.seed)
    weights = load_tensors(found.weights)
    try:
        model.load_state_dict(weights)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(f"{found.weights}: does not fit the model ({reason})") from None
    kept = save_tensors(work.folder(root), "weights", weights)
    facts: dict[str, str | int] = {
        "parameters": sum(values.numel() for values in model.parameters()),
        "device": torch.cuda.get_device_name(device) if device == "cuda" else "cpu",
    }
    result = WorkResult("completed", metrics=dict.fromkeys(SPENT, 0.0), facts=facts)
    return Outcome(result, [], kept, work.settings)


def _failure(problem: Exception, device: str) -> WorkResult:
    reason = f"{type(problem).__name__}: {problem}"
    # On CPUs torch raises a RuntimeError.
    lacking = "can't allocate memory" in reason
    if not lacking and not isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return WorkResult("failed", reason)
    peak = _peak_memory(torch.device(device))
    reason = f"out of memory at its peak of {peak} MB ({reason.splitlines()[0]})"
    return WorkResult("failed", reason, facts={OUT_OF_MEMORY: True, "peak_memory_mb": peak})


def _peak_memory(device: torch.device) -> int:
    """Of this process, MB; of the GPU if it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


_FLOPS: dict[str, Flops] = {}
"""What this process has counted, by the kind of setup: trials of a study differ in little."""


@dataclass(frozen=True)
class _Setup:
    """A model and all that it trains on.

    Args:
        parts: (frames,) training, validation and test frames.
        split_hash: content hash of these parts.
        kind: hash of all that operations per atom and edge depend on.
    """

    model: Potential
    task: Task
    stage: Stage
    parts: tuple[Tensor, Tensor, Tensor]
    split_hash: str
    kind: str

    def train(
        self, seed: int, folder: Path, store: Path, ending: Callable[[], bool]
    ) -> Iterator[dict[str, float]]:
        stage, (train, validation, _) = self.stage, self.parts
        graphs, used = self.task.graphs, train[: stage.frames]
        if self.kind not in _FLOPS:
            count = min(stage.batch_size, len(graphs))
            spread = torch.linspace(0, len(graphs) - 1, count).long()
            _FLOPS[self.kind] = Flops.count(self.model, self.task, spread)
        flops = _FLOPS[self.kind].of_epoch(graphs, used, validation)
        return fit(
            self.model, self.task, stage, train, validation, seed, folder, store, flops, ending
        )

    def test(self, history: list[EpochRecord]) -> dict[str, float]:
        """Final metrics; errors on the test frames are looked at here and nowhere else."""
        criterion = [record.metrics[self.task.criterion] for record in history]
        best = criterion.index(min(criterion)) + 1 if self.stage.select == "best" else len(history)
        last = history[-1].metrics
        final = {name: last[name] for name in SPENT if name in last}
        final["best_epoch"] = float(best)
        return final | (self._errors(self.task) if isinstance(self.task, LabelledTask) else {})

    def _errors(self, task: LabelledTask) -> dict[str, float]:
        """On the test frames: of the model, of the trivial predictor, of missing symmetry."""
        self.model.eval()
        batches = list(self.parts[2].split(self.stage.batch_size))
        errors, trivial = task.errors(self.model, batches), task.trivial_errors(self.model, batches)
        found = {f"test_{name}": value for name, value in errors.items()}
        found |= {f"trivial_{name}": value for name, value in trivial.items()}
        symmetric = self.model.equivariant and self.model.conservative
        if isinstance(task, EnergyForces) and not symmetric:
            generator = seeded("symmetry", device=task.graphs.device)
            found |= symmetry_errors(self.model, task.gather(batches[0]), generator)
        return found

    def facts(self) -> dict[str, str | int]:
        """What the records say about the run besides its metrics."""
        device = self.task.graphs.device
        on_gpu = device.type == "cuda"
        ordered = not on_gpu or torch.are_deterministic_algorithms_enabled()
        compiled = compiles(self.stage, self.model, len(self.parts[0]))
        return {
            "split_hash": self.split_hash,
            "train_frames": min(len(self.parts[0]), self.stage.frames or len(self.parts[0])),
            "validation_frames": len(self.parts[1]),
            "test_frames": len(self.parts[2]),
            "parameters": sum(weights.numel() for weights in self.model.parameters()),
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "repeats": "bitwise" if ordered else "to rounding",
            "gradients": "compiled" if compiled else "autograd",
            "peak_memory_mb": _peak_memory(torch.device("cpu")),
        }


def _set_up(work: Work, root: Path, frames: Path, device: str) -> _Setup:
    """Data, split and model of a piece of work; the only place that knows both stages apart."""
    from study.own_settings import realized

    trial = realized(work.trial, root)
    loaded, graphs = _load(frames, work.data_hash, trial.model.cutoff, device)
    splits = split(loaded, trial.split, trial.seed)
    splits.save(root / "splits")
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = map(indices, parts)
    model = build_model(trial.model, trial.seed).to(graphs.device)
    if work.pretraining is not None:
        weights = load_tensors(require_weights(work.pretraining, root))
        model.take_over(weights, readout=trial.transfer == "all")
    if work.kind == "trial" and (work.pretraining is None or trial.transfer == "body"):
        model.silence()
    stage = trial.pretraining if work.kind == "pretrain" else trial.finetune
    assert stage is not None
    depth = trial.finetune.trainable_depth
    if work.kind == "trial" and depth is not None:
        model.freeze_beyond(depth)
    task = build_task(stage, model, graphs, train)
    # As they are in the space, with the hash of code of the user's own.
    settings = [part.model_dump(mode="json") for part in (work.trial.model, work.training.task)]
    learning = depth if work.kind == "trial" else None
    kind = digest([work.data_hash, settings, stage.batch_size, learning])
    return _Setup(model, task, stage, (train, validation, test), splits.content_hash(), kind)


def build_task(stage: Stage, model: Potential, graphs: GraphSet, train: Tensor) -> Task:
    """What a stage trains on; a model to be finetuned takes over the statistics of its labels."""
    settings: Any = stage.task
    train = train[: stage.frames]
    if settings.name == "scalar":
        scalar = Scalar(settings, graphs, train)
        scalar.apply(model)
        return scalar
    if settings.name != "energy_forces":
        return build_pretext(settings, graphs)
    statistics = LabelStatistics.fit(graphs, train)
    statistics.apply(model, settings)
    return EnergyForces(settings, graphs, statistics)


@lru_cache(maxsize=1)
def _load(folder: Path, content_hash: str, cutoff: float, device: str) -> tuple[Frames, GraphSet]:
    """A data set with its neighbours; a warm process keeps the last one."""
    frames = Frames.load(folder)
    if frames.content_hash() != content_hash:
        raise UserError(
            f"{folder}: these are not the frames that this work is named by; run the study again"
        )
    return frames, GraphSet.build(frames, cutoff, device=device)
