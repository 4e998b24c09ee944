"""What Ray Tune reports reaches the scheduler, and nothing is waited for in vain."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.tune.experiment import Trial as TuneTrial

from study.core.records import EpochRecord
from study.core.signals import ShutdownRequest
from study.driver import ray_adapters
from study.driver.ray_adapters import ReportHandler, Workers
from study.pipeline.job import Job
from study.scheduling.proposals.grid import Grid
from study.scheduling.scheduler import Scheduler
from study.space.trial import Trial

METRIC = "val_force_rmse"


@pytest.fixture
def scheduler(tiny: Callable[..., Trial], tmp_path: Path) -> Scheduler:
    """Has two trials."""
    jobs = [Job("trial", tiny(pretrain=None, seed=seed), "data", "code") for seed in (0, 1)]
    return Scheduler(Grid(jobs, {}, exempt=True), METRIC, tmp_path, [])


def workers_of(scheduler: Scheduler, tmp_path: Path) -> Workers:
    return Workers(scheduler, tmp_path, tmp_path, ShutdownRequest())


def handed_out(scheduler: Scheduler, number: int) -> Any:
    """A trial of Tune with the scheduler's next job."""
    job = scheduler.next()
    assert job is not None
    config = {"key": job.key, "work": json.dumps(job.to_json())}
    return SimpleNamespace(trial_id=str(number), config=config, status="PENDING", error_file=None)


def test_the_states_of_trials_are_tunes() -> None:
    states = (ray_adapters.ERROR, ray_adapters.RUNNING, ray_adapters.TERMINATED)
    assert states == (TuneTrial.ERROR, TuneTrial.RUNNING, TuneTrial.TERMINATED)


def test_a_lost_node_is_told_in_few_words() -> None:
    lost = ActorUnavailableError("RpcError: RPC error: Socket closed rpc_code: 14", None)
    assert ray_adapters._cause(f"Traceback\n{lost}") == (
        "it, or its whole node, is down or cannot be reached"
    )


def test_work_that_tune_drops_without_a_word_goes_to_another_worker(
    scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workers, trials = workers_of(scheduler, tmp_path), [handed_out(scheduler, 0)]
    workers.on_step_end(1, trials)
    trials[0].status = "ERROR"
    workers.on_step_end(2, trials)
    assert "it could not be reused" in caplog.text
    again = handed_out(scheduler, 1)
    assert again.config == trials[0].config
    workers.on_step_end(3, [*trials, again])
    assert set(scheduler.running) == {again.config["key"]}


def test_a_death_that_tune_reports_counts_once(
    scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workers, trials = workers_of(scheduler, tmp_path), [handed_out(scheduler, 0)]
    trials[0].status = "ERROR"
    workers.on_trial_error(1, trials, trials[0])
    workers.on_step_end(1, trials)
    assert caplog.text.count("its worker process died") == 1


def test_after_a_signal_tune_ends_with_the_last_worker(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    workers, trials = workers_of(scheduler, tmp_path), [handed_out(scheduler, n) for n in (0, 1)]
    for trial in trials:
        workers.on_trial_start(1, trials, trial)
        trial.status = "RUNNING"
    workers.stop.number = signal.SIGTERM
    scheduler.stop_scheduling()
    workers.on_step_end(1, trials)
    record = EpochRecord("finetune", 1, {METRIC: 0.1, "seconds": 1.0})
    assert scheduler.report(trials[0].config["key"], record)
    workers.on_step_end(2, trials)
    scheduler.paused(trials[1].config["key"])
    with pytest.raises(KeyboardInterrupt):
        workers.on_step_end(3, trials)


def test_after_a_signal_a_worker_that_tune_has_ended_is_not_waited_for(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    workers, trials = workers_of(scheduler, tmp_path), [handed_out(scheduler, 0)]
    workers.on_trial_start(1, trials, trials[0])
    trials[0].status = "RUNNING"
    workers.stop.number = signal.SIGTERM
    workers.on_step_end(1, trials)
    trials[0].status = "TERMINATED"
    with pytest.raises(KeyboardInterrupt):
        workers.on_step_end(2, trials)


def test_tune_keeps_little_of_a_report_and_may_repeat_it(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    workers, trial = workers_of(scheduler, tmp_path), handed_out(scheduler, 0)
    handler = ReportHandler(scheduler, workers.stop)
    record = json.dumps({"stage": "finetune", "epoch": 1, "metrics": {METRIC: 0.1}})
    result = {"record": record, "config": trial.config, "done": False, "trial_id": "0"}
    handler.on_trial_result(None, trial, result)
    workers.on_trial_result(1, [trial], trial, result)
    assert result == {"trial_id": "0", "seen": ""}
    handler.on_trial_result(None, trial, result | {"done": True})
    assert scheduler.running[trial.config["key"]].values == {1: 0.1}


@pytest.mark.parametrize("report", ["epoch", "fault"])
def test_a_full_disk_ends_a_study_in_order_and_is_no_fault_of_a_worker(
    report: str, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/results/journal.jsonl")

    monkeypatch.setattr(scheduler.announce, "recorded", refuse)
    workers, trials = workers_of(scheduler, tmp_path), [handed_out(scheduler, n) for n in (0, 1)]
    handler = ReportHandler(scheduler, workers.stop)
    for trial in trials:
        workers.on_trial_start(1, trials, trial)
        trial.status = "RUNNING"
    record = {"record": json.dumps({"stage": "finetune", "epoch": 1, "metrics": {METRIC: 0.1}})}
    fault = {"fault": "/results/journal.jsonl: No space left on device"}

    def steps() -> None:
        with workers.stop.graceful_shutdown(scheduler.stop_scheduling):
            handler.on_trial_result(None, trials[0], record if report == "epoch" else fault)
            workers.on_step_end(1, trials)
            handler.on_trial_result(None, trials[1], record)
            workers.on_step_end(2, trials)
            pytest.fail("the study goes on")

    with pytest.raises(KeyboardInterrupt):
        steps()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert workers.stop.fault == "/results/journal.jsonl: No space left on device"
    assert scheduler.finished


def test_ray_tells_how_short_of_memory_the_machine_was() -> None:
    told = (
        "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low on "
        "memory. Memory on the node (IP: 127.0.0.1, ID: ab) was 22.41GB used / 23.52GB limit "
        "(0.952806); Refer to the documentation on how to address the out of memory issue: https://x"
    )
    assert ray_adapters._shortage(told) == " when 22.41 of 23.52 GB of the machine were in use"
    assert ray_adapters._shortage("killed") == ""
