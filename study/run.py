"""Run a study: `python -m study.run --space masking_ratio.yaml`.

The same command continues an interrupted study and skips what is finished.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from study import options
from study.errors import MACHINE_FAULT, MachineError, UserError, of_disk
from study.signals import UNFINISHED, Ending, heeded

if TYPE_CHECKING:
    from rich.console import Console

    from study.journal import Journal
    from study.plan import Plan
    from study.session import Session
    from study.tracking import Tracker

FAILED, MISUSE = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run one study.

    Returns:
        0; 1 if a trial failed; 2 for what the user can mend; 71 for a fault of this machine; 75
        when time or budget is up, or after SIGUSR1; 130 after Ctrl-C or SIGTERM.
    """
    chosen = options.parser().parse_args(arguments)
    chosen.command = options.command(sys.argv[1:] if arguments is None else arguments)
    ending = Ending()
    try:
        with heeded(options.seconds_left(chosen)) as ending:
            return _run(chosen, ending)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return MISUSE
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return MACHINE_FAULT
    except OSError as error:
        sys.stderr.write(
            f"{of_disk(error)}; mend that and run the same command again, it goes on from what is "
            "done\n"
        )
        return MACHINE_FAULT
    except KeyboardInterrupt:
        if ending.number == signal.SIGALRM and chosen.stop_at:
            sys.stderr.write(f"stopped at {chosen.stop_at}; a later --stop-at goes on\n")
        elif ending.number == signal.SIGALRM:
            sys.stderr.write("stopped before SLURM ends this job; the same command goes on\n")
        else:
            sys.stderr.write("interrupted; the same command continues the study\n")
        return ending.code


def _run(chosen: argparse.Namespace, ending: Ending) -> int:
    plan, reason = _plan(chosen)
    limit = options.budget(chosen)
    options.patience(chosen)
    from rich.console import Console

    from study.introduction import introduce

    spoken = Console(highlight=False, soft_wrap=True, markup=False, stderr=chosen.json)
    console = Console(quiet=True) if chosen.quiet else spoken
    console.print(f"{plan.space.path.stem}, profile {plan.space.profile} ({reason})")
    plan.check(on_cluster=bool(chosen.address))
    introduce(plan, console)
    if chosen.verify_resume:
        return _verify_resume(plan, spoken)
    if chosen.dry_run or chosen.probe:
        _foresee(plan, console, chosen)
        return 0
    _foretell(plan, console)
    from study.conclusion import Conclusion
    from study.durable import locked
    from study.tracking import require_reachable

    require_reachable(plan.tracking_uri)
    if chosen.address:
        from study.session import require_cluster

        require_cluster(chosen.address)
    plan.read()
    busy = f"{plan.folder.path}: this study is running already; wait for it, or choose a --name"
    with locked(plan.folder.lock, busy):
        journal, tracker, session = _conduct(plan, console, chosen, limit, ending)
        entries = [entry for entry in journal.entries().values() if entry.result is not None]
        conclusion = Conclusion(plan, tracker, spoken, as_json=chosen.json)
        conclusion.show_results(entries)
        if session.whole and not chosen.no_report:
            conclusion.publish(entries, options.patience(chosen))
        conclusion.show_places()
    if session.whole:
        failed = session.failed or not all(entry.over for entry in entries)
        return FAILED if failed else 0
    spoken.print(f"\n--budget {chosen.budget} is spent; the same command with more goes on.")
    return UNFINISHED


def _verify_resume(plan: Plan, console: Console) -> int:
    """Kill and resume a short trial on this machine."""
    from study.provenance import gpus
    from study.verify_resume import verify

    on_gpu = bool(gpus()) and plan.space.settings.resources.gpus > 0
    verdict = verify(plan, "cuda" if on_gpu else "cpu")
    console.print(f"\n{verdict}")
    return 0 if verdict.holds else FAILED


def _foresee(plan: Plan, console: Console, chosen: argparse.Namespace) -> None:
    """Show what there is to do and what it will cost, estimated or measured."""
    from study.preview import Experience, Preview

    preview = Preview(plan, every_arm=chosen.verbose)
    preview.show(console)
    if chosen.probe:
        from study.probe import Probe

        cost = preview.cost(Probe(plan, "cuda" if preview.on_gpu else "cpu"))
        preview.show_cost(console, cost, "measured")
    else:
        cost = preview.cost(Experience(plan, on_gpu=preview.on_gpu))
        preview.show_cost(console, cost, "estimated; --probe measures")
    if chosen.json:
        preview.say(cost)


def _foretell(plan: Plan, console: Console) -> None:
    """Say how long a study that begins will take."""
    from study.preview import Experience, Preview

    preview = Preview(plan)
    preview.show_time(console, preview.cost(Experience(plan, on_gpu=preview.on_gpu)))


def _plan(chosen: argparse.Namespace) -> tuple[Plan, str]:
    """What to do, and why with this profile."""
    from study.plan import Plan
    from study.provenance import gpus
    from study.space import STUDY_NAME, load_space

    profile, reason = chosen.profile, "as asked"
    if profile is None:
        profile = "paper" if gpus() else "quick"
        why = "a GPU is here" if gpus() else "no GPU here"
        reason = f"{why}; --profile {'quick' if gpus() else 'paper'} for the other"
    changes = options.changes(chosen)
    if chosen.trials is not None and load_space(chosen.space, profile).settings.search is None:
        raise UserError(
            f"--trials {chosen.trials}: {chosen.space} is a grid, whose choices and seeds say how "
            "many trials there are; leave the option out, or use --seeds"
        )
    space = load_space(chosen.space, profile, changes)
    name = chosen.name or space.name
    if not STUDY_NAME.fullmatch(name):
        raise UserError(
            f"--name {name}: must be letters, digits, `_`, `-`, `.`, at most 64, the first a "
            "letter or digit"
        )
    most = chosen.max_concurrent
    if most is not None and (most < 1 or chosen.address):
        raise UserError(
            f"--max-concurrent {most}: must be at least 1, and needs this machine, not --address; "
            "on a cluster `resources:` decides"
        )
    if chosen.audit is not None and (chosen.audit < 1 or not space.settings.early_stopping):
        raise UserError(
            f"--audit {chosen.audit}: must be at least 1, and needs `early_stopping:`, which "
            f"{chosen.space} does not have; leave the option out"
        )
    root = chosen.out.resolve()
    uri = chosen.tracking_uri or f"sqlite:///{root}/mlflow.db"
    return Plan(space, root, name, uri, most, chosen.audit or 0), reason


def _conduct(
    plan: Plan,
    console: Console,
    chosen: argparse.Namespace,
    limit: float | None,
    ending: Ending,
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
    from study.journal import Journal
    from study.progress import progress_display

    tags = plan.tags(plan.folder.write(plan.space, plan.tracking_uri, {}, chosen.command))
    with ExitStack() as leaving:
        with _tracker(plan, tags, console) as tracker:
            with progress_display("simulating water", stream=console.file) as progress:
                data = plan.prepare(progress)
            plan.folder.write(plan.space, plan.tracking_uri, data.hashes)
            journal = Journal(plan.folder.journal, plan.space.settings.metric)
            tracker.wait()
            from study.session import Session

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
    from study.tracking import Tracker

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


if __name__ == "__main__":
    sys.exit(main())
