"""The conductor's work on Ray Tune's workers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# `ray start` demands a token where there is one, but does not tell those who connect.
if (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
# Ctrl-C is the command line's business.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# Pretrainings report no validation force error, and that is no mistake.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.conductor import Conductor
from study.errors import UserError
from study.records import EpochRecord, WorkResult
from study.space import Resources
from study.work import Work

logger = logging.getLogger(__name__)

RETRIES = 3
"""A worker process that dies is started again so often; its work continues from its checkpoint."""

CONTINUE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)

OBJECT_STORE = 200 * 2**20
"""Bytes: nothing of ours travels through Ray's object store but records."""


def connect(resources: Resources, *, address: str | None = None, cpus: int | None = None) -> int:
    """Join the cluster at `address`, or start Ray on this machine with `cpus` cores.

    Returns:
        How many trials fit at once.

    Raises:
        UserError: if the cluster does not answer, or no trial fits.
    """
    local = {} if address else {"object_store_memory": OBJECT_STORE, "num_cpus": cpus}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local
        )
    except (ConnectionError, RuntimeError) as problem:
        raise UserError(
            f"--address {address or 'local'}: cannot connect ({str(problem).splitlines()[0]}); "
            "start Ray there with `ray start --head`, with the same Ray version and token"
        ) from None
    # Ray takes the signal for itself, and would end the study without a word to MLflow.
    signal.signal(signal.SIGTERM, on_sigterm)
    total = ray.cluster_resources()
    fitting = [int(total.get("CPU", 0) / resources.cpus)]
    if total.get("GPU", 0) and resources.gpus:
        fitting.append(int(total["GPU"] / resources.gpus))
    if min(fitting) < 1:
        has = ", ".join(f"{total.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
        raise UserError(f"resources: a trial must fit, but Ray has only {has}; ask for less")
    return min(fitting)


def require_reachable(address: str) -> None:
    """Knock at a cluster's port, because Ray would knock for minutes.

    Raises:
        UserError: if nobody opens.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as problem:
        raise UserError(
            f"--address {address}: nobody answers ({problem.strerror or problem}); start Ray there "
            "with `ray start --head`, or leave the option out to run on this machine"
        ) from None


def disconnect() -> None:
    """Leave the cluster, or end the local one."""
    ray.shutdown()


def run(
    conductor: Conductor,
    resources: Resources,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
) -> None:
    """Let Ray Tune run all work that the conductor has.

    Args:
        conductor: hands out work and takes in reports.
        resources: what one trial takes.
        root: folder of all work, on storage that every node sees.
        frames: folders of the data sets by their content hash, likewise.
        scratch: for Tune's own files, which are of no use afterwards.
    """
    gpus = resources.gpus if ray.cluster_resources().get("GPU", 0) else 0
    trainable = tune.with_parameters(
        _perform,
        root=str(root),
        frames={content: str(folder) for content, folder in frames.items()},
        threads=resources.cpus,
        device="cuda" if gpus else "cpu",
    )
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(conductor),
                scheduler=_Scheduler(conductor),
                num_samples=-1,
                # Leaked GPU memory ends with its process; a warm CPU worker saves seconds.
                reuse_actors=not gpus,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[_Workers(conductor)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Unsaved:
    """Tune pickles its set-up for a resume of its own; the journal serves for that here."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle."""
        return {}


class _Workers(_Unsaved, tune.Callback):
    """Tells the conductor which work has got a worker, or has lost its last one."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The trial's worker is up."""
        del iteration, trials
        self.conductor.began(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Its worker died too often; Tune does not try it again."""
        del iteration, trials
        reason = f"its worker process died {RETRIES + 1} times, perhaps for lack of memory"
        self.conductor.end(trial.config["key"], WorkResult("failed", reason))


def _perform(
    config: dict[str, Any], root: str, frames: dict[str, str], threads: int, device: str
) -> None:
    """Do one piece of work in a worker process; report every epoch, and what the user is told."""
    import torch

    from study.pipeline import attempt

    torch.set_num_threads(threads)
    work, told = Work.from_json(config["work"]), _Told()
    logging.getLogger("study").addHandler(told)
    try:
        for news in attempt(work, Path(root), Path(frames[work.data_hash]), device):
            kind = "result" if isinstance(news, WorkResult) else "record"
            tune.report({kind: json.dumps(asdict(news)), "told": told.take()})
    finally:
        logging.getLogger("study").removeHandler(told)


class _Told(logging.Handler):
    """Keeps what a worker tells the user, who does not see its output."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One line more."""
        self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        """The lines since the last call."""
        taken, self.lines = self.lines, []
        return taken


class _Searcher(_Unsaved, Searcher):
    """Asks the conductor what to run next."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__(metric="epoch", mode="max")
        self.conductor = conductor

    def suggest(self, trial_id: str) -> Any:
        """The next work as a Tune configuration."""
        del trial_id
        work = self.conductor.next()
        if work is not None:
            return {"key": work.key, "work": work.to_json()}
        return Searcher.FINISHED if self.conductor.finished else None

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Ray's interface
    ) -> None:
        """The scheduler has told the conductor."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""


class _Scheduler(_Unsaved, FIFOScheduler):
    """Takes reports to the conductor and stops what it gives up."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self.conductor = conductor

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """An epoch, or the end; Tune repeats the last report when a trial ends."""
        del tune_controller
        key = trial.config["key"]
        if key not in self.conductor.running:
            return CONTINUE
        for line in result.get("told", []):
            logger.warning(line)
        if "result" in result:
            self.conductor.end(key, WorkResult(**json.loads(result["result"])))
            return CONTINUE
        stop = self.conductor.report(key, EpochRecord(**json.loads(result["record"])))
        return STOP if stop else CONTINUE
