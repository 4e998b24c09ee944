"""One run of a study: its work goes to Ray, that of the plan first, then that of an audit."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Self

from rich.console import Console

from study.console.json_lines import JsonLines, print_json_event
from study.console.progress_table import ProgressTable
from study.console.run_options import RunOptions
from study.core.errors import UserError
from study.core.provenance import cores, gpus, hardware
from study.core.records import Tag
from study.core.signals import ShutdownRequest
from study.driver import ray_cluster, ray_env
from study.pipeline.job import Job
from study.planning.arms import names_of
from study.planning.plan import Plan
from study.planning.prepared_data import DataSets
from study.scheduling.asha import Asha
from study.scheduling.budget import Budget
from study.scheduling.early_stopping_audit import Audit, audit_of
from study.scheduling.journal import Journal
from study.scheduling.objectives import front_of
from study.scheduling.proposals.grid import Grid
from study.scheduling.proposals.optuna_search import OptunaProposals
from study.scheduling.proposals.population import PopulationProposals
from study.scheduling.proposals.tuned_grid import TunedGrid
from study.scheduling.protocols import EarlyStop, Observer, Proposals
from study.scheduling.scheduler import Scheduler
from study.space.search.stopping import OptunaPruner
from study.space.trial import Trial
from study.tracking.optuna_storage import OptunaRecords
from study.tracking.tracker import Tracker


class Session:
    """Has work done, and leaves Ray at the end; Ray starts only if some work is left.

    Args:
        plan: of the study.
        console: where to show what happens.
        options: the command line.
        stop: what a signal does.
    """

    def __init__(
        self, plan: Plan, console: Console, options: RunOptions, stop: ShutdownRequest
    ) -> None:
        self.plan, self.console, self.options, self.stop = plan, console, options, stop
        self.resources = plan.space.settings.resources
        on_gpus = gpus() and self.resources.gpus
        share = self.resources.total_gpus if on_gpus else self.resources.total_cpus
        self.budget = Budget(share, math.inf if options.budget is None else options.budget)
        self.connected, self.failed = False, False
        if options.address:
            ray_env.use_cluster()
        else:
            ray_env.use_private_cluster()
        self.complete = True
        """Nothing was left to a later run for lack of budget."""

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Leave Ray."""
        if self.connected:
            ray_cluster.disconnect()

    @cached_property
    def slots(self) -> int:
        """Trials at once."""
        address = self.options.address
        if not address:
            return self.plan.slots
        self.connected = True
        return ray_cluster.connect(self.resources, address=address)

    def run_plan(self, data: DataSets, journal: Journal, tracker: Tracker) -> None:
        """Run all trials of the plan."""
        proposals = build_proposals(self.plan, journal, data.work, self.slots)
        early_stop = build_early_stop(self.plan, journal)
        tuning = [data.work(trial) for trial in self.plan.tuning]
        planned = [data.work(trial) for trial in self.plan.untuned or self.plan.grid]
        view = self._view(self.plan.seconds, self.plan.trials, planned, tuning)
        observers: list[Observer] = [journal, tracker, self.budget, view]
        records, search = None, self.plan.space.settings.search
        if search is not None and search.population is None:
            place = self.options.optuna_storage or self.plan.folder.path
            records = OptunaRecords(self.plan.space, self.plan.name, journal, place)
            observers.append(records)
        scheduler = Scheduler(
            proposals,
            self.plan.space.settings.metric,
            self.plan.root,
            observers,
            early_stop,
            journal.stopped(),
            self.budget,
            self._room(),
            search.measured if search else (),
        )
        self._run(scheduler, data, tracker, view, records)
        if search and search.objectives:
            best = front_of(journal.entries(), search)
            tracker.tag_study(Tag.FRONT, json.dumps([entry.planned.number for entry in best]))

    def audit(self, journal: Journal) -> Audit:
        """Draw the stopped trials that will be finished."""
        settings = self.plan.space.settings
        return audit_of(self.plan.name, settings, journal.entries(), self.plan.audit)

    def run_audit(self, audit: Audit, data: DataSets, tracker: Tracker) -> None:
        """Finish stopped trials; in the journal they stay stopped."""
        numbers = [planned.number for planned in audit.sample]
        self.console.print(
            f"\nearly-stopping audit: finishing {len(numbers)} of {audit.stopped} stopped trials"
        )
        if self.options.json:
            print_json_event("audit", stopped=audit.stopped, numbers=numbers)
        jobs = [planned.work for planned in audit.sample]
        view = self._view(expected_seconds(self.plan, jobs), len(numbers), jobs)
        scheduler = Scheduler(
            audit,
            self.plan.space.settings.metric,
            self.plan.root,
            [tracker, self.budget, view],
            allowance=self.budget,
            room=self._room(),
        )
        self._run(scheduler, data, tracker, view)
        self.console.print(audit.summary)
        self.failed = audit.failed

    def _run(
        self,
        scheduler: Scheduler,
        data: DataSets,
        tracker: Tracker,
        view: ProgressTable | JsonLines,
        records: OptunaRecords | None = None,
    ) -> None:
        if scheduler.has_work():
            if records is not None:
                records.open()
            quiet = self.options.quiet
            with view if isinstance(view, ProgressTable) and not quiet else nullcontext():
                view.say("connecting to MLflow")
                tracker.connect()
                tracker.wait()
                view.say("starting Ray")
                self._connect()
                from study.driver import ray_runner  # Ray takes long to import.

                view.say("starting trials")
                ray_runner.run(
                    scheduler,
                    self.resources,
                    self.plan.root,
                    data.folders,
                    self.plan.folder.path / "ray",
                    self.stop,
                    self.options.patience,
                )
                if isinstance(view, ProgressTable) and not scheduler.stopping:
                    view.complete()
        self.complete = self.complete and not scheduler.stopping

    def _room(self) -> dict[str, Any]:
        """Memory and cores that a trial has."""
        machine = {name: hardware()[name] for name in ("memory_gb", "gpus")}
        return {"trials": self.slots, "resources": self.resources.model_dump(), "machine": machine}

    def _connect(self) -> None:
        if not self.connected:
            self.connected = True
            cpus = min(cores(), self.slots * self.resources.total_cpus)
            ray_cluster.connect(self.resources, cpus=cpus)

    def _view(
        self, expected: float, trials: int, planned: Sequence[Job], tuning: Sequence[Job] = ()
    ) -> ProgressTable | JsonLines:
        if self.options.json:
            return JsonLines()
        pretrainings = [job.pretraining for job in (*planned, *tuning) if job.pretraining]
        return ProgressTable(
            self.console,
            self.plan.space.settings.metric,
            expected,
            self.slots,
            trials,
            self.plan.seconds_of,
            names_of(planned) | names_of(tuning) | names_of(pretrainings),
            self.stop,
            every_epoch=self.options.verbose,
        )


