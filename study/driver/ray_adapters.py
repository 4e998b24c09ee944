"""Ray Tune's interfaces, behind which the scheduler decides."""

from __future__ import annotations

from study.driver import ray_env  # noqa: F401

# isort: split
import json
import logging
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.core.atomic_io import write_bytes
from study.core.errors import os_error_message
from study.core.records import EpochRecord, JobResult
from study.core.signals import ShutdownRequest
from study.pipeline.job import Job
from study.pipeline.outcome import LOG, OUT_OF_MEMORY
from study.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)

CONTINUE, STOP = str(TrialScheduler.CONTINUE), str(TrialScheduler.STOP)
ERROR, RUNNING, TERMINATED = "ERROR", "RUNNING", "TERMINATED"
"""States of Tune's trials."""

KEPT = {"trial_id", "node_ip"}
"""What Tune needs of a report once the scheduler has it; it makes a history of each number."""
SEEN = "seen"
"""What takes the place of a report: of a trial that has none Tune prints that it has completed."""

LOST_NODE = ("is unavailable", "node has died", "node was terminated")
"""What Ray says, beside much else, of a worker whose node is gone."""


class _Unsaved:
    """Tune pickles its set-up for a resume of its own; the journal serves for that here."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave nothing to pickle."""
        return {}


@contextmanager
def _faults_end(stop: ShutdownRequest) -> Iterator[None]:
    """Stop the study in order if a disk refuses what the driver writes of an event.

    Tune would take it for the fault of a worker, and try again with another.
    """
    try:
        yield
    except OSError as problem:
        stop.fail(os_error_message(problem))
        if not stop.fault:
            raise


class Workers(_Unsaved, tune.Callback):
    """Reports to the scheduler which work has got a worker, or has lost it.

    Args:
        scheduler: what to report to.
        root: folder of all work.
        scratch: folder of the workers' diagnoses.
        stop: whether a signal has come.
    """

    def __init__(
        self, scheduler: Scheduler, root: Path, scratch: Path, stop: ShutdownRequest
    ) -> None:
        self.scheduler, self.root, self.scratch, self.stop = scheduler, root, scratch, stop
        self.open: list[Any] = []
        """Tune's trials that had not ended after the last step."""
        self.seen = 0
        self.reported: set[str] = set()
        """Ids of trials whose error was reported during this step."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """The trial's worker is up."""
        del iteration, trials
        with _faults_end(self.stop):
            self.scheduler.began(trial.config["key"])

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Any],
        trial: Any,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Forget a report: Tune keeps the last one of each trial, with its settings, to the end."""
        del iteration, trials, trial
        for name in result.keys() - KEPT:
            del result[name]
        result[SEEN] = ""

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """Its worker died."""
        del iteration, trials
        self.reported.add(trial.trial_id)
        with _faults_end(self.stop):
            self._hand_on(trial)

    def _hand_on(self, trial: Any) -> None:
        """Say why a worker died, and let another one go on if that helps."""
        work = Job.from_json(json.loads(trial.config["work"]))
        diagnosis = _content(self.scratch / f"{work.key}.txt")
        why = _content(Path(trial.error_file)) if trial.error_file else ""
        if diagnosis:
            log = work.folder(self.root) / LOG
            with suppress(OSError):
                write_bytes(log, diagnosis.encode())
            reason = f"it hung: no step was completed within --patience; {log} shows where"
            self.scheduler.end(work.key, JobResult("failed", reason))
        elif "OutOfMemoryError" in why or "low on memory" in why:
            reason = f"out of memory: Ray killed its process{_shortage(why)}"
            self.scheduler.end(work.key, JobResult("failed", reason, facts={OUT_OF_MEMORY: True}))
        else:
            self.scheduler.worker_died(work.key, _cause(why))

    def on_step_begin(self, iteration: int, trials: list[Any], **_info: Any) -> None:
        """Tune takes SIGUSR1 for itself, and would end as if everything were done."""
        del iteration, trials
        signal.signal(signal.SIGUSR1, self.stop.on_signal)

    def on_step_end(self, iteration: int, trials: list[Any], **_info: Any) -> None:
        """After a signal nothing is left to wait for once no worker is at work."""
        del iteration
        self._hand_on_aborted(trials)
        if self.stop.requested and not self._is_busy():
            raise KeyboardInterrupt

    def _hand_on_aborted(self, trials: Sequence[Any]) -> None:
        """Give work to another worker that Tune dropped without a word.

        It does so if a process that should be reused does not end its last function in time.
        """
        self.open += trials[self.seen :]
        self.seen = len(trials)
        for trial in self.open:
            if trial.status == ERROR and trial.trial_id not in self.reported:
                self.scheduler.worker_died(trial.config["key"], "it could not be reused")
        self.open = [trial for trial in self.open if trial.status not in (ERROR, TERMINATED)]
        self.reported.clear()

    def _is_busy(self) -> bool:
        """Whether some worker is at work, by the scheduler's books and by Tune's."""
        running = self.scheduler.running
        keys = {trial.config["key"] for trial in self.open if trial.status == RUNNING}
        return any(running[key].began for key in keys if key in running)


def _shortage(why: str) -> str:
    """How much memory the machine had left, as far as Ray says."""
    match = re.search(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB limit", why)
    return f" when {match[1]} of {match[2]} GB of the machine were in use" if match else ""


def _cause(why: str) -> str:
    """Why a worker process died, in a few words of Ray's many."""
    if "Worker unexpectedly exits" in why:
        return "killed, crashed, or short of memory"
    if any(words in why for words in LOST_NODE):
        return "it, or its whole node, is down or cannot be reached"
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "Ray does not know why"


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


