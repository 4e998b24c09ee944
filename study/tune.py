"""The conductor's work on Ray Tune's workers."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study import ray_settings  # noqa: F401

# isort: split
import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.conductor import Conductor
from study.durable import write_bytes
from study.records import EpochRecord, WorkResult
from study.signals import Ending
from study.space import Resources
from study.watch import Watch
from study.work import LOG, OUT_OF_MEMORY, Work

logger = logging.getLogger(__name__)

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Of the environment; Tune hands them to workers, and Ray writes that into a log for all to see."""

CONTINUE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)

REQUEST = "end"
"""File whose existence asks all workers to end."""


def run(
    conductor: Conductor,
    resources: Resources,
    root: Path,
    frames: Mapping[str, Path],
    scratch: Path,
    ending: Ending,
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
        _perform,
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
                callbacks=[_Workers(conductor, root, scratch, ending)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with ending.gently(ask):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def keep_secrets() -> None:
    """Keep `SECRETS` from workers, which have no use for them."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)


class _Unsaved:
    """Tune pickles its set-up for a resume of its own; the journal serves for that here."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle."""
        return {}


class _Workers(_Unsaved, tune.Callback):
    """Tells the conductor which work has got a worker, or has lost it."""

    def __init__(self, conductor: Conductor, root: Path, scratch: Path, ending: Ending) -> None:
        self.conductor, self.root, self.scratch = conductor, root, scratch
        self.ending = ending

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The trial's worker is up."""
        del iteration, trials
        self.conductor.began(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Its worker died."""
        del iteration, trials
        work = Work.from_json(trial.config["work"])
        hung = _content(self.scratch / f"{work.key}.txt")
        why = _content(Path(trial.error_file)) if trial.error_file else ""
        if hung:
            log = work.folder(self.root) / LOG
            with suppress(OSError):
                write_bytes(log, hung.encode())
            reason = f"it hung: no step was done in the time of --patience; {log} shows where"
            self.conductor.end(work.key, WorkResult("failed", reason))
        elif "OutOfMemoryError" in why or "low on memory" in why:
            reason = f"out of memory: Ray ended its process{_shortage(why)}"
            self.conductor.end(work.key, WorkResult("failed", reason, facts={OUT_OF_MEMORY: True}))
        else:
            self.conductor.lost(work.key, _cause(why))

    def on_step_begin(self, iteration: int, trials: list[Any], **_info: Any) -> None:
        """Tune takes SIGUSR1 for itself, and would end as if everything were done."""
        del iteration, trials
        signal.signal(signal.SIGUSR1, self.ending.heed)

    def on_step_end(self, iteration: int, trials: list[Any], **_info: Any) -> None:
        """After a signal nothing is left to wait for once no worker is at work."""
        del iteration, trials
        if self.ending.number is not None and self.conductor.idle:
            raise KeyboardInterrupt


def _shortage(why: str) -> str:
    """How much memory the machine had left, as far as Ray tells."""
    told = re.search(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB limit", why)
    return f" when {told[1]} of {told[2]} GB of the machine were in use" if told else ""


def _cause(why: str) -> str:
    """Of the death of a worker process, in a few words of Ray's many."""
    if "Worker unexpectedly exits" in why:
        return "killed, crashed, or short of memory"
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "Ray does not know why"


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _perform(
    config: dict[str, Any],
    root: str,
    frames: dict[str, str],
    scratch: str,
    patience: float,
    threads: int,
    device: str,
    *,
    deterministic: bool,
) -> None:
    """Do one piece of work in a worker process; report every epoch, and what the user is told."""
    work, told = Work.from_json(config["work"]), _Told()
    diagnosis = Path(scratch) / f"{work.key}.txt"
    logging.getLogger("study").addHandler(told)
    try:
        with Watch(Path(scratch) / REQUEST, diagnosis, patience) as watch:
            if not watch.asked:
                from study.process import set_up  # Torch takes long to import.

                set_up(threads, device, deterministic=deterministic)
            for kind, news in _news(work, root, frames, device, watch):
                tune.report({kind: news, "told": told.take()})
    finally:
        logging.getLogger("study").removeHandler(told)


def _news(
    work: Work, root: str, frames: dict[str, str], device: str, watch: Watch
) -> Iterator[tuple[str, str]]:
    """What a worker reports, and its kind."""
    if watch.asked:
        yield "paused", ""
        return
    from study.pipeline import attempt
    from study.training import PausedError

    try:
        for news in attempt(work, Path(root), Path(frames[work.data_hash]), device, watch):
            kind = "result" if isinstance(news, WorkResult) else "record"
            yield kind, json.dumps(asdict(news))
    except PausedError:
        yield "paused", ""


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
        if "paused" in result:
            self.conductor.paused(key)
            return CONTINUE
        if "result" in result:
            self.conductor.end(key, WorkResult(**json.loads(result["result"])))
            return CONTINUE
        stop = self.conductor.report(key, EpochRecord(**json.loads(result["record"])))
        return STOP if stop else CONTINUE