def build_proposals(
    plan: Plan, journal: Journal, work: Callable[[Trial], Job], slots: int
) -> Proposals:
    """Build the plan's source of trials, which knows what the journal knows.

    Args:
        plan: what to do.
        journal: what was done.
        work: makes a job of a trial.
        slots: trials at once.
    """
    settings, entries = plan.space.settings, journal.entries()
    if settings.search is not None and settings.search.population is not None:
        return PopulationProposals(plan.space, work, entries)
    if settings.search is not None:
        former = plan.former.trials if plan.former else []
        return OptunaProposals(plan.space, work, slots, entries, plan.root, former)
    if settings.tune is not None:
        return TunedGrid(plan.space, work, entries)
    jobs = [work(trial) for trial in plan.grid]
    return Grid(jobs, entries, exempt=settings.early_stopping is None)


def build_early_stop(plan: Plan, journal: Journal) -> EarlyStop | None:
    """Build what stops trials early, which knows what the journal knows; none if nothing does."""
    settings = plan.space.settings.early_stopping
    if settings is None:
        return None
    entries = [(n, each) for n, each in journal.entries().items() if not each.planned.exempt]
    if isinstance(settings, OptunaPruner):
        from study.scheduling.optuna_pruning import OptunaPruning  # Optuna takes long to import.

        pruning = OptunaPruning(settings, plan.longest_finetuning, plan.name)
        for number, entry in entries:
            pruning.remember(number, entry.values, entry.result)
        return pruning
    asha = Asha(settings, plan.longest_finetuning)
    for number, entry in entries:
        asha.remember(number, entry.values)
    return asha


def expected_seconds(plan: Plan, trials: Iterable[Job]) -> float:
    """Estimate the compute of trials and their pretrainings, as if nothing of it was done."""
    seconds: dict[str, float] = {}
    jobs = (job for trial in trials for job in (trial, trial.pretraining) if job)
    for job in (job for job in jobs if not job.start):
        name, own = job.full_schedule.key, plan.seconds_of(job.trial, job.training)
        seconds[name] = max(seconds.get(name, 0.0), own)
    return sum(seconds.values())


def require_cluster(address: str) -> None:
    """Probe the port of a cluster first: Ray retries for minutes.

    Raises:
        UserError: if it is no address, or there is no response.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--address {address}: must be HOST:PORT of a running Ray, such as head:6379, or auto "
            "for one on this machine; leave the option out to run without one"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as problem:
        raise UserError(
            f"--address {address}: no response ({problem.strerror or problem}); start Ray there "
            "with `ray start --head`, or leave the option out to run on this machine"
        ) from None
