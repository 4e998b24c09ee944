"""What a piece of work needs before its training begins."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.core.errors import UserError
from study.core.hashing import digest
from study.core.provenance import environment
from study.core.records import COST_METRICS, EpochRecord
from study.datasets.frames import Frames
from study.datasets.parsing.array_files import DerivedArrays
from study.datasets.parsing.header import read_header
from study.datasets.sizes import STORED_ATOMS
from study.datasets.splits import require_labels, split_once
from study.graphs.graph_set import GraphSet, index_tensor
from study.models.build import build_model
from study.models.potential import Potential
from study.pipeline.foundation import set_energies
from study.pipeline.outcome import require_weights
from study.tasks.build import build_task
from study.tasks.task import Task
from study.training.checkpoint import load_tensors
from study.training.flops import Flops
from study.training.gradients import compiles
from study.training.loop import Steps, fit
from study.training.parallel.shared_engine import Team

# Training itself needs no pydantic, so that this can be imported without it.
if TYPE_CHECKING:
    from study.datasets.split_config import Split
    from study.pipeline.job import Job
    from study.space.trial import Trial
    from study.training.config import Stage
    from study.training.state import Parent


MOST_SELECTED = 0.25
"""Of a large set, the share of its frames up to which a training prepares those alone."""


def peak_memory(device: torch.device) -> int:
    """Of this process, MB; of the GPU if it uses one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def forget_peak_memory(device: torch.device) -> None:
    """Let the next `peak_memory` be of what comes from now on, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


_FLOPS: dict[str, Flops] = {}
"""What this process has counted, by the kind of setup: trials of a study differ in little."""


@dataclass(frozen=True)
class Setup:
    """A model and all that it trains on.

    Args:
        parts: (frames,) training, validation and test frames, counted among those of the graphs.
        numbers: (graphs,) number in the data set of each frame of the graphs.
        split_facts: content hash of these parts, and which groups of frames test.
        kind: hash of all that operations per atom and edge depend on.
    """

    model: Potential
    task: Task
    stage: Stage
    parts: tuple[Tensor, Tensor, Tensor]
    numbers: NDArray[np.int64]
    split_facts: dict[str, str | int]
    kind: str

    def train(
        self,
        seed: int,
        folder: Path,
        store: Path | None,
        ending: Callable[[], bool],
        team: Team | None = None,
        parent: Parent | None = None,
    ) -> Iterator[dict[str, float]]:
        """Train the model, and yield the metrics of each epoch; see `fit`."""
        stage, (train, validation, _) = self.stage, self.parts
        graphs, used = self.task.graphs, train[: stage.frames]
        if self.kind not in _FLOPS:
            count = min(stage.batch_size, len(graphs))
            spread = torch.linspace(0, len(graphs) - 1, count).long()
            _FLOPS[self.kind] = Flops.count(self.model, self.task, spread)
        flops = _FLOPS[self.kind].of_epoch(graphs, used, validation)
        return fit(
            self.model,
            self.task,
            stage,
            train,
            validation,
            seed,
            folder,
            store,
            flops,
            ending,
            team,
            parent,
        )

    def steps(self, seed: int) -> Steps:
        """The training steps, for a process that computes a part of each."""
        return Steps(self.task, self.stage, self.parts[0][: self.stage.frames], seed)

    def costs(self, history: list[EpochRecord], begin: int = 0) -> dict[str, float]:
        """Cost of all epochs, or of those after the first ones, and the best epoch so far."""
        criterion = [record.metrics[self.task.criterion] for record in history]
        best = criterion.index(min(criterion)) + 1 if self.stage.select == "best" else len(history)
        last, before = history[-1].metrics, history[begin - 1].metrics if begin else {}
        costs = {name: last[name] - before.get(name, 0.0) for name in COST_METRICS if name in last}
        return costs | {"best_epoch": float(best)}

    def test(self, history: list[EpochRecord]) -> dict[str, float]:
        """Final metrics; errors on the test frames are looked at here and nowhere else."""
        final = self.costs(history)
        self.model.eval()
        batches = self.task.graphs.evaluation_batches(self.parts[2], self.stage.batch_size)
        return final | self.task.test_errors(self.model, batches)

    def facts(self, workers: int = 1) -> dict[str, str | int]:
        """What the records say about the run besides its metrics."""
        device = self.task.graphs.device
        on_gpu = device.type == "cuda"
        ordered = not on_gpu or torch.are_deterministic_algorithms_enabled()
        compiled = compiles(self.stage, self.model, len(self.parts[0]), workers)
        return {
            **self.split_facts,
            "train_frames": min(len(self.parts[0]), self.stage.frames or len(self.parts[0])),
            "validation_frames": len(self.parts[1]),
            "test_frames": len(self.parts[2]),
            "parameters": sum(weights.numel() for weights in self.model.parameters()),
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "workers": workers,
            "repeats": "bitwise" if ordered else "to rounding",
            "gradients": "compiled" if compiled else "autograd",
            "environment": json.dumps(
                environment(
                    torch.get_num_threads(),
                    int(on_gpu),
                    workers=workers,
                    deterministic=torch.are_deterministic_algorithms_enabled(),
                )
            ),
            "peak_memory_mb": peak_memory(torch.device("cpu")),
            **({"gpu_memory_mb": peak_memory(device)} if on_gpu else {}),
        }


def set_up(work: Job, trial: Trial, root: Path, frames: Path, device: str) -> Setup:
    """Data, split and model of a piece of work; the only place that knows both stages apart.

    Args:
        work: what is to be done.
        trial: its settings with the classes of the user's code, see `realized`.
        root: folder of all jobs.
        frames: folder of the data set.
        device: torch device.
    """
    forget_peak_memory(torch.device(device))
    loaded = _load(frames, work.data_hash)
    known_by = [work.data_hash, work.code]
    wanted = _split_of(work, trial, loaded)
    splits, facts = split_once(loaded, wanted, trial.seed, root / "splits", known_by)
    learned = splits.train[: work.training.frames]
    parts: Sequence[NDArray[np.int64]] = (learned, splits.validation, splits.test)
    require_labels(loaded, parts, work.training.task.labels)
    numbers, some = _used(loaded, parts), None
    if len(numbers) < len(loaded):
        parts, some = [np.searchsorted(numbers, part) for part in parts], numbers.tobytes()
    graphs = _graphs(frames, work.data_hash, trial.model.cutoff, device, some)
    train, validation, test = map(index_tensor, parts)
    new_heads = work.pretraining is None or trial.transfer == "body"
    model, weights = _started(work, trial, root, graphs.device, new_heads=new_heads)
    stage = trial.pretraining if work.kind == "pretrain" else trial.finetune
    assert stage is not None
    depth = trial.finetune.trainable_depth
    if work.kind == "trial" and depth is not None:
        model.freeze_all_but_last(depth)
    task = build_task(stage.task, model, graphs, train[: stage.frames])
    if work.kind == "trial" and trial.foundation:
        own = (trial.foundation, weights["reference"], graphs, train[: stage.frames])
        set_energies(model, *own, with_heads=not new_heads)
    kind = _kind(work, stage, depth)
    return Setup(model, task, stage, (train, validation, test), numbers, facts, kind)


def _started(
    work: Job, trial: Trial, root: Path, device: torch.device, *, new_heads: bool
) -> tuple[Potential, dict[str, Tensor]]:
    """The model that training begins with, and the pretrained weights in it, if there are any."""
    model = build_model(trial.model, trial.seed).to(device)
    weights: dict[str, Tensor] = {}
    if work.pretraining is not None:
        weights = load_tensors(require_weights(work.pretraining, root))
        model.load_pretrained(weights, include_heads=trial.transfer == "all")
    if work.kind == "trial" and new_heads and trial.finetune.head_init == "zero":
        model.zero_init_readout()
    return model, weights


def _kind(work: Job, stage: Stage, depth: int | None) -> str:
    """Hash of all that operations per atom and edge depend on."""
    # As they are in the space, with the hash of code of the user's own.
    settings = [part.model_dump(mode="json") for part in (work.trial.model, work.training.task)]
    learning = depth if work.kind == "trial" else None
    return digest([work.data_hash, settings, stage.batch_size, learning])


def _split_of(work: Job, trial: Trial, frames: Frames) -> Split:
    """The trial's split; a set to pretrain on that was published without one is split by frame."""
    has_own = trial.split.by != "published" or "part" in frames.properties
    if has_own or work.kind != "pretrain":
        return trial.split
    return trial.split.model_copy(update={"by": "frame"})


