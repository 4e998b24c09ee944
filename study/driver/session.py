"""One run of a study: its work goes to Ray, that of the plan first, then that of an audit."""

from __future__ import annotations

import argparse
import math
import socket
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Self

from rich.console import Console

from study.console import run_options
from study.console.json_lines import JsonLines, say
from study.console.progress_table import Display
from study.core.errors import UserError
from study.core.provenance import cores, gpus, hardware
from study.core.signals import ShutdownRequest
from study.driver import ray_cluster
from study.driver.search_factory import build_audit, build_search
from study.pipeline.job import Job
from study.planning.arms import names_of
from study.planning.plan import Plan
from study.planning.prepared_data import DataSets
from study.scheduling import ray_env
from study.scheduling.budget import Budget
from study.scheduling.early_stopping_audit import Audit
from study.scheduling.journal import Journal
from study.scheduling.protocols import EarlyStop, Observer, Proposals
from study.scheduling.scheduler import Conductor
from study.tracking.tracker import Tracker


class Session:
    """Has work done, and leaves Ray at the end; Ray starts only if some work is left.

    Args:
        plan: of the study.
        console: where to show what happens.
        chosen: the command line.
        limit: budget, GPU or core seconds.
        ending: what a signal asks of workers.
    """

    def __init__(
        self,
        plan: Plan,
        console: Console,
        chosen: argparse.Namespace,
        limit: float | None,
        ending: ShutdownRequest,
    ) -> None:
        self.plan, self.console, self.chosen, self.ending = plan, console, chosen, ending
        self.settings, self.resources = plan.space.settings, plan.space.settings.resources
        on_gpus = gpus() and self.resources.gpus
        share = self.resources.gpus if on_gpus else self.resources.cpus
        self.budget = Budget(share, math.inf if limit is None else limit)
        self.connected, self.failed = False, False
        if chosen.address:
            ray_env.use_cluster()
        else:
            ray_env.use_private_cluster()
        self.whole = True
        """Nothing was put off for lack of budget."""

    def __enter__(self) -> Self:
        """Nothing starts yet."""
        return self

    def __exit__(self, *problem: object) -> None:
        """Leave Ray."""
        if self.connected:
            ray_cluster.disconnect()

    @cached_property
    def slots(self) -> int:
        """Trials at once."""
        address = self.chosen.address
        if not address:
            return self.plan.slots
        self.connected = True
        return ray_cluster.connect(self.resources, address=address)

    def do_plan(self, data: DataSets, journal: Journal, tracker: Tracker) -> None:
        """Run all trials of the plan."""
        found, early_stop = build_search(self.plan, journal, data.work, self.slots)
        planned = [data.work(trial) for trial in self.plan.grid]
        display = self._display(self.plan.seconds, self.plan.trials, planned)
        self._work_off(data, found, tracker, display, journal, early_stop)

    def audit(self, journal: Journal) -> Audit:
        """Which of the stopped trials to finish."""
        return build_audit(self.plan, journal)

    def do_audit(self, audit: Audit, data: DataSets, tracker: Tracker) -> None:
        """Finish stopped trials; in the journal they stay stopped."""
        numbers = [planned.number for planned in audit.sample]
        self.console.print(f"\naudit of early stopping: {len(numbers)} of {audit.stopped} stopped")
        if self.chosen.json:
            say("audit", stopped=audit.stopped, numbers=numbers)
        works = [planned.work for planned in audit.sample]
        display = self._display(self._seconds(works), len(numbers), works)
        self._work_off(data, audit, tracker, display)
        self.console.print(audit.found)
        self.failed = audit.failed

    def _work_off(
        self,
        data: DataSets,
        proposals: Proposals,
        tracker: Tracker,
        display: Display | JsonLines,
        journal: Journal | None = None,
        early_stop: EarlyStop | None = None,
    ) -> None:
        metric, root = self.settings.metric, self.plan.root
        records: list[Observer] = [tracker, self.budget, display]
        observers = [journal, *records] if journal else records
        earlier, size = journal.stopped() if journal else None, self._size()
        conductor = Conductor(
            proposals, metric, root, observers, early_stop, earlier, self.budget, size
        )
        if conductor.has_work():
            tracker.connect()
            tracker.wait()
            self._connect()
            from study.driver import ray_runner  # Ray takes long to import.

            scratch, quiet = self.plan.folder.path / "ray", self.chosen.quiet
            with display if isinstance(display, Display) and not quiet else nullcontext():
                patience = run_options.patience(self.chosen)
                ray_runner.run(
                    conductor, self.resources, root, data.folders, scratch, self.ending, patience
                )
        self.whole = self.whole and not conductor.put_off

    def _size(self) -> dict[str, Any]:
        """Of the room that a trial has."""
        room = {name: hardware()[name] for name in ("memory_gb", "gpus")}
        return {"trials": self.slots, "resources": self.resources.model_dump(), "machine": room}

    def _connect(self) -> None:
        if not self.connected:
            self.connected = True
            cpus = min(cores(), self.slots * self.resources.cpus)
            ray_cluster.connect(self.resources, cpus=cpus)

    def _display(self, expected: float, trials: int, planned: Sequence[Job]) -> Display | JsonLines:
        if self.chosen.json:
            return JsonLines()
        pretrainings = [work.pretraining for work in planned if work.pretraining]
        return Display(
            self.console,
            self.settings.metric,
            expected,
            self.slots,
            trials,
            self.plan.seconds_of,
            names_of(planned) | names_of(pretrainings),
            every_epoch=self.chosen.verbose,
        )

    def _seconds(self, trials: Iterable[Job]) -> float:
        """Expected compute of trials and their pretrainings, as if nothing of it was done."""
        pieces: dict[str, float] = {}
        stages = (piece for trial in trials for piece in (trial, trial.pretraining) if piece)
        for piece in (piece for piece in stages if not piece.start):
            seconds = self.plan.seconds_of(piece.trial, piece.training)
            pieces[piece.full_schedule.key] = max(pieces.get(piece.full_schedule.key, 0.0), seconds)
        return sum(pieces.values())


def require_cluster(address: str) -> None:
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
