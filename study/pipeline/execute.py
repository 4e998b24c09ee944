"""The two stages of a trial: pretrain without labels, then finetune on energies and forces."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock

from study.core.atomic_io import make_folder, write_bytes
from study.core.errors import UserError
from study.core.hashing import code_version
from study.core.records import COST_METRICS, EpochRecord, JobResult
from study.models.build import build_model
from study.pipeline.job import Job
from study.pipeline.outcome import LOG, OUT_OF_MEMORY, Outcome, load_outcome, save_outcome
from study.pipeline.setup import peak_memory, set_up
from study.space.pretrained import find_start
from study.training.checkpoint import delete_checkpoints, load_tensors, save_tensors
from study.training.loop import DivergenceError, PausedError
from study.training.runtime import configure_performance

if TYPE_CHECKING:
    from study.space.trial import Pretrained


def run_job(
    work: Job,
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
    configure_performance(torch.device(device), work.trial.model.hidden)
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
            setup = set_up(work, root, frames, device)
            train = setup.train(work.trial.seed, checkpoints, root / "compiled", ending)
            for metrics in train:
                history.append(EpochRecord(work.stage, len(history) + 1, metrics))
                yield history[-1]
            result = JobResult("completed", metrics=setup.test(history), facts=setup.facts())
            weights = save_tensors(folder, "weights", setup.model.state_dict())
        except DivergenceError as problem:
            result, weights = JobResult("diverged", str(problem)), None
        save_outcome(folder, Outcome(result, history, weights, work.settings))
        delete_checkpoints(folder)


def run_job_safely(
    work: Job,
    root: Path,
    frames: Path,
    device: str = "cpu",
    ending: Callable[[], bool] = lambda: False,
) -> Iterator[EpochRecord | JobResult]:
    """`run_job`, and then how it ended; a failure is an end too, with its traceback in a log."""
    folder = work.folder(root)
    try:
        if device == "cuda":
            torch.cuda.init()  # Or torch says only later, and less, why it cannot use the GPU.
        yield from run_job(work, root, frames, device, ending)
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


def _taken_over(work: Job, start: Pretrained, root: Path, device: str) -> Outcome:
    """The outcome of a pretraining that was done before; it costs nothing here.

    Raises:
        UserError: if the weights are not those that the work is named by, or do not fit the model.
    """
    from study.space.plugin_configs import realized

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
    result = JobResult("completed", metrics=dict.fromkeys(COST_METRICS, 0.0), facts=facts)
    return Outcome(result, [], kept, work.settings)


def _failure(problem: Exception, device: str) -> JobResult:
    reason = f"{type(problem).__name__}: {problem}"
    # On CPUs torch raises a RuntimeError.
    lacking = "can't allocate memory" in reason
    if not lacking and not isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return JobResult("failed", reason)
    peak = peak_memory(torch.device(device))
    reason = f"out of memory at its peak of {peak} MB ({reason.splitlines()[0]})"
    return JobResult("failed", reason, facts={OUT_OF_MEMORY: True, "peak_memory_mb": peak})
