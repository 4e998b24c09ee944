"""The conductor's work on Ray Tune's workers."""

from __future__ import annotations

from study.scheduling import ray_env  # noqa: F401

# isort: split
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import ray
from ray import tune
from ray.tune.execution import class_cache

from study.core.signals import ShutdownRequest
from study.driver.ray_adapters import ConductorScheduler, ConductorSearcher, Workers
from study.driver.worker import REQUEST, perform
from study.scheduling.scheduler import Conductor
from study.space.settings import Resources

logger = logging.getLogger(__name__)

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Of the environment; Tune hands them to workers, and Ray writes that into a log for all to see."""


def run(
    conductor: Conductor,
    resources: Resources,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
    ending: ShutdownRequest,
    patience: float,
) -> None:
    """Let Ray Tune run all work that the conductor has.

    Args:
        conductor: hands out work and takes in reports.
        resources: what one trial takes.
        root: folder of all work, on storage that every node sees.
        frames: folders of the data sets by their content hash, likewise.
        scratch: for files that are of no use afterwards, on such storage too.
        ending: what a signal asks of workers.
        patience: seconds that a worker may take for a step.

    Raises:
        KeyboardInterrupt: after a signal, when workers have written their checkpoints.
    """
    gpus = resources.gpus if ray.cluster_resources().get("GPU", 0) else 0
    trainable = tune.with_parameters(
        perform,
        root=str(root),
        frames={content: str(folder) for content, folder in frames.items()},
        scratch=str(scratch),
        patience=patience,
        threads=resources.cpus,
        device="cuda" if gpus else "cpu",
        deterministic=resources.deterministic,
    )
    keep_secrets()
    # Nor is a traceback of Tune's wanted.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)

    def ask() -> None:
        conductor.put_off_all()
        # On a full disk workers are not asked, and end without a checkpoint.
        with suppress(OSError):
            (scratch / REQUEST).touch()

    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=ConductorSearcher(conductor),
                scheduler=ConductorScheduler(conductor),
                num_samples=-1,
                # Leaked GPU memory ends with its process; a warm CPU worker saves seconds.
                reuse_actors=not gpus,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Workers(conductor, root, scratch, ending)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with ending.graceful_shutdown(ask):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def keep_secrets() -> None:
    """Keep `SECRETS` from workers, which have no use for them."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
