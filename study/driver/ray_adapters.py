"""Ray Tune's interfaces, behind which the conductor decides."""

from __future__ import annotations

from study.scheduling import ray_env  # noqa: F401

# isort: split
import json
import logging
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.core.atomic_io import write_bytes
from study.core.records import EpochRecord, JobResult
from study.core.signals import ShutdownRequest
from study.pipeline.job import Job
from study.pipeline.outcome import LOG, OUT_OF_MEMORY
from study.scheduling.scheduler import Conductor

logger = logging.getLogger(__name__)


CONTINUE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)


class _Unsaved:
    """Tune pickles its set-up for a resume of its own; the journal serves for that here."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing to pickle."""
        return {}


class Workers(_Unsaved, tune.Callback):
    """Tells the conductor which work has got a worker, or has lost it."""

    def __init__(
        self, conductor: Conductor, root: Path, scratch: Path, ending: ShutdownRequest
    ) -> None:
        self.conductor, self.root, self.scratch = conductor, root, scratch
        self.ending = ending

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The trial's worker is up."""
        del iteration, trials
        self.conductor.began(trial.config["key"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Its worker died."""
        del iteration, trials
        work = Job.from_json(trial.config["work"])
        hung = _content(self.scratch / f"{work.key}.txt")
        why = _content(Path(trial.error_file)) if trial.error_file else ""
        if hung:
            log = work.folder(self.root) / LOG
            with suppress(OSError):
                write_bytes(log, hung.encode())
            reason = f"it hung: no step was done in the time of --patience; {log} shows where"
            self.conductor.end(work.key, JobResult("failed", reason))
        elif "OutOfMemoryError" in why or "low on memory" in why:
            reason = f"out of memory: Ray ended its process{_shortage(why)}"
            self.conductor.end(work.key, JobResult("failed", reason, facts={OUT_OF_MEMORY: True}))
        else:
            self.conductor.lost(work.key, _cause(why))

    def on_step_begin(self, iteration: int, trials: list[Any], **_info: Any) -> None:
        """Tune takes SIGUSR1 for itself, and would end as if everything were done."""
        del iteration, trials
        signal.signal(signal.SIGUSR1, self.ending.on_signal)

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


class ConductorSearcher(_Unsaved, Searcher):
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


class ConductorScheduler(_Unsaved, FIFOScheduler):
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
            self.conductor.end(key, JobResult(**json.loads(result["result"])))
            return CONTINUE
        stop = self.conductor.report(key, EpochRecord(**json.loads(result["record"])))
        return STOP if stop else CONTINUE