def _used(frames: Frames, parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The numbers of the frames that are prepared, in order: of a large set no more than needed.

    Where a training needs much of it, all frames are prepared, because other trainings need others.
    """
    needed = sum(map(len, parts))
    if len(frames.numbers) < STORED_ATOMS or needed > MOST_SELECTED * len(frames):
        return np.arange(len(frames))
    return np.sort(np.concatenate(parts))


@lru_cache(maxsize=1)
def _load(folder: Path, content_hash: str) -> Frames:
    """A data set; a warm process keeps the last one."""
    if read_header(folder)["content_hash"] != content_hash:
        raise UserError(
            f"{folder}: these are not the frames that this work is named by; run the study again"
        )
    return Frames.load(folder, known=True)


@lru_cache(maxsize=1)
def _graphs(
    folder: Path, content_hash: str, cutoff: float, device: str, some: bytes | None
) -> GraphSet:
    """A data set with its neighbours, or some of its frames; a warm process keeps the last one."""
    frames = _load(folder, content_hash)
    store = DerivedArrays(folder, content_hash)
    if some is not None:
        frames = frames.select(np.frombuffer(some, np.int64))
        store = replace(store, content_hash=digest([content_hash, some.hex()]))
    return GraphSet.build(frames, cutoff, device=device, store=store)
