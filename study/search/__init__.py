"""Where trials come from, and which of them stop early."""

from __future__ import annotations

from study.conductor import EarlyStop, Proposals
from study.journal import Journal
from study.plan import Plan
from study.search.asha import Asha
from study.search.grid import Grid
from study.search.optuna_search import OptunaProposals
from study.work import Work


def build_search(plan: Plan, journal: Journal, slots: int) -> tuple[Proposals, EarlyStop | None]:
    """The plan's source of trials, and what stops them, both knowing what the journal knows."""
    settings, entries = plan.space.settings, journal.entries()
    early_stop = None
    if settings.early_stopping is not None:
        early_stop = Asha(settings.early_stopping, plan.longest_finetuning)
        for number, entry in entries.items():
            if not entry.planned.exempt:
                early_stop.remember(number, entry.values)
    if settings.search is not None:
        return OptunaProposals(plan.space, journal.data_hash, slots, entries), early_stop
    trials = [Work("trial", trial, journal.data_hash) for trial in plan.grid]
    return Grid(trials, entries, exempt=early_stop is None), early_stop
