"""Runs jobs: a pretraining without labels, or a finetuning and its test."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor

from study.core.atomic_io import lock_of, remove, write_bytes
from study.core.errors import MachineError, UserError, is_disk_fault, os_error_message
from study.core.hashing import code_version
from study.core.records import COST_METRICS, RESULT, EpochRecord, JobResult
from study.core.user_traceback import with_place
from study.models.build import build_model
from study.pipeline.job import Job
from study.pipeline.outcome import LOG, OUT_OF_MEMORY, Outcome, load_outcome, save_outcome
from study.pipeline.ranks import LostWorkerError, Ranks
from study.pipeline.setup import Setup, peak_memory, set_up
from study.space.plugin_configs import realized
from study.space.pretrained import find_start
from study.training.checkpoint import delete_checkpoints, save_tensors
from study.training.loop import DivergenceError, PausedError
from study.training.program_cache import user_store
from study.training.runtime import configure_performance
from study.training.state import LostParentError, Parent

if TYPE_CHECKING:
    from study.space.trial import Pretrained


def run_job(
    job: Job,
    root: Path,
    frames: Path,
    device: str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
    workers: int = 1,
) -> Iterator[EpochRecord]:
    """Run a job, or resume it, and yield a record per epoch.

    Records of earlier epochs come again first. When the iterator ends, the outcome is in the job's
    folder. If another process runs the same job, this one waits for it.

    Args:
        job: what to run.
        root: folder of all jobs.
        frames: folder of the data set.
        device: torch device.
        should_stop: called after each step; True writes a checkpoint and stops.
        workers: processes of this machine, this one included, that share each training step.

    Raises:
        PausedError: if `should_stop` returned True; the next call resumes.
        LostWorkerError: if a worker was killed; the next call resumes, too.
        UserError: if the job was planned with other code, or its data or weights are missing.
    """
    _require_planned_code(job)
    configure_performance(torch.device(device), job.trial.model.hidden)
    folder = job.folder(root)
    with _locked(folder, job.checkpoints(root)):
        outcome = load_outcome(folder)
        if outcome is not None:
            yield from outcome.history[job.inherited :]
        elif should_stop():
            raise PausedError
        elif job.start is not None:
            save_outcome(folder, _adopt_pretrained(job, job.start, root, device))
        else:
            yield from _train_and_test(job, root, frames, device, should_stop, workers)


def _require_planned_code(job: Job) -> None:
    if job.code != code_version():
        raise UserError(
            "this process runs other code or another torch than the job was planned with; install "
            "the same versions on every machine, and do not change them while a study runs"
        )


@contextmanager
def _locked(*folders: Path) -> Iterator[None]:
    """Make the folders and hold their locks; a training may write to another job's checkpoints."""
    with ExitStack() as locks:
        for folder in dict.fromkeys(folders):
            locks.enter_context(lock_of(folder / "lock"))
        yield


def _train_and_test(
    job: Job,
    root: Path,
    frames: Path,
    device: str,
    should_stop: Callable[[], bool],
    workers: int,
) -> Iterator[EpochRecord]:
    folder, history = job.folder(root), list[EpochRecord]()
    try:
        with _others(job, root, frames, device, workers) as others:
            setup = set_up(job, realized(job.trial, root), root, frames, device)
            if others:
                others.join()
            training = setup.train(
                job.trial.seed,
                job.checkpoints(root),
                user_store(),
                should_stop,
                others,
                _parent_of(job, root),
            )
            # Each epoch has its checkpoint before it is known here, so that a part can end there.
            for metrics in islice(training, job.epochs if job.is_part else None):
                history.append(EpochRecord(job.stage, len(history) + 1, metrics))
                if len(history) > job.inherited:
                    yield history[-1]
        facts = setup.facts(workers)
        for name, megabytes in (others.peak_memory if others else {}).items():
            if name in facts:
                facts[name] = int(facts[name]) + megabytes
        metrics, weights = _ended(job, setup, history, folder)
        result = JobResult("completed", metrics=metrics, facts=facts)
    except DivergenceError as problem:
        result, weights = JobResult("diverged", str(problem)), None
    except LostParentError:
        result, weights = _as_parent(job, root), None
    save_outcome(folder, Outcome(result, history, weights, job.settings))
    delete_checkpoints(folder, job.checkpoints_kept(result.status))


def _parent_of(job: Job, root: Path) -> Parent | None:
    folder = job.parent_folder(root)
    return Parent(folder, job.segment.begin) if folder and job.segment else None


