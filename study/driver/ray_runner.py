"""Runs the scheduler's work on Ray Tune's workers."""

from __future__ import annotations

from study.driver import ray_env  # noqa: F401

# isort: split
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.execution import class_cache

from study.core.atomic_io import make_folder, remove
from study.core.errors import RERUN, MachineError
from study.core.signals import ShutdownRequest
from study.core.trust import ACCEPTED
from study.driver.ray_adapters import ReportHandler, SchedulerSearcher, Workers
from study.driver.worker import STOP_FILE, run_work
from study.scheduling.scheduler import Scheduler
from study.space.settings import Resources

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Environment variables that Tune hands to workers, and Ray writes to a world-readable log."""


def run(
    scheduler: Scheduler,
    resources: Resources,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
    stop: ShutdownRequest,
    patience: float,
) -> None:
    """Let Ray Tune run all work that the scheduler has.

    Args:
        scheduler: assigns work and handles reports.
        resources: what one trial takes.
        root: folder of all work, on storage that every node sees.
        frames: folders of the data sets by their content hash, likewise.
        scratch: for files that are of no use afterwards, on such storage too.
        stop: what a signal does.
        patience: seconds that a worker may take for a step.

    Raises:
        KeyboardInterrupt: after a signal, when workers have written their checkpoints.
        MachineError: if a disk does not take what is written to it.
    """
    # Before Tune writes there: it follows links.
    remove(scratch)
    make_folder(scratch)
    # A line says why a worker died; Tune's traceback is not wanted beside it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        # Ray takes an interrupt while it pickles for an object that cannot be pickled.
        with stop.graceful_shutdown(lambda: _request_stop(scheduler, scratch)):
            tuner = _tuner(scheduler, resources, root, frames, scratch, stop, patience)
            if not stop.requested:
                tuner.fit()
    except KeyboardInterrupt:
        _raise_fault(stop, root)
        raise
    finally:
        remove(scratch)


def _tuner(
    scheduler: Scheduler,
    resources: Resources,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
    stop: ShutdownRequest,
    patience: float,
) -> tune.Tuner:
    withhold_secrets()
    gpus = resources.total_gpus if ray.cluster_resources().get("GPU", 0) else 0
    return tune.Tuner(
        _trainable(resources, gpus, root, frames, scratch, patience),
        tune_config=_tune_config(scheduler, stop, reuse_workers=not gpus),
        run_config=_run_config(Workers(scheduler, root, scratch, stop), scratch),
    )


def _raise_fault(stop: ShutdownRequest, root: Path) -> None:
    """Say that a disk has ended the study, if it was one and no signal."""
    if stop.fault and stop.number is None:
        # A write to a file that is open names none.
        place = "" if os.sep in stop.fault else f"{root}: "
        raise MachineError(f"{place}{stop.fault}; {RERUN}") from None


def _trainable(
    resources: Resources,
    gpus: float,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
    patience: float,
) -> Any:
    """What a worker does, with all that is the same for every job."""
    trainable = tune.with_parameters(
        run_work,
        root=str(root),
        frames={content: str(folder) for content, folder in frames.items()},
        scratch=str(scratch),
        patience=patience,
        threads=resources.cpus,
        workers=resources.workers,
        device="cuda" if gpus else "cpu",
        deterministic=resources.deterministic,
        accepted=os.environ.get(ACCEPTED, ""),
    )
    return tune.with_resources(trainable, {"cpu": resources.total_cpus, "gpu": gpus})


def _request_stop(scheduler: Scheduler, scratch: Path) -> None:
    scheduler.stop_scheduling()
    # On a full disk workers cannot be asked, and end without a checkpoint.
    with suppress(OSError):
        (scratch / STOP_FILE).touch()


def _run_config(workers: Workers, scratch: Path) -> Any:
    return tune.RunConfig(
        name="trials",
        storage_path=str(scratch),
        verbose=0,
        callbacks=[workers],
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )


def _tune_config(scheduler: Scheduler, stop: ShutdownRequest, *, reuse_workers: bool) -> Any:
    return tune.TuneConfig(
        search_alg=SchedulerSearcher(scheduler, stop),
        scheduler=ReportHandler(scheduler, stop),
        num_samples=-1,
        # Leaked GPU memory ends with its process; a warm CPU worker saves seconds.
        reuse_actors=reuse_workers,
    )


def withhold_secrets() -> None:
    """Keep `SECRETS` from workers, which have no use for them; Tune has no public way for it."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
