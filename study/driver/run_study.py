"""Runs a study as the command line asks: plan it, make its data, do all work, report it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from study.console.data_warnings import print_data_warnings
from study.console.dry_run import DryRun
from study.console.formatting import PlainConsole
from study.console.json_lines import print_json_event
from study.console.plan_summary import print_plan_summary
from study.console.progress_bar import fetch_data, progress_display
from study.console.run_options import RunOptions
from study.console.study_summary import StudySummary
from study.core.atomic_io import locked
from study.core.errors import MACHINE_FAULT, RERUN, MachineError, UserError
from study.core.paths import keep_inductor_private, real_path
from study.core.provenance import gpus
from study.core.signals import EXIT_FAILED, EXIT_UNFINISHED, ShutdownRequest
from study.core.trust import accept_place
from study.datasets.readers.detect import settings_of
from study.datasets.reading import Stored
from study.driver.preflight import require_ready
from study.driver.session import Session
from study.driver.verify_resume import verify
from study.planning.cost_model import Cost
from study.planning.plan import Plan
from study.planning.plan_checks import (
    check_own_metrics,
    check_own_models,
    check_plan,
    check_small_files,
    machine_warnings,
    prepare_datasets,
    read_datasets,
)
from study.planning.remaining_cost import Experience, RemainingCost, Source
from study.planning.study_changes import environment_changes
from study.scheduling.journal import Journal
from study.space.overrides import parse_change
from study.space.search_space import STUDY_NAME, Space, load_space
from study.space.yaml_loader import as_block
from study.tracking.postgres import require_supported
from study.tracking.tracker import Tracker


def run_study(options: RunOptions, stop: ShutdownRequest) -> int:
    """Do what the command line asks for.

    Args:
        options: the command line.
        stop: what a signal does.

    Returns:
        The exit code.

    Raises:
        UserError: for an error the user can fix.
        MachineError: for a fault of this machine.
        KeyboardInterrupt: after a signal, when running work has written its checkpoints.
    """
    plan = build_plan(options)
    always = PlainConsole(stderr=options.json)
    console = PlainConsole(quiet=True) if options.quiet else always
    console.print(_heading(plan, options))
    check_plan(plan, on_cluster=bool(options.address))
    check_own_models(plan)
    check_own_metrics(plan)
    print_plan_summary(plan, console)
    for line in machine_warnings(plan, on_cluster=bool(options.address)):
        console.print(f"  warning  {line}")
    if options.verify_resume:
        return _verify_resume(plan, always)
    if options.dry_run or options.probe:
        check_small_files(plan)
        print_data_warnings(plan, console)
        _dry_run(plan, console, options)
        return 0
    _read_data(plan, console, options)
    for line in environment_changes(plan.folder, plan.space):
        always.print(f"  warning  {line}")
    busy = f"{plan.folder.path}: this study is running already; wait for it, or choose a --name"
    with locked(plan.folder.lock, busy):
        return _conduct(plan, console, always, options, stop)


def _read_data(plan: Plan, console: Console, options: RunOptions) -> None:
    """Check that all can run, read the data sets that are files, and tell what is to be known."""
    cost = _expected(plan)
    before = DryRun(plan)
    if not before.unread:
        before.show_time(console, cost)
    require_ready(plan, options.address, cost.disk)
    if options.tracking_uri:
        accept_place(plan.tracking_uri)
    with progress_display("reading data", stream=sys.stderr) as progress:
        read_datasets(plan, progress)
    if before.unread:
        read = replace(plan)  # It knows now what it did not.
        DryRun(read).show_time(console, _expected(read))
    print_data_warnings(plan, console)


def _heading(plan: Plan, options: RunOptions) -> str:
    """The study, the profile that it runs, and why this one."""
    profile = plan.space.profile
    if not profile:
        return plan.name
    if options.profile is not None:
        return f"{plan.name} (profile {profile}, as requested)"
    found = "GPU found" if gpus() else "no GPU found"
    others = [name for name in (plan.space.settings.profiles or {}) if name != profile]
    also = f"; there is also --profile {', '.join(others)}" if others else ""
    return f"{plan.name} (profile {profile}: {found}{also})"


def build_plan(options: RunOptions) -> Plan:
    """Read the space and check what the command line changes.

    Raises:
        UserError: if the space or an option is wrong.
    """
    usual = "paper" if gpus() else "quick"
    changes = _changes(options)
    space = load_space(options.space, options.profile, changes, options.trials, default=usual)
    _check_options(options, space)
    for dataset in dict.fromkeys(data for trial in space.samples for data in trial.datasets):
        if isinstance(dataset, Stored):  # Code of the user's own reads its addresses itself.
            fetch_data(dataset.path or "", options.out, keep=options.writes)
    root = real_path(options.out)
    uri = options.tracking_uri or f"sqlite:///{root}/mlflow.db"
    require_supported(uri)
    name = options.name or space.name
    return Plan(space, root, name, uri, options.max_concurrent, options.audit or 0)


def _changes(options: RunOptions) -> list[tuple[list[str], Any]]:
    """Keys and values of a space that the command line replaces; the last one counts."""
    seeds = [] if options.seeds is None else [f"seeds=[{options.seeds}]"]
    changes = [parse_change(text) for text in (*seeds, *options.settings)]
    if options.data is None:
        return changes
    fetch_data(options.data, options.out, keep=options.writes)
    if isinstance(options.data, Path) and not options.data.exists():
        raise UserError(f"--data {options.data}: no such file")
    return [(["trial", "dataset"], as_block(settings_of(options.data))), *changes]


def _check_options(options: RunOptions, space: Space) -> None:
    if options.name and not STUDY_NAME.fullmatch(options.name):
        raise UserError(
            f"--name {options.name}: must be letters, digits, `_`, `-`, `.`, at most 64, the first "
            "a letter or digit"
        )
    most = options.max_concurrent
    if most is not None and (most < 1 or options.address):
        raise UserError(
            f"--max-concurrent {most}: must be at least 1, and needs this machine, not --address; "
            "on a cluster `resources:` decides"
        )
    audit = options.audit
    if audit is not None and (audit < 1 or not space.settings.early_stopping):
        raise UserError(
            f"--audit {audit}: must be at least 1, and needs `early_stopping:`, which "
            f"{options.space} does not have; leave the option out"
        )


def _verify_resume(plan: Plan, console: Console) -> int:
    """Kill and resume a short trial on this machine."""
    verdict = verify(plan, "cuda" if _on_gpu(plan) else "cpu")
    console.print(f"\n{verdict}")
    return 0 if verdict.holds else EXIT_FAILED


def _expected(plan: Plan) -> Cost:
    """What is left to pay, by the experience with other studies."""
    return RemainingCost(plan).cost(Experience(plan, on_gpu=_on_gpu(plan)))


def _on_gpu(plan: Plan) -> bool:
    return bool(gpus()) and plan.space.settings.resources.gpus > 0


def _dry_run(plan: Plan, console: Console, options: RunOptions) -> None:
    """Show what there is to do and what it will cost, estimated or measured."""
    dry_run = DryRun(plan, every_arm=options.verbose)
    dry_run.show(console)
    source: Source = Experience(plan, on_gpu=_on_gpu(plan))
    how = "estimated" if plan.read else "estimated; --probe measures"
    if options.probe:
        from study.planning.step_timer import Probe  # Torch takes long to import.

        source, how = Probe(plan, "cuda" if _on_gpu(plan) else "cpu"), "measured"
    cost = RemainingCost(plan).cost(source)
    dry_run.show_cost(console, cost, how)
    if options.json:
        dry_run.print_json(cost)


def _conduct(
    plan: Plan, console: Console, always: Console, options: RunOptions, stop: ShutdownRequest
) -> int:
    """Make the data, do all work, record and report it.

    Args:
        plan: what to do.
        console: for progress.
        always: for results.
        options: the command line.
        stop: what a signal does.

    Returns:
        The exit code.
    """
    keep_inductor_private()
    if options.json:
        print_json_event("study", folder=str(plan.folder.path), trials=plan.trials)
    journal, tracker, session = _do_work(plan, console, options, stop)
    entries = [entry for entry in journal.entries().values() if entry.result is not None]
    summary = StudySummary(plan, tracker, always, as_json=options.json)
    summary.show_results(entries)
    if session.complete and options.report:
        summary.publish(entries, options.patience)
    summary.show_places()
    if session.complete:
        summary.show_next(entries)
    if tracker.fault:
        raise MachineError(f"{tracker.fault}; {RERUN}")
    if summary.fault:
        return MACHINE_FAULT
    if session.complete:
        failed = session.failed or not all(entry.over for entry in entries)
        return EXIT_FAILED if failed else 0
    always.print(
        f"\nBudget of {options.budget_text} exhausted; rerun with a larger --budget to continue."
    )
    return EXIT_UNFINISHED


def _do_work(
    plan: Plan, console: Console, options: RunOptions, stop: ShutdownRequest
) -> tuple[Journal, Tracker, Session]:
    """Make the data and do all work; returns who knows how it went."""
    study = plan.folder.write(plan.space, plan.tracking_uri, {}, options.command, plan.audit)
    if plan.former:
        plan.former.write(plan.folder.path)
    tags = plan.tags(study)
    with ExitStack() as leaving:
        with _tracker(plan, tags, console) as tracker:
            with progress_display("simulating water", stream=console.file) as progress:
                data = prepare_datasets(plan, progress)
            plan.folder.write(plan.space, plan.tracking_uri, data.hashes)
            journal = Journal(plan.folder.journal, plan.space.settings.metric)
            tracker.wait()
            session = leaving.enter_context(Session(plan, console, options, stop))
            session.run_plan(data, journal, tracker)
        audit = session.audit(journal)
        if audit.sample and session.complete:
            with _tracker(plan, tags, console, "audit") as auditor:
                auditor.wait()
                session.run_audit(audit, data, auditor)
            # It records for the same study, after all that the first one did.
            tracker = auditor if tracker.whole else tracker
    return journal, tracker, session


@contextmanager
def _tracker(
    plan: Plan, tags: dict[str, str], console: Console, trials: str = "trial"
) -> Iterator[Tracker]:
    """Record in MLflow what is done meanwhile; see `Tracker`."""
    tracker = Tracker(plan.tracking_uri, plan.name, plan.root, tags, trials)
    tracker.open()
    status, told = "KILLED", False
    try:
        yield tracker
        status = "FINISHED"
    except (MachineError, OSError):
        told = True
        raise
    finally:
        whole = tracker.close(status)
        # A fault of the disk ends the study with a line of its own.
        told = told or status == "FINISHED"
        if not whole and not (tracker.fault and told):
            why = tracker.problem or "it is too slow"
            console.print(
                f"MLflow did not take all records ({why}); rerun the same command to add them.",
                style="red",
            )