class SchedulerSearcher(_Unsaved, Searcher):
    """Asks the scheduler what to run next.

    Args:
        scheduler: what to ask.
        stop: ends the study if the disk is at fault.
    """

    def __init__(self, scheduler: Scheduler, stop: ShutdownRequest) -> None:
        super().__init__(metric="epoch", mode="max")
        self.scheduler, self.stop = scheduler, stop

    def suggest(self, trial_id: str) -> Any:
        """Return the next work as a Tune configuration."""
        del trial_id
        with _faults_end(self.stop):
            work = self.scheduler.next()
            if work is not None:
                # Tune keeps four copies of each value of a configuration, and text is the smallest.
                return {"key": work.key, "work": json.dumps(work.to_json())}
        return Searcher.FINISHED if self.scheduler.finished else None

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Ray's interface
    ) -> None:
        """Do nothing: `ReportHandler` and `Workers` have informed the scheduler."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the journal is the truth."""


class ReportHandler(_Unsaved, FIFOScheduler):
    """Passes reports of workers to the scheduler, and stops what it stops.

    Args:
        scheduler: what decides.
        stop: ends the study if the disk is at fault.
    """

    def __init__(self, scheduler: Scheduler, stop: ShutdownRequest) -> None:
        super().__init__()
        self.scheduler, self.stop = scheduler, stop

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Handle an epoch, or the end; Tune repeats the last report when a trial ends."""
        del tune_controller
        key = trial.config["key"]
        if key not in self.scheduler.running:
            return CONTINUE
        if not self.stop.fault:
            with _faults_end(self.stop):
                return self._handle(key, result)
        # What could not be written of it is found again in its folder.
        self.scheduler.paused(key)
        return STOP

    def _handle(self, key: str, result: dict[str, Any]) -> str:
        for line in result.get("warnings", []):
            logger.warning(line)
        if "fault" in result:
            self.stop.fail(result["fault"])
        if "paused" in result or "fault" in result:
            self.scheduler.paused(key)
            return CONTINUE
        if "result" in result:
            self.scheduler.end(key, JobResult(**json.loads(result["result"])))
            return CONTINUE
        if "record" not in result:
            return CONTINUE
        stop = self.scheduler.report(key, EpochRecord(**json.loads(result["record"])))
        return STOP if stop else CONTINUE
