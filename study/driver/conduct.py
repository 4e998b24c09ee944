"""Make the data of a study, do all work, record it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from study.core.signals import ShutdownRequest

if TYPE_CHECKING:
    from rich.console import Console

    from study.driver.session import Session
    from study.planning.plan import Plan
    from study.scheduling.journal import Journal
    from study.tracking.tracker import Tracker


def conduct(
    plan: Plan,
    console: Console,
    chosen: argparse.Namespace,
    limit: float | None,
    ending: ShutdownRequest,
) -> tuple[Journal, Tracker, Session]:
    """Make the data, do all work, record it.

    Args:
        plan: what to do.
        console: where to show it.
        chosen: the command line.
        limit: budget, GPU or core seconds.
        ending: what a signal asks of workers.

    Returns:
        The journal, who recorded it in MLflow, and how it went.
    """
    from study.console.progress_bar import progress_display
    from study.scheduling.journal import Journal

    tags = plan.tags(plan.folder.write(plan.space, plan.tracking_uri, {}, chosen.command))
    with ExitStack() as leaving:
        with _tracker(plan, tags, console) as tracker:
            with progress_display("simulating water", stream=console.file) as progress:
                data = plan.prepare(progress)
            plan.folder.write(plan.space, plan.tracking_uri, data.hashes)
            journal = Journal(plan.folder.journal, plan.space.settings.metric)
            tracker.wait()
            from study.driver.session import Session

            session = leaving.enter_context(Session(plan, console, chosen, limit, ending))
            session.do_plan(data, journal, tracker)
        audit = session.audit(journal)
        if audit.sample and session.whole:
            with _tracker(plan, tags, console, "audit") as auditor:
                auditor.wait()
                session.do_audit(audit, data, auditor)
            # It records for the same study, after all that the first one did.
            tracker = auditor if tracker.whole else tracker
    return journal, tracker, session


@contextmanager
def _tracker(
    plan: Plan, tags: dict[str, str], console: Console, trials: str = "trial"
) -> Iterator[Tracker]:
    """Records in MLflow what is done meanwhile; see `Tracker`."""
    from study.tracking.tracker import Tracker

    tracker = Tracker(plan.tracking_uri, plan.name, plan.root, tags, trials)
    tracker.open()
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        if not tracker.close(status):
            why = tracker.problem or "it is too slow"
            console.print(
                f"MLflow did not take all records ({why}); the same command adds them.",
                style="red",
            )