def _ended(
    job: Job, setup: Setup, history: list[EpochRecord], folder: Path
) -> tuple[dict[str, float], Path | None]:
    """Final metrics and the file of the weights; a part of a finetuning has no test and no file."""
    if job.is_part:
        return setup.costs(history, job.inherited), None
    return setup.test(history), save_tensors(folder, "weights", setup.model.state_dict())


def _as_parent(job: Job, root: Path) -> JobResult:
    """How a job ends whose parent left no checkpoint, because it diverged.

    Raises:
        UserError: if it did not; without a result it is done again.
    """
    folder = job.parent_folder(root)
    assert folder is not None
    outcome = load_outcome(folder)
    if outcome is not None and outcome.result.status == "diverged":
        return outcome.result
    remove(folder / RESULT)
    raise UserError(
        f"{folder}: its last checkpoint is missing or damaged, from which this trial goes on; "
        "rerun the same command, which makes it again"
    )


def _others(
    job: Job, root: Path, frames: Path, device: str, workers: int
) -> AbstractContextManager[Ranks | None]:
    """The other workers that train with this process, if there are to be any."""
    return nullcontext() if workers == 1 else Ranks(job, root, frames, device, workers)


def run_job_safely(
    job: Job,
    root: Path,
    frames: Path,
    device: str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
    workers: int = 1,
) -> Iterator[EpochRecord | JobResult]:
    """Run a job as `run_job` does, and yield its result last, also that of a failure.

    The traceback of a failure is written to the job's folder.

    Raises:
        PausedError: if `should_stop` returned True; the next call resumes.
        MachineError: if a disk refuses what is written to it: no other job would do better.
    """
    folder = job.folder(root)
    try:
        if device == "cuda":
            torch.cuda.init()  # Reports why the GPU cannot be used earlier and in more detail.
        yield from run_job(job, root, frames, device, should_stop, workers)
        outcome = load_outcome(folder)
        assert outcome is not None
        result = outcome.result
    except (PausedError, LostWorkerError):
        raise
    except Exception as problem:
        if _is_disk_fault(problem, root):
            raise MachineError(_fault(problem, folder)) from None
        result = _failure(problem, device)
        # A full disk or a link may be the reason.
        with suppress(OSError, UserError):
            write_bytes(folder / LOG, traceback.format_exc().encode())
    yield result


def _is_disk_fault(problem: Exception, root: Path) -> bool:
    """Whether it is the disk of the results that fails; what a user's code may not read is not."""
    if isinstance(problem, PermissionError):
        return problem.filename is not None and Path(problem.filename).is_relative_to(root)
    return isinstance(problem, OSError) and is_disk_fault(problem)


def _fault(problem: Exception, folder: Path) -> str:
    assert isinstance(problem, OSError)
    told = os_error_message(problem)
    return told if problem.filename else f"{folder}: {told}"


def _adopt_pretrained(job: Job, start: Pretrained, root: Path, device: str) -> Outcome:
    """Make an outcome of pretrained weights from elsewhere, at no cost.

    Raises:
        UserError: if the weights have changed since the job was planned, or do not fit the model.
    """
    pretrained = find_start(start.place)
    if pretrained.sha256 != start.sha256:
        raise UserError(CHANGED.format(start.place))
    trial = realized(job.trial, root)
    model = build_model(trial.model, trial.seed)
    weights = _tensors(pretrained.weights, pretrained.sha256)
    try:
        model.load_state_dict(weights)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise UserError(f"{pretrained.weights}: does not fit the model ({reason})") from None
    copied = save_tensors(job.folder(root), "weights", weights)
    facts: dict[str, str | int] = {
        "parameters": sum(values.numel() for values in model.parameters()),
        "device": torch.cuda.get_device_name(device) if device == "cuda" else "cpu",
    }
    result = JobResult("completed", metrics=dict.fromkeys(COST_METRICS, 0.0), facts=facts)
    return Outcome(result, [], copied, job.settings)


CHANGED = "{}: its weights have changed since this study began; restore them"


def _tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Weights of earlier work, or of a foundation model, whose name need not tell their hash."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(CHANGED.format(path))
    return safetensors.torch.load(content)


def _failure(problem: Exception, device: str) -> JobResult:
    reason = with_place(f"{type(problem).__name__}: {problem}", problem)
    # On CPUs torch raises a RuntimeError.
    out_of_memory = "can't allocate memory" in reason
    if not out_of_memory and not isinstance(problem, MemoryError | torch.OutOfMemoryError):
        return JobResult("failed", reason)
    peak = peak_memory(torch.device(device))
    reason = f"out of memory at its peak of {peak} MB ({reason.splitlines()[0]})"
    return JobResult("failed", reason, facts={OUT_OF_MEMORY: True, "peak_memory_mb": peak})
