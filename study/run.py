"""Run a study: `python -m study.run --space masking_ratio.yaml`.

The same command continues an interrupted study and skips what is finished.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from study.console import run_options
from study.core.errors import (
    MACHINE_FAULT,
    MachineError,
    UserError,
    os_error_message,
    show_any_text,
)
from study.core.paths import real_path
from study.core.signals import EXIT_UNFINISHED, ShutdownRequest, handle_signals
from study.driver.conduct import conduct

if TYPE_CHECKING:
    from rich.console import Console

    from study.planning.plan import Plan

FAILED, MISUSE = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run one study.

    Returns:
        0; 1 if a trial failed; 2 for what the user can mend; 71 for a fault of this machine; 75
        when time or budget is up, or after SIGUSR1; 130 after Ctrl-C or SIGTERM.
    """
    show_any_text()
    chosen = run_options.parser().parse_args(arguments)
    chosen.command = run_options.command(sys.argv[1:] if arguments is None else arguments)
    ending = ShutdownRequest()
    try:
        with handle_signals(run_options.seconds_left(chosen)) as ending:
            return _run(chosen, ending)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return MISUSE
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return MACHINE_FAULT
    except OSError as error:
        sys.stderr.write(
            f"{os_error_message(error)}; fix this and rerun the same "
            "command; completed work is reused\n"
        )
        return MACHINE_FAULT
    except KeyboardInterrupt:
        if ending.number == signal.SIGALRM and chosen.stop_at:
            sys.stderr.write(f"stopped at {chosen.stop_at}; a later --stop-at goes on\n")
        elif ending.number == signal.SIGALRM:
            sys.stderr.write("stopped before SLURM ends this job; the same command goes on\n")
        else:
            sys.stderr.write("interrupted; rerun the same command to resume\n")
        return ending.code


def _run(chosen: argparse.Namespace, ending: ShutdownRequest) -> int:
    plan, reason = _plan(chosen)
    limit = run_options.budget(chosen)
    run_options.patience(chosen)
    from rich.console import Console

    from study.console.plan_summary import introduce

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
    from study.console.study_summary import Conclusion
    from study.core.atomic_io import locked
    from study.tracking.tracker import require_reachable

    require_reachable(plan.tracking_uri)
    if chosen.address:
        from study.driver.session import require_cluster

        require_cluster(chosen.address)
    plan.read()
    busy = f"{plan.folder.path}: this study is running already; wait for it, or choose a --name"
    with locked(plan.folder.lock, busy):
        journal, tracker, session = conduct(plan, console, chosen, limit, ending)
        entries = [entry for entry in journal.entries().values() if entry.result is not None]
        conclusion = Conclusion(plan, tracker, spoken, as_json=chosen.json)
        conclusion.show_results(entries)
        if session.whole and not chosen.no_report:
            conclusion.publish(entries, run_options.patience(chosen))
        conclusion.show_places()
    if session.whole:
        failed = session.failed or not all(entry.over for entry in entries)
        return FAILED if failed else 0
    spoken.print(f"\n--budget {chosen.budget} is spent; the same command with more goes on.")
    return EXIT_UNFINISHED


def _verify_resume(plan: Plan, console: Console) -> int:
    """Kill and resume a short trial on this machine."""
    from study.core.provenance import gpus
    from study.driver.verify_resume import verify

    on_gpu = bool(gpus()) and plan.space.settings.resources.gpus > 0
    verdict = verify(plan, "cuda" if on_gpu else "cpu")
    console.print(f"\n{verdict}")
    return 0 if verdict.holds else FAILED


def _foresee(plan: Plan, console: Console, chosen: argparse.Namespace) -> None:
    """Show what there is to do and what it will cost, estimated or measured."""
    from study.console.dry_run import Preview
    from study.planning.remaining_cost import Experience, RemainingCost

    preview, left = Preview(plan, every_arm=chosen.verbose), RemainingCost(plan)
    preview.show(console)
    if chosen.probe:
        from study.planning.step_timer import Probe

        cost = left.cost(Probe(plan, "cuda" if preview.on_gpu else "cpu"))
        preview.show_cost(console, cost, "measured")
    else:
        cost = left.cost(Experience(plan, on_gpu=preview.on_gpu))
        preview.show_cost(console, cost, "estimated; --probe measures")
    if chosen.json:
        preview.say(cost)


def _foretell(plan: Plan, console: Console) -> None:
    """Say how long a study that begins will take."""
    from study.console.dry_run import Preview
    from study.planning.remaining_cost import Experience, RemainingCost

    preview = Preview(plan)
    cost = RemainingCost(plan).cost(Experience(plan, on_gpu=preview.on_gpu))
    preview.show_time(console, cost)


def _plan(chosen: argparse.Namespace) -> tuple[Plan, str]:
    """What to do, and why with this profile."""
    from study.core.provenance import gpus
    from study.planning.plan import Plan
    from study.space.search_space import STUDY_NAME, load_space

    profile, reason = chosen.profile, "as asked"
    if profile is None:
        profile = "paper" if gpus() else "quick"
        why = "a GPU is here" if gpus() else "no GPU here"
        reason = f"{why}; --profile {'quick' if gpus() else 'paper'} for the other"
    changes = run_options.changes(chosen)
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
    root = real_path(chosen.out)
    uri = chosen.tracking_uri or f"sqlite:///{root}/mlflow.db"
    return Plan(space, root, name, uri, most, chosen.audit or 0), reason


if __name__ == "__main__":
    sys.exit(main())
