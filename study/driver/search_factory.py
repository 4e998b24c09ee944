"""Where trials come from, and which of them stop early."""

from __future__ import annotations

from collections.abc import Callable

from study.pipeline.job import Job
from study.planning.plan import Plan
from study.scheduling.asha import Asha
from study.scheduling.early_stopping_audit import Audit, audit_of
from study.scheduling.grid import Grid
from study.scheduling.journal import Journal
from study.scheduling.optuna_search import OptunaProposals
from study.scheduling.protocols import EarlyStop, Proposals
from study.space.trial import Trial


def build_search(
    plan: Plan, journal: Journal, work: Callable[[Trial], Job], slots: int
) -> tuple[Proposals, EarlyStop | None]:
    """The plan's source of trials, and what stops them, both knowing what the journal knows.

    Args:
        plan: what to do.
        journal: what was done.
        work: makes a piece of work of a trial.
        slots: trials at once.
    """
    settings, entries = plan.space.settings, journal.entries()
    early_stop = None
    if settings.early_stopping is not None:
        early_stop = Asha(settings.early_stopping, plan.longest_finetuning)
        for number, entry in entries.items():
            if not entry.planned.exempt:
                early_stop.remember(number, entry.values)
    if settings.search is not None:
        return OptunaProposals(plan.space, work, slots, entries), early_stop
    trials = [work(trial) for trial in plan.grid]
    return Grid(trials, entries, exempt=early_stop is None), early_stop


def build_audit(plan: Plan, journal: Journal) -> Audit:
    """The plan's sample of what was stopped early, as the journal knows it."""
    return audit_of(plan.name, plan.space.settings, journal.entries(), plan.audit)
